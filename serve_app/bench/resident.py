"""Resident memory of a service's replicas on this machine, over time."""

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import psutil

REPLICA = "ServeReplica"
"""In the name that Ray gives to the process of a replica."""
PERIOD_S = 1.0
MEBIBYTE = 1 << 20
PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Process:
    """One of a service, as it was found."""

    process: psutil.Process
    command: str
    """Its name, and the first word of its command: Ray puts what a process is there."""
    is_replica: bool
    is_of_replica: bool
    """A replica, or what one has started, which decodes for it."""


def walk(pid: int) -> Iterator[Process]:
    """That process and all below it, but those that are gone meanwhile."""
    of_replicas: set[int] = set()
    try:
        root = psutil.Process(pid)
        every = [root, *root.children(recursive=True)]  # parents first
    except psutil.Error:
        return
    for process in every:
        try:
            with process.oneshot():
                command, parent = " ".join([process.name(), *process.cmdline()[:1]]), process.ppid()
        except psutil.Error:
            continue
        is_replica = REPLICA in command
        if is_replica or parent in of_replicas:
            of_replicas.add(process.pid)
        yield Process(process, command, is_replica, process.pid in of_replicas)


def replicas_bytes() -> int:
    """Resident, of every replica among the processes that this one has started, and theirs; 0 if there is none.

    With what they have started, which decodes for them: memory that both share counts twice.
    """
    total = 0
    for found in walk(os.getpid()):
        if found.is_of_replica:
            with suppress(psutil.Error):  # gone meanwhile
                total += found.process.memory_info().rss
    return total


def forget_peaks(pid: int) -> None:
    """Of the replicas below that process: their peaks count from now on, where the kernel lets us say so."""
    for found in walk(pid):
        if found.is_of_replica:
            with suppress(OSError):
                Path(f"/proc/{found.process.pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    """The most that each replica below that process, and each of what they have started, ever had resident, together.

    What is sampled misses an image that takes a gigabyte for half a second.
    """
    return sum(_peak_bytes(found.process.pid) for found in walk(pid) if found.is_of_replica)


def _peak_bytes(pid: int) -> int:
    try:
        found = PEAK.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:  # gone meanwhile
        return 0
    return int(found[1]) << 10 if found else 0


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
