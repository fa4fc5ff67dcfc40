"""A load test: runs of the generator at given rates, repeated -> the rows of a report."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from serve_app.bench import machine
from serve_app.bench.generator import Generator, Run
from serve_app.bench.samples import Summary, median_of, summarise
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
            **self.median.as_dict(),
            "lagged": self.median.lagged,
            "spread": spread,
            "repeats": [summary.as_dict() for summary in self.summaries],
        }


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
        return self._row(replace(self.run, rate_per_s=rate_per_s, concurrency=None), f"{rate_per_s:.4g}/s", repeats)

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
        stolen_s, began = machine.stolen_s(), time.monotonic()
        samples, cores = self.generator.run(run, lambda seconds: self.on_progress(name, seconds + run.warm_up_s))
        stolen_cores = (machine.stolen_s() - stolen_s) / (time.monotonic() - began)
        return summarise(samples, run.duration_s, self.bound_ms, cores, stolen_cores)
