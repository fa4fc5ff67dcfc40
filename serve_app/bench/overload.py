"""The overload test of a service: alone, at its peak, in quiet, in an overload between two quiet phases."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from serve_app.bench.arrivals import Step
from serve_app.bench.capacity import peak_per_s
from serve_app.bench.generator import Run
from serve_app.bench.load import LoadTest, Row, take
from serve_app.bench.resident import Growth, Resident
from serve_app.bench.samples import Summary
from serve_app.bench.timeline import Second, recovery_s, timeline

QUIET_SHARE, MIXED_SHARE = 0.3, 0.95
"""Of the peak: the rate of the quiet phases, and that of the mixed deadlines."""
QUIET_S = 15.0
"""Before the overload and after it."""
RECOVERED_P50 = 1.25
"""Over the quiet p50: the service is itself again."""
SETTLE_S, SETTLE_TIMEOUT_S, SETTLE_TRIES = 1.0, 5.0, 10
SETTLED_P50 = 1.5
"""Over the lone p50, of the few requests that SETTLE_S has room for."""


class Unmeasurable(RuntimeError):
    """The service answers nothing within its objective; the message says what it does."""


@dataclass(frozen=True)
class Normal:
    """The service before the overload."""

    lone: Row
    """A closed loop of one."""
    climb: Sequence[Row]
    """The rates at which the peak was looked for, in that order."""
    peak_per_s: float
    """See `capacity.peak_per_s`."""
    quiet: Row
    """At QUIET_SHARE of the peak."""


@dataclass(frozen=True)
class Flood:
    """One open loop: quiet, the overload, quiet."""

    row: Row
    """Of what should have been sent in the overload; goodput is within the objective."""
    memory: Growth | None
    """From the overload's first half to its second."""
    recovery_s: float | None
    """After it; None: not in the QUIET_S that follow."""
    timeline: Sequence[Second]

    @property
    def summary(self) -> Summary:
        return self.row.median


def steps(peak_per_s: float, times: float, overload_s: float) -> tuple[Step, Step, Step]:
    """Quiet, `times` the peak, quiet."""
    quiet = Step(QUIET_SHARE * peak_per_s, QUIET_S)
    return quiet, Step(times * peak_per_s, overload_s), quiet


def normal(test: LoadTest, objective_ms: float) -> Normal:
    """Raises Unmeasurable, and GeneratorError."""
    lone = test.at_concurrency(1)
    if not lone.median.p50_ms:
        raise Unmeasurable(f"not one lone request was answered: {_failures(lone.median)}")
    climb: list[Row] = []

    def goodput(rate_per_s: float) -> float:
        settle(test, lone)
        climb.append(test.at_rate(rate_per_s))
        return climb[-1].median.goodput_per_s or 0.0

    peak = peak_per_s(goodput, 1e3 / lone.median.p50_ms)
    if not peak:
        took = f"a lone one takes {lone.median.p50_ms:.1f} ms; under load {_failures(climb[-1].median)}"
        raise Unmeasurable(f"no request is answered within latency_slo_ms, {objective_ms:g}: {took}")
    settle(test, lone)
    return Normal(lone, climb, peak, test.at_rate(QUIET_SHARE * peak))


def settle(test: LoadTest, lone: Row) -> None:
    """Wait until the service has got over the run before, for SETTLE_TRIES at most: no run is to pay for another.

    A few requests in an open loop, QUIET_SHARE of what one after the other would be: they add nothing to
    speak of to what is still being worked off.
    """
    lone_ms = lone.median.p50_ms
    if not lone_ms:
        return
    quiet = Run(test.run.url, SETTLE_S, rate_per_s=QUIET_SHARE * 1e3 / lone_ms, timeout_s=SETTLE_TIMEOUT_S)
    for _ in range(SETTLE_TRIES):
        taken = take(test.generator, quiet, lambda _: test.on_progress("settling", 0.0))
        p50_ms = taken.summary(SETTLE_S, None).p50_ms
        if p50_ms is not None and p50_ms <= SETTLED_P50 * lone_ms:
            return


def flood(
    test: LoadTest, before: Normal, times: float, overload_s: float, objective_ms: float, memory: Resident
) -> Flood:
    """`times` the peak for `overload_s`. Raises GeneratorError."""
    settle(test, before.lone)
    stairs = steps(before.peak_per_s, times, overload_s)
    whole_s, end_s = sum(step.duration_s for step in stairs), QUIET_S + overload_s
    run = replace(test.run, steps=stairs, duration_s=whole_s, warm_up_s=0.0)

    def look(seconds: float) -> None:
        memory.look(seconds)
        test.on_progress(f"{times:g} times the peak", seconds)

    taken = take(test.generator, run, look)
    summary = taken.between(QUIET_S, end_s).summary(overload_s, objective_ms)
    return Flood(
        Row(run, (summary,)),
        memory.growth(QUIET_S, end_s),
        recovery_s(taken.samples, end_s, whole_s, RECOVERED_P50 * (before.quiet.median.p50_ms or 0.0)),
        timeline(taken.samples, whole_s, objective_ms, memory),
    )


def mixed(test: LoadTest, before: Normal, deadlines_ms: tuple[float, ...]) -> tuple[Row, Row]:
    """Requests with these deadlines, which the service is not told, and then is. Raises GeneratorError."""
    test = replace(test, run=replace(test.run, deadlines_ms=deadlines_ms))
    rate_per_s = MIXED_SHARE * before.peak_per_s
    rows = []
    for one in (test.untold(), test):
        settle(test, before.lone)
        rows.append(one.at_rate(rate_per_s))
    untold, told = rows
    return untold, told


def _failures(summary: Summary) -> str:
    return ", ".join(f"{n} x {status}" for status, n in summary.errors.items()) or "none failed"
