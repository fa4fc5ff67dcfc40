"""What `serve-app bench faults` plays, in short: a cluster under load that is updated, drained, and killed in part."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.bench import images
from serve_app.bench.faults import kills, updates
from serve_app.bench.faults.cluster import Cluster
from serve_app.bench.faults.event import Bar, Done, Event, Stage
from serve_app.bench.faults.layout import APPLICATION, PAIR, with_args
from serve_app.bench.faults.outcome import Outcome
from serve_app.bench.faults.play import Watch, play
from serve_app.bench.faults.stage import FAILED, set_up
from serve_app.bench.generator import Generator, Run
from serve_app.bench.known import reference
from tests.cluster.clusters import classify, cluster_of, get
from tests.waiting import eventually

IMAGES = images.generated(32, 32).files
RATE_PER_S = 30.0
DURATION_S = 25.0
"""Of the load; an event that takes longer goes on without."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with cluster_of(PAIR.nodes) as found:
        yield found


@pytest.fixture(scope="module")
def generator() -> Iterator[Generator]:
    with Generator(IMAGES, 1) as found:
        yield found


@pytest.fixture
def stage(cluster: Cluster) -> Stage:
    """Two replicas on nodes that live, whatever the test before did."""
    return set_up(cluster, PAIR)


@pytest.fixture
def happen(stage: Stage, generator: Generator) -> Callable[..., Outcome]:
    def under_load(act: Callable[[Stage], Done], bar: Bar, duration_s: float = DURATION_S) -> Outcome:
        event = Event(act.__name__, PAIR, bar, act, duration_s)
        url = f"{stage.cluster.url}/v1/classify"
        run = Run(url, duration_s, rate_per_s=RATE_PER_S, known=reference(url, IMAGES, 30.0).answers)
        outcome = play(generator, run, Watch(stage, event), lambda _: None)
        assert outcome.holds(bar), outcome
        return outcome

    return under_load


def hosts(stage: Stage) -> set[str | None]:
    return {replica.node_id for replica in stage.before.running}


def test_replicas_spread_over_the_nodes(cluster: Cluster, stage: Stage) -> None:
    assert len(hosts(stage)) == 2
    assert hosts(stage) <= {node.node_id for node in cluster.nodes[1:]}


def test_new_batch_settings_keep_every_process(happen: Callable[..., Outcome], stage: Stage) -> None:
    assert happen(updates.user_config, Bar.NOTHING, 15.0).fewest_replicas == 2
    after = stage.cluster.serve.state().applications[APPLICATION]
    assert {replica.pid for replica in after.running} == {replica.pid for replica in stage.before.running}


def test_new_weights_come_without_a_failed_request(
    happen: Callable[..., Outcome], cluster: Cluster, samples: dict[int, bytes]
) -> None:
    before = get(f"{cluster.url}/v2/models/digits")["weights_sha256"]
    happen(updates.weights, Bar.NOTHING, 50.0)
    assert get(f"{cluster.url}/v2/models/digits")["weights_sha256"] != before
    assert classify(cluster.url, samples[7])["model_name"] == "digits"


def test_a_deploy_that_cannot_load_leaves_the_old_version_serving_and_says_why(
    stage: Stage, samples: dict[int, bytes], tmp_path: Path
) -> None:
    old = {replica.id for replica in stage.before.running}
    path = updates.other_weights(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    deployed = stage.content
    stage.cluster.deploy(with_args(deployed, weights=str(path)))
    eventually(lambda: stage.cluster.serve.state().statuses[APPLICATION] == FAILED)
    assert f"weights: {path} is not a safetensors file" in stage.cluster.serve.state().messages[APPLICATION]
    assert {classify(stage.cluster.url, samples[7])["replica"] for _ in range(20)} <= old

    stage.cluster.deploy(deployed)  # Ray lists no replica of an application that failed to build
    assert {replica.id for replica in set_up(stage.cluster, PAIR).before.running} == old


def test_a_node_that_is_killed_takes_only_what_was_on_it(
    happen: Callable[..., Outcome], stage: Stage, cluster: Cluster
) -> None:
    happen(kills.node, Bar.VICTIM)
    after = cluster.serve.state().applications[APPLICATION]
    assert {replica.node_id for replica in after.running} <= {node.node_id for node in cluster.nodes if node.alive}


def test_a_node_that_is_drained_takes_nothing(happen: Callable[..., Outcome], stage: Stage, cluster: Cluster) -> None:
    happen(kills.drain, Bar.NOTHING, 50.0)
    (drained,) = [node for node in cluster.nodes if node.drained]
    after = cluster.serve.state().applications[APPLICATION]
    assert drained.node_id not in {replica.node_id for replica in after.running}


def test_a_new_node_makes_up_for_one_that_is_gone(cluster: Cluster) -> None:
    before = {node.node_id for node in cluster.nodes}
    assert {node.node_id for node in set_up(cluster, replace(PAIR, replicas=3)).cluster.nodes} - before
