"""A service for half an hour near its capacity, with hostile requests among good ones whose answers are known."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from serve_app.bench.arrivals import Step, piecewise
from serve_app.bench.generator import Generator, Run
from serve_app.bench.known import WRONG_CLASS, WRONG_SCORE, Reference
from serve_app.bench.load import LoadTest, OnProgress, Row, Taken, take
from serve_app.bench.samples import Summary
from serve_app.bench.torture import hostile
from serve_app.bench.torture.census import Census, Usage
from serve_app.bench.torture.hostile import Hostility, Outcome
from serve_app.bench.torture.trend import Trend, trend

MINUTE_S = 60.0
WARM_UP_MINUTES = 1
"""Latencies before it are of connections, caches and queues that are not there yet."""
SETTLE_MINUTES, SETTLE_SHARE = 5, 1 / 3
"""Before which memory may grow, of a short run that share of it: every thread that decodes keeps what its largest
image took, every kind of hostile request brings in what it alone needs, and each has to come by first."""
PEAK_REPEATS = 3
HOSTILE_LIMIT_S = 60.0


class Unmeasurable(RuntimeError):
    """The service answers nothing; the message says what it does."""


@dataclass(frozen=True)
class Plan:
    minutes: int
    share: float
    """Of the peak: the rate of all requests."""
    bad: float
    """Of these, the share of hostile ones."""

    @property
    def duration_s(self) -> float:
        return self.minutes * MINUTE_S

    @property
    def settle_minutes(self) -> int:
        return min(SETTLE_MINUTES, int(self.minutes * SETTLE_SHARE))

    def steps(self, rate_per_s: float) -> tuple[Step, ...]:
        """As many requests in each minute as in any other: their p99 are to be compared."""
        return (Step(rate_per_s, MINUTE_S),) * self.minutes


@dataclass(frozen=True)
class Minute:
    """Of the requests that should have been sent in it."""

    minute: int
    """From 0."""
    good: Summary
    hostile: int
    hostile_failed: int
    usage: dict[str, Usage | None]
    """By kind, the mean of the looks in it."""
    stolen_cores: float | None

    def as_dict(self) -> dict[str, Any]:
        good = self.good
        figures = {
            "minute": self.minute,
            "good": good.requests,
            "failed": sum(good.errors.values()),
            "p50_ms": good.p50_ms,
            "p99_ms": good.p99_ms,
            "max_ms": good.max_ms,
            "mean_batch": good.mean_batch,
            "hostile": self.hostile,
            "hostile_failed": self.hostile_failed,
            "stolen_cores": self.stolen_cores,
        }
        usage = {kind: None if one is None else _rounded(vars(one)) for kind, one in self.usage.items()}
        return {**_rounded(figures), "usage": usage}


@dataclass(frozen=True)
class Soaked:
    """What came of it."""

    plan: Plan
    row: Row
    """The good requests."""
    outcomes: Sequence[Outcome]
    """The hostile ones."""
    minutes: Sequence[Minute]
    census: Census
    trends: dict[str, Trend | None]
    """MiB of resident memory by kind and of ALL, once settled."""

    @property
    def good(self) -> Summary:
        return self.row.median

    @property
    def num_wrong(self) -> int:
        """Answers to known images that were other ones."""
        return sum(self.good.errors.get(fault, 0) for fault in (WRONG_CLASS, WRONG_SCORE))

    @property
    def counted(self) -> Sequence[Minute]:
        return self.minutes[WARM_UP_MINUTES:]

    def hostile_faults(self) -> Counter[str]:
        """By what came, of those that may not end so."""
        return Counter(outcome.result for outcome in self.outcomes if not outcome.holds)

    def faulty_cases(self) -> list[Outcome]:
        """The first outcome of each that may not end so: a case is sent several times."""
        first = {(each.number, each.result): each for each in reversed(self.outcomes) if not each.holds}
        return sorted(first.values(), key=lambda each: each.at_s)

    def hostile_table(self) -> dict[str, dict[str, int]]:
        """By kind and result."""
        found: dict[str, Counter[str]] = {}
        for outcome in self.outcomes:
            found.setdefault(outcome.kind, Counter())[outcome.result] += 1
        return {kind: dict(sorted(found[kind].items())) for kind in sorted(found)}


ALL = "all"
"""Processes of the service together."""


def peak_row(test: LoadTest, concurrency: int) -> Row:
    """A closed loop in which there is always a batch waiting. Raises Unmeasurable, and GeneratorError."""
    row = test.at_concurrency(concurrency)
    if not row.median.completed_per_s:
        failures = ", ".join(f"{n} x {status}" for status, n in row.median.errors.items()) or "none failed"
        raise Unmeasurable(f"not one request of {concurrency} at once was answered: {failures}")
    return row


def soak(
    generator: Generator,
    run: Run,
    plan: Plan,
    peak_per_s: float,
    hostility: Hostility,
    reference: Reference,
    census: Census,
    on_progress: OnProgress,
) -> Soaked:
    """`run` and `hostility` say how; their times are the plan's. Raises GeneratorError, and isolated.Died."""
    rate_per_s = plan.share * peak_per_s
    good = replace(
        run,
        steps=plan.steps((1 - plan.bad) * rate_per_s),
        duration_s=plan.duration_s,
        warm_up_s=0.0,
        known=reference.answers,
    )
    # Of another stream than the good ones' times, or each hostile one would come with one of them.
    times = piecewise(plan.steps(plan.bad * rate_per_s), run.seed + 1)

    def look(seconds: float) -> None:
        census.look(seconds)
        on_progress(f"{rate_per_s:.4g}/s, minute {max(0, int(seconds // MINUTE_S))} of {plan.minutes}", seconds)

    on_progress("making hostile requests", 0.0)
    with hostile.sent(replace(hostility, times=times)) as sent:
        taken = take(generator, good, look)
        outcomes = sent.result()
    return soaked(plan, good, taken, outcomes, census)


def soaked(plan: Plan, run: Run, taken: Taken, outcomes: Sequence[Outcome], census: Census) -> Soaked:
    row = Row(run, (taken.summary(plan.duration_s, None),))
    minutes = [_minute(number, taken, outcomes, census) for number in range(plan.minutes)]
    return Soaked(plan, row, outcomes, minutes, census, _trends(plan, census))


def _minute(number: int, taken: Taken, outcomes: Sequence[Outcome], census: Census) -> Minute:
    begin_s, end_s = number * MINUTE_S, (number + 1) * MINUTE_S
    of_it = [outcome for outcome in outcomes if begin_s <= outcome.at_s < end_s]
    return Minute(
        minute=number,
        good=taken.between(begin_s, end_s).summary(MINUTE_S, None),
        hostile=len(of_it),
        hostile_failed=sum(not outcome.holds for outcome in of_it),
        usage={kind: census.mean(kind, begin_s, end_s) for kind in census.kinds},
        stolen_cores=census.stolen_cores(begin_s, end_s),
    )


def _trends(plan: Plan, census: Census) -> dict[str, Trend | None]:
    seconds = np.array(census.seconds)
    counted = (seconds >= plan.settle_minutes * MINUTE_S) & (seconds < plan.duration_s)
    groups = {**{kind: [kind] for kind in census.kinds}, ALL: census.kinds}
    return {
        name: trend(seconds[counted].tolist(), np.array(census.memory_mib(kinds))[counted].tolist())
        for name, kinds in groups.items()
    }


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
