"""Only glue imports Ray, and what reads configs does not import torch: each can be used without."""

import subprocess
import sys

import pytest

WITHOUT_RAY = [
    "architectures",
    # Of the bench, all but its baselines and what starts the service.
    "bench.arrivals",
    "bench.figures",
    "bench.forward",
    "bench.generator",
    "bench.images",
    "bench.isolated",
    "bench.load",
    "bench.machine",
    "bench.memory",
    "bench.noop_server",
    "bench.samples",
    "bench.sweep",
    "cli",
    "cli.bench.forward",
    "cli.bench.load",
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
RUN = ["architectures", "cli", "cli.run", "config", "config_file", "errors", "model_spec"]
# What every process of the load generator imports: 650 MB less of each, and ready at once.
GENERATOR = ["bench.generator", "bench.images", "bench.load"]
WITHOUT_TORCH = [*RUN, *GENERATOR]


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
