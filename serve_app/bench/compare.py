"""Who is compared: for each contestant the config that serves it, on the same resources and with the same queues."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save_file

from serve_app.bench.forward import random_checkpoint

OURS = "serve-app"
WAITS_MS = (0, 2, 10)
# All may queue as they like: what the queue does to latency is what is to be seen.
QUEUE = {"max_ongoing_requests": 8192, "max_queued_requests": 8192}
REQUEST_TIMEOUT_S = 30
ORDINARY_PROXY = {"RAY_SERVE_ENABLE_HA_PROXY": "0"}


@dataclass(frozen=True)
class Contestant:
    name: str
    content: dict[str, Any]
    """As a `deploy/*.yaml`."""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Terms:
    """What is the same for all of them."""

    args: dict[str, Any]
    """`args:` of our own config."""
    max_batch_size: int
    num_cpus: int
    num_gpus: int


def contestants(terms: Terms) -> list[Contestant]:
    """Ours first. The tutorial's app runs on real devices alone."""
    found = [ours(terms), *(_plain(terms, wait_ms) for wait_ms in WAITS_MS)]
    return found if terms.args["device"] == "stub" else [*found, _tutorial(terms)]


@contextmanager
def random_weights(arch: str) -> Iterator[str]:
    """The path of a checkpoint that needs no network: untrained, and as fast as a trained one."""
    with TemporaryDirectory() as folder:
        path = Path(folder, f"{arch}.safetensors")
        save_file(random_checkpoint(arch).state_dict, path)
        yield str(path)


def ours(terms: Terms) -> Contestant:
    user_config = {"max_batch_size": terms.max_batch_size, "max_queue_size": QUEUE["max_queued_requests"]}
    deployment = {"name": "Classifier", "user_config": user_config}
    return Contestant(OURS, _content(terms, "serve_app.app:build_app", terms.args, deployment))


def _plain(terms: Terms, wait_ms: int) -> Contestant:
    args = {"args": terms.args, "max_batch_size": terms.max_batch_size, "batch_wait_timeout_s": wait_ms / 1e3}
    content = _content(terms, "serve_app.bench.baselines.plain:build_app", args, {"name": "Plain"})
    return Contestant(f"@serve.batch, {wait_ms} ms", content)


def _tutorial(terms: Terms) -> Contestant:
    args = {key: value for key, value in terms.args.items() if key in ("arch", "weights")}
    content = _content(terms, "serve_app.bench.baselines.tutorial:build_app", args, {"name": "Tutorial"})
    return Contestant("tutorial", content, ORDINARY_PROXY)


def _content(terms: Terms, import_path: str, args: dict[str, Any], deployment: dict[str, Any]) -> dict[str, Any]:
    options = {"num_cpus": terms.num_cpus} | ({"num_gpus": terms.num_gpus} if terms.num_gpus else {})
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "request_timeout_s": REQUEST_TIMEOUT_S},
        "applications": [
            {
                "name": "compared",
                "route_prefix": "/",
                "import_path": import_path,
                "args": args,
                "deployments": [
                    {
                        **deployment,
                        **QUEUE,
                        "graceful_shutdown_timeout_s": REQUEST_TIMEOUT_S + 5,
                        "ray_actor_options": options,
                    }
                ],
            }
        ],
    }
