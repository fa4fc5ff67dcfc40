"""A cluster of Ray nodes on this machine for the tests of a module, and afterwards nothing of it."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from serve_app.bench.faults.cluster import Cluster, Resources, running
from serve_app.cli import ports
from serve_app.cli.run import ENVIRONMENT, FAST_HTTP_PATH

TIMEOUT_S = 30.0


@contextmanager
def cluster_of(resources: Sequence[Resources], one_port: bool = False) -> Iterator[Cluster]:
    """With Ray's environment as `serve-app run` sets it; what it started is gone in the end, its ports are free."""
    with ports.claimed() as chosen:
        environment = {**FAST_HTTP_PATH, **ENVIRONMENT, **chosen}
        with running(resources, environment, one_port) as cluster:
            yield cluster
            nodes = list(cluster.nodes)
        assert [process for node in nodes for process in node.processes()] == []
        assert not cluster.folder.exists()
        assert all(ports.is_free(node.http_port) for node in nodes)


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
        found: dict[str, Any] = json.load(response)
        return found


def classify(url: str, image: bytes) -> dict[str, Any]:
    request = urllib.request.Request(f"{url}/v1/classify", data=image)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        found: dict[str, Any] = json.load(response)
        return found
