from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from serve_app.bench import bars
from serve_app.bench.bars import Check
from serve_app.bench.generator import Run
from serve_app.bench.load import Row
from serve_app.bench.overload import QUIET_S, Flood, steps
from serve_app.bench.resident import Growth
from serve_app.bench.samples import Samples, Summary
from tests.bench.test_samples import samples, summary

OBJECTIVE_MS = 250.0
PEAK_PER_S = 10.0
GOOD = samples([0.2] * 95)
FLAT = Growth(100, 101)
REFUSED = samples([0.01] * 200, "503", retry_after=True)


def checks(*parts: Samples, memory: Growth | None = FLAT, recovery_s: float | None = 1.0) -> dict[str, Any]:
    """By the first word of their names."""
    of = summary(*parts, bound_ms=OBJECTIVE_MS)
    flood = Flood(Row(Run("", 10), (of,)), memory, recovery_s, [])
    found = bars.flood_checks(flood, PEAK_PER_S, OBJECTIVE_MS)
    assert len({check.name for check in found}) == 7
    return {check.name: check for check in found}


def failed(found: dict[str, Check], ok: bool | None = False) -> list[str]:
    return [name for name, check in found.items() if check.ok is ok]


def test_a_service_that_answers_what_it_can_and_refuses_the_rest_holds_every_bar() -> None:
    found = checks(GOOD, REFUSED, samples([0.3], "504"))
    assert failed(found, True) == list(found)
    assert found["goodput / peak"].measured == pytest.approx(0.95)
    assert found["p99 of refusals"].note == "200 refused"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([samples([0.2] * 89), REFUSED], "goodput / peak"),
        ([samples([0.2] * 95 + [0.9] * 5), REFUSED], "p99 of answers"),
        ([GOOD, samples([0.01] * 9 + [0.08], "503", retry_after=True)], "p99 of refusals"),
        ([GOOD, REFUSED, samples([0.01], "503")], "refused with Retry-After"),
        *(
            ([GOOD, REFUSED, samples([0.01], stray)], "failed or lost")
            for stray in ("timeout", "connection lost", "no connection", "not sent", "500", "408")
        ),
    ],
)
def test_what_is_missed_is_named(parts: Sequence[Samples], expected: str) -> None:
    assert failed(checks(*parts)) == [expected]


def test_memory_and_recovery_are_stated() -> None:
    found = checks(GOOD, REFUSED, memory=Growth(100, 103), recovery_s=3.0)
    assert failed(found) == ["memory growth", "recovery"]
    assert found["memory growth"].note == "+3.0 MiB, second half"


def test_a_recovery_that_was_not_seen_is_a_bar_missed_and_memory_that_was_not_seen_is_not_known() -> None:
    found = checks(GOOD, REFUSED, memory=None, recovery_s=None)
    assert failed(found) == ["recovery"]
    assert failed(found, None) == ["memory growth"]
    assert found["recovery"].measured == QUIET_S


def test_where_nothing_was_refused_nothing_is_known_of_refusals() -> None:
    assert failed(checks(GOOD), None) == ["p99 of refusals", "refused with Retry-After"]


def of_p50(seconds: float) -> Summary:
    return summary(samples([seconds]))


@pytest.mark.parametrize(
    ("lone", "quiet", "ok"),
    [
        (of_p50(0.1), of_p50(0.114), True),
        (of_p50(0.1), of_p50(0.116), False),
        (of_p50(0.1), summary(samples([1], "503")), None),
    ],
)
def test_quiet_is_measured_against_alone(lone: Summary, quiet: Summary, ok: bool | None) -> None:
    assert bars.quiet_check(lone, quiet).ok is ok


def mixed(missed: int) -> Summary:
    return summary(samples([0.01] * (10 - missed) + [0.9] * missed, deadline_ms=100), samples([0.9], deadline_ms=2000))


@pytest.mark.parametrize(
    ("untold", "told", "ok"), [(5, 4, True), (5, 5, False), (4, 5, False), (0, 0, True), (0, 1, False)]
)
def test_told_deadlines_are_to_be_missed_less(untold: int, told: int, ok: bool) -> None:
    check = bars.deadline_check(mixed(untold), mixed(told))
    assert check.ok is ok
    assert check.measured == pytest.approx(100 * told / 11)


@pytest.mark.parametrize(("measured", "expected"), [([1, 1], 0), ([1, 3], 1), ([1, None], 2), ([3, None], 1), ([], 0)])
def test_a_missed_bar_outweighs_one_that_is_not_known(measured: Sequence[float | None], expected: int) -> None:
    assert bars.exit_status([Check("", figure, "<=", 2) for figure in measured]) == expected


def test_a_bar_that_is_reached_exactly_is_held_unless_it_is_to_be_lower() -> None:
    check = Check("", 2.0, "<=", 2.0)
    assert [replace(check, relation=one).ok for one in ("<=", ">=", "<")] == [True, True, False]


def test_the_overload_lies_between_two_quiet_phases() -> None:
    quiet, flood, after = steps(100, times=3, overload_s=60)
    assert quiet == after
    assert (quiet.rate_per_s, quiet.duration_s) == (30, QUIET_S)
    assert (flood.rate_per_s, flood.duration_s) == (300, 60)
