"""A load test: runs of the generator at given rates, repeated -> the rows of a report."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from serve_app.bench import machine
from serve_app.bench.generator import Generator, Run
from serve_app.bench.samples import Samples, Summary, median_of, summarise
from serve_app.bench.sweep import SHARE_WITHIN_BOUND, highest_rate

SPREAD = ("completed_per_s", "p50_ms", "p99_ms")
CONFIRMATIONS = 5
NEARLY = 0.9
"""Of what was offered, in time: with less a rate is beyond doubt too high."""
MAX_STOLEN = 0.03
"""Of all cores; one that is taken away for a moment also stops the threads that wait for it."""
OnProgress = Callable[[str, float], None]
"""Told what runs, and the seconds since it began."""


@dataclass(frozen=True)
class Row:
    """The repeats of one run, which differ in their seeds."""

    run: Run
    summaries: tuple[Summary, ...]

    @property
    def median(self) -> Summary:
        return median_of(self.summaries)

    @property
    def holds(self) -> bool:
        """Whether 99 of 100 requests offered were answered within the bound."""
        return self.median.goodput_share >= SHARE_WITHIN_BOUND

    def as_dict(self) -> dict[str, Any]:
        spread = {}
        for name in SPREAD:
            values = [value for summary in self.summaries if (value := getattr(summary, name)) is not None]
            spread[name] = [round(min(values), 3), round(max(values), 3)] if values else None
        return {
            "rate_per_s": self.run.rate_per_s,
            "concurrency": self.run.concurrency,
            "deadlines_told": self.run.deadlines_told if self.run.deadlines_ms else None,
            **self.median.as_dict(),
            "lagged": self.median.lagged,
            "spread": spread,
            "repeats": [summary.as_dict() for summary in self.summaries],
        }


@dataclass(frozen=True)
class Taken:
    """One run: what came back, and what it took."""

    samples: Samples
    generator_cores: float
    stolen_cores: float

    def summary(self, duration_s: float, bound_ms: float | None) -> Summary:
        return summarise(self.samples, duration_s, bound_ms, self.generator_cores, self.stolen_cores)

    def between(self, begin_s: float, end_s: float) -> "Taken":
        """The requests that should have been sent in [begin_s, end_s), in seconds from begin_s."""
        return replace(self, samples=self.samples.between(begin_s, end_s))


def take(generator: Generator, run: Run, on_progress: Callable[[float], None] = lambda _: None) -> Taken:
    """Raises GeneratorError."""
    stolen_s, began = machine.stolen_s(), time.monotonic()
    samples, cores = generator.run(run, on_progress)
    return Taken(samples, cores, (machine.stolen_s() - stolen_s) / (time.monotonic() - began))


@dataclass(frozen=True)
class LoadTest:
    """Runs against one URL: `run` says how, except for the rate."""

    generator: Generator
    run: Run
    repeats: int
    bound_ms: float | None
    on_progress: OnProgress = lambda _, __: None
    retries: int = 0
    """Of a run in which the host took more than MAX_STOLEN of the machine."""

    def at_rate(self, rate_per_s: float, repeats: int | None = None) -> Row:
        """Open loop."""
        untold = ", deadlines untold" if self.run.deadlines_ms and not self.run.deadlines_told else ""
        run = replace(self.run, rate_per_s=rate_per_s, concurrency=None)
        return self._row(run, f"{rate_per_s:.4g}/s{untold}", repeats)

    def untold(self) -> "LoadTest":
        """The same, but the service is not told the requests' deadlines."""
        return replace(self, run=replace(self.run, deadlines_told=False))

    def at_concurrency(self, concurrency: int) -> Row:
        """Closed loop."""
        return self._row(replace(self.run, concurrency=concurrency, rate_per_s=None), f"{concurrency} at once", None)

    def sweep(self, start_per_s: float, tolerance: float) -> tuple[Row | None, Sequence[Row]]:
        """The highest rate that holds the bound, measured `repeats` times, or None; and every single run on the way."""
        trials: list[Row] = []

        def holds(rate_per_s: float) -> bool:
            trials.append(self.at_rate(rate_per_s, repeats=1))
            if not trials[-1].holds and trials[-1].median.goodput_share >= NEARLY:
                # One stall fails a run of 100 requests; the search would never come back up.
                run = replace(self.run, rate_per_s=rate_per_s, seed=self.run.seed + 1)
                trials.append(self._row(run, f"{rate_per_s:.4g}/s again", repeats=1))
            return trials[-1].holds

        rate = highest_rate(holds, start_per_s, tolerance)
        if rate is None:
            return None, trials
        # A single run that held may have been lucky: only what holds at the median of all repeats counts.
        for step in range(1, 1 + CONFIRMATIONS):
            confirmed = self.at_rate(rate)
            if confirmed.holds:
                return confirmed, trials
            trials.append(confirmed)
            rate /= (1 + tolerance) ** step  # by more each time, or five finest steps would end within the noise
        return None, trials

    def _row(self, run: Run, what: str, repeats: int | None) -> Row:
        count = repeats or self.repeats
        summaries = []
        for i in range(count):
            name = what if count == 1 else f"{what}, {i + 1} of {count}"
            summaries.append(self._quietest(replace(run, seed=run.seed + i), name))
        return Row(run, tuple(summaries))

    def _quietest(self, run: Run, name: str) -> Summary:
        """One run, or of several the one of which the host took least: chosen by that, never by its result."""
        tried = []
        for _ in range(1 + self.retries):
            tried.append(self._once(run, name))
            if tried[-1].stolen_cores <= MAX_STOLEN * machine.num_cores():
                break
        return min(tried, key=lambda summary: summary.stolen_cores)

    def _once(self, run: Run, name: str) -> Summary:
        taken = take(self.generator, run, lambda seconds: self.on_progress(name, seconds + run.warm_up_s))
        return taken.summary(run.duration_s, self.bound_ms)
