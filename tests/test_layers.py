"""Only glue imports Ray, and what reads configs does not import torch: each can be used without."""

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
# What `serve-app run` keeps in memory for as long as the service runs.
WITHOUT_TORCH = ["architectures", "cli", "cli.run", "config", "config_file", "errors", "model_spec"]


@pytest.mark.parametrize("module", WITHOUT_RAY)
def test_importing_it_does_not_import_ray(module: str) -> None:
    assert not imports(module, "ray")


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_importing_it_does_not_import_torch(module: str) -> None:
    assert not imports(module, "torch")


def imports(module: str, other: str) -> bool:
    """Whether importing `module` of serve_app, in a process of its own, brings in `other`."""
    script = f"import sys, serve_app.{module}; print({other!r} in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return result.stdout.split()[-1] == "True"


def test_an_import_is_noticed() -> None:
    assert imports("architectures, torchvision", "torch")
