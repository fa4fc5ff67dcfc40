"""Only glue imports Ray, and what reads configs does not import torch: each can be used without."""

import json
import pkgutil
import subprocess
import sys
from collections.abc import Sequence

import pytest

import serve_app

GLUE = (
    "app",
    "classifier",
    "metrics",
    "config_file",
    "manifest",
    "cli.check",
    "bench.baselines.plain",
    "bench.baselines.tutorial",
    "bench.faults.breaking",
)
# Runs when it is imported.
COMMAND = ("__main__",)
# What `serve-app run` keeps in memory for as long as the service runs.
RUN = ("architectures", "cli", "cli.run", "config", "config_file", "errors", "grpc", "model_spec")
# What Ray's proxies import.
PROXY = ("grpc.server", "middleware")
# What every process of the load generator imports: 650 MB less of each, and ready at once.
GENERATOR = ("bench.generator", "bench.images", "bench.load")

# What a process that decodes for a replica is made of: a new one is wanted at once.
WORKER = ("reader", "decode_worker")

PREFIX = "serve_app."
# Each after the others, in one process: the first that brings it in is found, and torch is loaded but once.
SCRIPT = """
import importlib, json, sys
other, modules = json.loads(sys.argv[1])
print("first:", next((m for m in modules if importlib.import_module(m) and other in sys.modules), None))
"""


def first_to_import(other: str, modules: Sequence[str]) -> str:
    """Which of `modules` of serve_app, imported in a fresh process, is the first to bring in `other`, or `None`."""
    arguments = json.dumps([other, [PREFIX + module for module in modules]])
    result = subprocess.run([sys.executable, "-c", SCRIPT, arguments], check=True, capture_output=True, text=True)
    return result.stdout.rpartition("first: ")[2].strip()


def test_only_glue_imports_ray() -> None:
    every = [module.name.removeprefix(PREFIX) for module in pkgutil.walk_packages(serve_app.__path__, PREFIX)]
    assert set(GLUE) <= set(every)
    assert first_to_import("ray", [name for name in every if name not in (*GLUE, *COMMAND)]) == "None"


def test_what_only_reads_configs_or_sends_requests_does_not_import_torch() -> None:
    assert first_to_import("torch", [*RUN, *PROXY, *GENERATOR]) == "None"


@pytest.mark.parametrize("other", ["numpy", "pydantic", "dataclasses", "importlib.metadata"])
def test_a_decode_worker_imports_next_to_nothing(other: str) -> None:
    assert first_to_import(other, WORKER) == "None"


def test_spans_are_made_without_the_sdk() -> None:
    assert first_to_import("opentelemetry.sdk", ["tracing"]) == "None"


def test_an_import_is_noticed() -> None:
    assert first_to_import("ray", ["config", "app"]) == "serve_app.app"
    assert first_to_import("torch", ["architectures", "engine"]) == "serve_app.engine"
