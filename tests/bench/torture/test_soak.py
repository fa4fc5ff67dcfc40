"""What a soak is held to: each misbehaviour is a bar missed, and no other one."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from serve_app.bench.generator import Run
from serve_app.bench.known import WRONG_CLASS, WRONG_SCORE, Known, Reference
from serve_app.bench.load import Taken
from serve_app.bench.samples import Samples
from serve_app.bench.torture import soak, soak_bars
from serve_app.bench.torture.census import OTHERS, REPLICAS, Census, Look, Usage
from serve_app.bench.torture.hostile import Outcome
from serve_app.bench.torture.soak import MINUTE_S, Plan, Soaked
from tests.bench.test_samples import samples

MINUTES = 30
PLAN = Plan(MINUTES, share=0.8, bad=0.1)
REFERENCE = Reference("digits", (Known(3, 0.9), None))
PER_MINUTE = 200
NAMES = (
    *("good requests failed or refused", "known images answered otherwise", "hostile ones answered as none may"),
    *("p99, last minute / first", "p99, last third / first third"),
    *("replicas' memory slope", "whole service's memory slope"),
    *("descriptors, last minute / first", "threads, last minute / first", "replicas that ended"),
)

Latency = Callable[[int], float]
"""From a minute to the seconds that its slowest requests take."""
Used = Callable[[float], Usage]
"""From a minute to what the replica uses."""


def flat(minute: float) -> Usage:
    return Usage(400 + np.sin(7 * minute), 100, 50)


def census(used: Used, pid: Callable[[float], int] = lambda _: 1) -> Census:
    now = 0.0

    def measure() -> Look:
        minute = now / MINUTE_S
        return Look({REPLICAS: used(minute), OTHERS: Usage(900, 300, 90)}, frozenset({pid(minute)}))

    found = Census(measure)
    for now in np.arange(0, PLAN.duration_s, 5.0).tolist():
        found.look(now)
    return found


def requests(slowest_s: Latency) -> Samples:
    minutes = [
        samples([0.05] * (PER_MINUTE - 10) + [slowest_s(minute)] * 10, intended_s=minute * MINUTE_S + 1)
        for minute in range(MINUTES)
    ]
    return Samples.concatenated(minutes)


def soaked(
    slowest_s: Latency = lambda _: 0.2,
    used: Used = flat,
    more: Sequence[Samples] = (),
    outcomes: Sequence[Outcome] = (Outcome(70, 7, "image", "422"), Outcome(80, 7, "line", "503")),
    pid: Callable[[float], int] = lambda _: 1,
) -> Soaked:
    taken = Taken(Samples.concatenated([requests(slowest_s), *more]), 0.1, 0.0)
    return soak.soaked(PLAN, Run("", PLAN.duration_s), taken, outcomes, census(used, pid))


def missed(found: Soaked) -> list[str]:
    checks = soak_bars.checks(found, REFERENCE)
    assert [check.name for check in checks] == list(NAMES)
    assert None not in [check.ok for check in checks]
    return [check.name for check in checks if not check.ok]


def test_a_service_that_stays_as_it_is_holds_every_bar() -> None:
    assert missed(soaked()) == []


@pytest.mark.parametrize("status", ["500", "503", "504", "timeout", "connection lost", "not sent"])
def test_no_good_request_may_fail_and_none_be_refused(status: str) -> None:
    found = soaked(more=[samples([0.1], status, intended_s=600)])
    assert missed(found) == ["good requests failed or refused"]
    assert [minute.minute for minute in found.minutes if minute.good.errors] == [10]


@pytest.mark.parametrize("status", [WRONG_CLASS, WRONG_SCORE])
def test_no_known_image_may_be_answered_otherwise(status: str) -> None:
    assert missed(soaked(more=[samples([0.1], status)])) == ["known images answered otherwise"]


@pytest.mark.parametrize("result", ["500", "502", "hung", "no connection"])
def test_hostile_requests_end_as_documented(result: str) -> None:
    found = soaked(outcomes=[Outcome(70, 7, "image", "422"), Outcome(130, 7, "line", result)])
    assert missed(found) == ["hostile ones answered as none may"]
    assert [(one.minute, one.hostile, one.hostile_failed) for one in found.minutes if one.hostile] == [
        (1, 1, 0),
        (2, 1, 1),
    ]
    assert found.hostile_table() == {"image": {"422": 1}, "line": {result: 1}}
    assert found.faulty_cases() == [Outcome(130, 7, "line", result)]


def test_a_last_minute_that_is_slower_than_the_first_is_found() -> None:
    assert missed(soaked(lambda minute: 0.3 if minute == MINUTES - 1 else 0.2)) == ["p99, last minute / first"]


def test_a_service_that_grows_slower_is_found() -> None:
    assert missed(soaked(lambda minute: 0.2 + 0.005 * minute)) == [
        "p99, last minute / first",
        "p99, last third / first third",
    ]


def test_the_warm_up_is_no_first_minute() -> None:
    assert missed(soaked(lambda minute: 0.9 if minute == 0 else 0.2)) == []
    assert missed(soaked(lambda minute: 0.05 if minute == 0 else 0.2)) == []


@pytest.mark.parametrize(
    ("per_minute", "expected"),
    [(0.5, ["replicas' memory slope", "whole service's memory slope"]), (0.05, []), (-0.5, [])],
)
def test_a_leak_is_found_and_what_does_not_matter_is_let_be(per_minute: float, expected: list[str]) -> None:
    def leaking(minute: float) -> Usage:
        return replace(flat(minute), memory_mib=flat(minute).memory_mib + per_minute * minute)

    assert missed(soaked(used=leaking)) == expected


def test_memory_that_grows_until_it_has_settled_is_no_leak() -> None:
    assert missed(soaked(used=lambda minute: Usage(400 - 100 * max(0, 1 - minute / 4), 100, 50))) == []


def test_noise_that_would_hide_a_leak_leaves_it_unknown() -> None:
    generator = np.random.default_rng(1)
    noisy = soaked(used=lambda _: Usage(400 + 150 * generator.normal(), 100, 50))
    [check] = [one for one in soak_bars.checks(noisy, REFERENCE) if one.name == "replicas' memory slope"]
    assert check.ok is None
    assert "too noisy" in check.note


def test_files_that_are_never_closed_and_threads_that_never_end_are_found() -> None:
    found = soaked(used=lambda minute: Usage(400, 100 + 4 * minute, 50 + 2 * minute))
    assert missed(found) == ["descriptors, last minute / first", "threads, last minute / first"]


def test_a_replica_that_is_replaced_cannot_hide_its_leak() -> None:
    assert missed(soaked(pid=lambda minute: 1 if minute < 20 else 2)) == ["replicas that ended"]


def test_a_run_that_is_too_short_knows_nothing_of_slopes() -> None:
    short = Plan(2, share=0.8, bad=0.1)
    taken = Taken(samples([0.1] * 50), 0.1, 0.0)
    found = soak.soaked(short, Run("", short.duration_s), taken, [], Census(lambda: Look({}, frozenset())))
    unknown = [check.name for check in soak_bars.checks(found, REFERENCE) if check.ok is None]
    assert unknown == list(NAMES[3:9])


@pytest.mark.parametrize(("minutes", "settle"), [(30, 5), (9, 3), (3, 1), (2, 0)])
def test_of_a_short_run_less_is_left_out(minutes: int, settle: int) -> None:
    assert Plan(minutes, 0.8, 0.1).settle_minutes == settle


def test_each_minute_has_as_many_requests() -> None:
    assert {(step.rate_per_s, step.duration_s) for step in PLAN.steps(90)} == {(90, MINUTE_S)}
    assert len(PLAN.steps(90)) == MINUTES
