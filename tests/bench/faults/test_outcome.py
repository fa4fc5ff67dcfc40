"""Which failures of a run are an event's fault, and what its bar says to them."""

import numpy as np
import pytest

from serve_app.bench.faults.event import Bar
from serve_app.bench.faults.outcome import Moments, Outcome, outcome, told_failures
from serve_app.bench.known import WRONG_CLASS, WRONG_SCORE
from serve_app.bench.samples import STAGES, Samples

BEGAN_S, ENDED_S = 2.0, 2.1
MOMENTS = Moments(BEGAN_S, ENDED_S, full_s=8.0)


def sent(*requests: tuple[float, float, str]) -> Samples:
    """Of when it was sent, when it was done, and its status."""
    starts, ends, statuses = (np.array(column) for column in zip(*requests, strict=True))
    nothing = np.full(len(requests), np.nan)
    stages_ms = np.full((len(requests), len(STAGES)), np.nan)
    return Samples(starts, starts, ends, statuses, nothing, stages_ms, nothing, np.zeros(len(requests), np.bool_))


def found(*requests: tuple[float, float, str], in_flight: int | None = 1, moments: Moments = MOMENTS) -> Outcome:
    background = [(at + 0.5, at + 0.6, "200") for at in range(10)]
    return outcome(sent(*background, *requests), 10.0, moments, in_flight, fewest_replicas=1)


def test_what_was_in_flight_when_the_victim_died_is_no_stray() -> None:
    result = found((1.9, 2.05, "connection lost"))
    assert (result.failed, result.strays) == ({"connection lost": 1}, 0)
    assert result.holds(Bar.VICTIM)
    assert not result.holds(Bar.NOTHING)


@pytest.mark.parametrize(
    "request_", [(2.2, 2.3, "500"), (1.0, 1.5, "503"), (7.0, 9.0, "timeout")], ids=["after", "before", "long after"]
)
def test_what_fails_though_it_was_not_in_flight_is_a_stray(request_: tuple[float, float, str]) -> None:
    result = found(request_, in_flight=5)
    assert result.strays == 1
    assert not result.holds(Bar.VICTIM)
    assert result.holds(Bar.UNATTENDED)


def test_more_failures_than_there_were_requests_on_the_victim_break_the_bar() -> None:
    lost = [(1.9, 2.5, "500")] * 3
    assert found(*lost, in_flight=3).holds(Bar.VICTIM)
    assert not found(*lost, in_flight=2).holds(Bar.VICTIM)


def test_who_came_between_the_look_and_the_kill_may_have_been_on_the_victim() -> None:
    result = found((2.05, 2.4, "500"), in_flight=0)
    assert (result.in_flight, result.arrived) == (0, 1)
    assert result.holds(Bar.VICTIM)


def test_nobody_is_killed_in_an_update() -> None:
    result = found(in_flight=None)
    assert result.in_flight is None
    assert result.holds(Bar.NOTHING)


def test_capacity_that_does_not_come_back_breaks_every_bar() -> None:
    result = found(moments=Moments(BEGAN_S, ENDED_S, full_s=None))
    assert result.seconds_to_full is None
    assert not any(result.holds(bar) for bar in Bar)


@pytest.mark.parametrize("fault", [WRONG_CLASS, WRONG_SCORE])
def test_a_known_image_that_is_answered_otherwise_breaks_every_bar(fault: str) -> None:
    result = found((1.9, 2.05, fault), in_flight=5)
    assert result.wrong == 1
    assert not any(result.holds(bar) for bar in Bar)


def test_weights_that_may_not_answer_break_every_bar() -> None:
    result = outcome(sent((0.5, 0.6, "200"), (3.5, 3.6, "200")), 10.0, MOMENTS, 0, 1, {"b", "a"})
    assert (result.wrong, result.wrong_weights) == (0, ("a", "b"))
    assert not any(result.holds(bar) for bar in Bar)
    assert told_failures(result.failed, result.wrong_weights) == "wrong weights"
    assert told_failures({"502": 3}, result.wrong_weights) == "3 x 502, wrong weights"
    assert told_failures({}, ()) == "0"


def test_the_worst_second_is_counted_from_the_event_on() -> None:
    result = found(*[(at, at + 0.01, "200") for at in (0.1, 0.2, 1.1, 1.2, 5.1)])
    assert (result.answered_per_s, result.least_per_s) == (3.0, 1)
    assert result.seconds_to_full == 6.0
    assert result.requests == 15


def test_what_somebody_has_to_mend_has_its_seconds_from_then_on() -> None:
    result = found(moments=Moments(BEGAN_S, ENDED_S, full_s=8.0, mended_s=6.5))
    assert (result.seconds_unmended, result.seconds_to_full) == (4.5, 1.5)
