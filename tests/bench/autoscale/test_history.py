from collections.abc import Sequence

import pytest

from serve_app.bench.autoscale.history import History, Look, Replica
from serve_app.bench.autoscale.seen import Seen
from tests.bench.autoscale.made_up import FIRST, history

RISE_S, FALL_S = 20.0, 110.0


def test_the_first_added_is_the_first_that_answered_and_its_start_up_is_its_own() -> None:
    found = history(added={"slow": (25.0, 60.0), "quick": (31.0, 45.0)}).first_added(RISE_S)
    assert found == Replica(31.0, 45.0)
    assert found.start_up_s == 14


@pytest.mark.parametrize("added", [{}, {"never answers": (25.0, None)}, {"there before": (10.0, 40.0)}])
def test_what_was_there_before_or_never_answered_is_not_added(added: dict[str, tuple[float, float | None]]) -> None:
    assert history(added=added).first_added(RISE_S) is None


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([], 0),
        ([(25, 3)], 0),
        ([(25, 2), (30, 3), (35, 4)], 0),
        ([(25, 3), (170, 1)], 0),
        ([(25, 3), (150, 2), (170, 1)], 0),
        # After a spike: only then does it add what the spike had needed.
        ([(115, 3), (170, 1)], 0),
        ([(25, 3), (50, 2), (60, 3), (170, 1)], 2),
        ([(25, 3), (150, 1), (160, 2)], 1),
        ([(25, 3), (150, 1), (160, 2), (170, 1)], 2),
        ([(25, 3), (50, 1)], 1),
    ],
)
def test_a_turn_that_does_not_follow_the_load_is_a_reversal(wanted: Sequence[tuple[float, int]], expected: int) -> None:
    assert history(wanted).reversals(FALL_S) == expected


def test_a_replica_costs_from_its_first_look_to_its_last() -> None:
    found = history(added={"second": (50.0, 60.0)}, gone_s={"second": 90.0}, end_s=100)
    assert found.replica_seconds(100) == 100 + 40
    assert found.replica_seconds(70) == 70 + 20


def test_of_looks_before_the_start_and_after_the_end_nothing_counts() -> None:
    looks = [Look(at, Seen(1, {FIRST: "STARTING"})) for at in (-3.0, 9.0, 14.0)]
    assert History(looks, {}).replica_seconds(10) == 10


def test_stopped_is_who_answered_once_and_is_not_there_to_stay() -> None:
    found = history(added={"stays": (30.0, 40.0), "goes": (30.0, 40.0)}, gone_s={"goes": 150.0})
    assert found.num_stopped() == 1
    stopping = Look(201.0, Seen(1, {FIRST: "RUNNING", "stays": "STOPPING"}))
    assert History([*found.looks, stopping], found.answered_s).num_stopped() == 2


def test_most_running_leaves_out_what_only_starts() -> None:
    assert history(added={"second": (30.0, 40.0), "third": (30.0, None)}).most_running() == 2


def test_a_look_counts_by_state() -> None:
    look = Look(1.23456, Seen(3, {"a": "RUNNING", "b": "RUNNING", "c": "STARTING", "d": "UPDATING"}))
    assert look.as_dict() == {"at_s": 1.235, "wanted": 3, "starting": 1, "running": 2, "stopping": 0}
