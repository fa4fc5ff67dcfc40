"""Resident memory of a service's replicas on this machine, over time."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean

import psutil

REPLICA = "ServeReplica"
"""In the name that Ray gives to the process of a replica."""
PERIOD_S = 1.0
MEBIBYTE = 1 << 20


def replicas_bytes() -> int:
    """Resident, of every replica among the processes that this one has started, and theirs; 0 if there is none."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            with process.oneshot():
                if REPLICA in " ".join([process.name(), *process.cmdline()]):
                    total += process.memory_info().rss
        except psutil.Error:  # gone meanwhile
            continue
    return total


@dataclass(frozen=True)
class Growth:
    """Of the mean, from one stretch of time to the next."""

    before_mib: float
    after_mib: float

    @property
    def mib(self) -> float:
        return self.after_mib - self.before_mib

    @property
    def share(self) -> float:
        return self.mib / self.before_mib


@dataclass
class Resident:
    """Sampled once a second by whoever calls `look` more often than that."""

    measure: Callable[[], int] = replicas_bytes
    seconds: list[float] = field(default_factory=list)
    """When, from the start of the run."""
    mib: list[float] = field(default_factory=list)

    def look(self, seconds: float) -> None:
        """At a time, in seconds from the start of the run."""
        # Once in each, and not a second after the last look: that would leave out one now and then.
        if self.seconds and seconds // PERIOD_S == self.seconds[-1] // PERIOD_S:
            return
        # Of a service whose replicas are being replaced there is nothing to see.
        if found := self.measure():
            self.seconds.append(seconds)
            self.mib.append(found / MEBIBYTE)

    def mean_mib(self, begin_s: float, end_s: float) -> float:
        """NaN where nothing was seen in [begin_s, end_s)."""
        seen = [mib for at, mib in zip(self.seconds, self.mib, strict=True) if begin_s <= at < end_s]
        return fmean(seen) if seen else math.nan

    def growth(self, begin_s: float, end_s: float) -> Growth | None:
        """From the first half of [begin_s, end_s) to the second; None where either was not seen."""
        middle_s = (begin_s + end_s) / 2
        before, after = self.mean_mib(begin_s, middle_s), self.mean_mib(middle_s, end_s)
        return None if math.isnan(before + after) else Growth(before, after)
