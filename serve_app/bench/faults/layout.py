"""Which nodes there are and what is deployed on them: the stage of an event."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serve_app.bench.faults import clock, disk
from serve_app.bench.faults.cluster import Resources, Surroundings, nothing_special

APPLICATION = "serve-app"
HEAD = Resources(cpus=0)
"""Nothing that asks for a CPU is placed on it."""
WITH_GPU = Resources(cpus=2, gpus=1)
REQUEST_TIMEOUT_S = 20
STUB = {"base_ms": 60, "per_image_ms": 1}
"""One of two replicas can bear alone what is sent: what is lost is lost to the event, never to overload."""
# Every replica starts from nothing on cores that others use too.
HEALTH = {"health_check_period_s": 2, "health_check_timeout_s": 10}


WEIGHTS = "weights.safetensors"
BREAKAGES = "SERVE_APP_BREAKAGES"
"""Environment variable: the folder in which an engine looks for what it is to do."""


@dataclass(frozen=True)
class Layout:
    """Nodes, and replicas of a stub device on declared GPUs."""

    name: str
    nodes: tuple[Resources, ...]
    replicas: int
    num_gpus: float
    max_per_node: int
    max_surge_percent: int = 0
    one_port: bool = False
    """See Cluster."""
    breakable: bool = False
    """Its engines obey files, and its weights are in one: see `breaking`."""
    surroundings: Surroundings = nothing_special

    def content(self, http_port: int, folder: Path) -> dict[str, Any]:
        """What is deployed, with http_options.port; `folder` is for what is to be broken."""
        content = self._content(http_port)
        return breakable(content, folder) if self.breakable else content

    def _content(self, http_port: int) -> dict[str, Any]:
        return {
            "proxy_location": "EveryNode",
            "http_options": {"host": "127.0.0.1", "port": http_port, "request_timeout_s": REQUEST_TIMEOUT_S},
            "applications": [
                {
                    "name": APPLICATION,
                    "route_prefix": "/",
                    "import_path": "serve_app.app:build_app",
                    "args": {"weights": "bundled", "device": "stub", "stub": STUB, "num_threads": 1},
                    "deployments": [
                        {
                            "name": "Classifier",
                            "num_replicas": self.replicas,
                            "max_ongoing_requests": 512,
                            "max_queued_requests": 256,
                            "max_replicas_per_node": self.max_per_node,
                            "max_surge_percent": self.max_surge_percent,
                            "graceful_shutdown_timeout_s": REQUEST_TIMEOUT_S + 5,
                            **HEALTH,
                            "ray_actor_options": {"num_cpus": 0.1, "num_gpus": self.num_gpus},
                            "user_config": {"max_batch_size": 16, "top_k": 5},
                        }
                    ],
                }
            ],
        }


# Of three nodes one is in reserve: with as many as replicas, one that is lost would put both onto one node.
PAIR = Layout("two replicas on three nodes", (HEAD, *[WITH_GPU] * 3), replicas=2, num_gpus=0.5, max_per_node=1)
BALANCED = replace(PAIR, name="the same, behind one address", one_port=True)
FULL = Layout("one GPU, full", (HEAD, WITH_GPU), replicas=4, num_gpus=0.25, max_per_node=8)
ROOM = replace(FULL, name="one GPU, with room for a fifth", num_gpus=0.2, max_surge_percent=25)


BREAKABLE = replace(PAIR, name="the same, of engines and weights that can be broken", breakable=True)
SMALL_DISK = replace(PAIR, name="the same, with a small disk for Ray's folder", surroundings=disk.mounted)
OWN_CLOCK = replace(PAIR, name="the same, with a clock of their own", surroundings=clock.followed)


def with_args(content: Mapping[str, Any], **args: Any) -> dict[str, Any]:
    changed = deepcopy(dict(content))
    changed["applications"][0]["args"].update(args)
    return changed


def with_deployment(content: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
    changed = deepcopy(dict(content))
    changed["applications"][0]["deployments"][0].update(deepcopy(keys))
    return changed


def with_variable(content: Mapping[str, Any], name: str, value: str) -> dict[str, Any]:
    """An environment variable of the replicas."""
    changed = deepcopy(dict(content))
    changed["applications"][0]["runtime_env"] = {"env_vars": {name: value}}
    return changed


def breakable(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    changed = with_variable(with_args(content, weights=str(folder / WEIGHTS)), BREAKAGES, str(folder))
    changed["applications"][0]["import_path"] = "serve_app.bench.faults.breaking:build_app"
    return changed
