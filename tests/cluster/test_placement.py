"""Where replicas go on a cluster of mixed nodes: fractions of a GPU, CPU and GPU groups, the head, the way in."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from serve_app.bench.faults.cluster import Cluster, Resources
from serve_app.bench.faults.layout import APPLICATION, FULL, HEAD, WITH_GPU, with_deployment
from serve_app.bench.serve_api import HEALTHY, RUNNING, State
from tests.cluster.clusters import classify, cluster_of

ON_CPU = "on-cpu"
QUARTERS = 4
TIMEOUT_S = 240.0
STAYS_S = 5.0


def content(cluster: Cluster) -> dict[str, Any]:
    """One quarter of a GPU more than there is, and an application that asks for none."""
    full = FULL.content(cluster.http_port, cluster.folder)
    gpu = with_deployment(full, num_replicas=QUARTERS + 1)
    cpu = with_deployment(full, num_replicas=1, ray_actor_options={"num_cpus": 1})
    return {
        **gpu,
        "applications": [*gpu["applications"], {**cpu["applications"][0], "name": ON_CPU, "route_prefix": "/cpu"}],
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with cluster_of([HEAD, WITH_GPU, Resources(cpus=2)]) as found:
        found.deploy(content(found))
        yield found


@pytest.fixture(scope="module")
def settled(cluster: Cluster) -> State:
    """Every replica that has room runs, and the proxies of the nodes they are on."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        state = cluster.serve.state()
        counts = {name: len(one.running) for name, one in state.applications.items()}
        if counts == {APPLICATION: QUARTERS, ON_CPU: 1} and list(state.proxies.values()) == [HEALTHY] * 3:
            return state
        assert time.monotonic() < deadline, state
        time.sleep(0.5)


def test_four_quarters_share_a_gpu_and_a_fifth_waits(cluster: Cluster, settled: State) -> None:
    with_gpu = cluster.nodes[1]
    assert [replica.node_id for replica in settled.applications[APPLICATION].running] == [with_gpu.node_id] * QUARTERS
    time.sleep(STAYS_S)  # long enough for one that is only late
    states = sorted(replica.state for replica in cluster.serve.state().applications[APPLICATION].replicas)
    assert states == [RUNNING] * QUARTERS + ["STARTING"]


def test_who_needs_no_gpu_stays_off_the_node_that_has_one(cluster: Cluster, settled: State) -> None:
    without_gpu = cluster.nodes[2]
    assert [replica.node_id for replica in settled.applications[ON_CPU].running] == [without_gpu.node_id]


def test_the_head_has_no_replica(cluster: Cluster, settled: State) -> None:
    hosts = {replica.node_id for one in settled.applications.values() for replica in one.running}
    assert cluster.head.node_id not in hosts


def test_every_node_lets_requests_in_to_every_application(
    cluster: Cluster, settled: State, samples: dict[int, bytes]
) -> None:
    assert len({node.http_port for node in cluster.nodes}) == 3
    for node in cluster.nodes:
        for prefix in ("", "/cpu"):
            answer = classify(f"http://127.0.0.1:{node.http_port}{prefix}", samples[7])
            assert answer["model_name"] == "digits"
