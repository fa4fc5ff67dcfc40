"""When a service is whole again, and that every event can be told from the others."""

from pathlib import Path

import pytest

from serve_app.bench.faults.event import Event, is_whole
from serve_app.bench.faults.events import EVENTS
from serve_app.bench.faults.layout import APPLICATION
from serve_app.bench.faults.play import QUIET_S
from serve_app.bench.serve_api import Deployment, Replica, State
from serve_app.config_file import check


def state(
    *replicas: str, status: str = "RUNNING", deployment: str = "HEALTHY", proxies: tuple[str, ...] = ("HEALTHY",)
) -> State:
    """Replicas by their states, proxies by their status."""
    found = tuple(Replica(str(i), each, pid=i, node_id="a") for i, each in enumerate(replicas))
    return State(
        {APPLICATION: Deployment(deployment, "", len(found), found)},
        {APPLICATION: status},
        {APPLICATION: ""},
        {str(i): each for i, each in enumerate(proxies)},
    )


def test_two_of_two_that_run_behind_proxies_that_are_well_are_whole() -> None:
    assert is_whole(state("RUNNING", "RUNNING", proxies=("HEALTHY", "HEALTHY")), 2)


@pytest.mark.parametrize(
    "broken",
    [
        state("RUNNING"),
        state("RUNNING", "STARTING"),
        state("RUNNING", "RUNNING", "STOPPING"),
        state("RUNNING", "RUNNING", status="DEPLOYING"),
        state("RUNNING", "RUNNING", deployment="UPDATING"),
        state("RUNNING", "RUNNING", proxies=("HEALTHY", "UNHEALTHY")),
        state("RUNNING", "RUNNING", proxies=("HEALTHY", "DRAINING")),
        State({}, {}, {}, {}),
    ],
    ids=["one", "one starts", "one stops", "deploying", "updating", "a proxy is ill", "a proxy leaves", "nothing"],
)
def test_what_is_missing_or_under_way_is_not_whole(broken: State) -> None:
    assert not is_whole(broken, 2)


def test_events_have_names_of_their_own_and_time_to_happen() -> None:
    assert len({event.name for event in EVENTS}) == len(EVENTS)
    assert all(event.duration_s > 2 * QUIET_S for event in EVENTS)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_the_strict_check_takes_what_is_deployed_but_for_the_gpu_of_a_stub(event: Event, tmp_path: Path) -> None:
    content = event.layout.content(8000, tmp_path)
    findings = [f for f in check(content) if not f.key.endswith("num_gpus")]
    assert findings == []
