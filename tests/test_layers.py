"""Only glue imports Ray: the pure modules and the device's can be read, tested and used without it."""

import subprocess
import sys

import pytest

WITHOUT_RAY = [
    "architectures",
    "cli",
    "config",
    "decode",
    "engine",
    "errors",
    "http",
    "model_spec",
    "scheduler",
    "weights",
]


@pytest.mark.parametrize("module", WITHOUT_RAY)
def test_importing_it_does_not_import_ray(module: str) -> None:
    script = f"import sys, serve_app.{module}; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
