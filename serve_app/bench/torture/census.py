"""The processes of a service on this machine: memory, open files and threads of each kind, over time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import psutil

from serve_app.bench import machine
from serve_app.bench.resident import MEBIBYTE, REPLICA, walk

PERIOD_S = 5.0
REPLICAS, HAPROXY, OTHERS = "replicas", "HAProxy", "other"
"""Others: the command itself, Ray's dashboard, agents."""
KINDS = (
    (REPLICAS, REPLICA),
    ("controller", "ServeController"),
    ("proxy", "Proxy"),
    (HAPROXY, "haproxy"),
    ("raylet", "raylet/raylet"),
    ("GCS", "gcs_server"),
)
"""By what the name or the command of a process has in it; the first that fits. Proxy: Ray's actor, which is not asked
per request where there is a HAProxy."""
NAMES = (*(kind for kind, _ in KINDS), OTHERS)


@dataclass(frozen=True)
class Usage:
    """Of the processes of one kind together."""

    memory_mib: float = 0.0
    """Resident; what processes share counts for each."""
    descriptors: float = 0
    threads: float = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.memory_mib + other.memory_mib, self.descriptors + other.descriptors, self.threads + other.threads
        )


@dataclass(frozen=True)
class Look:
    """At one moment."""

    usage: dict[str, Usage]
    """By kind, those that there were."""
    replicas: frozenset[int]
    """Their process numbers."""


def look(pid: int) -> Look:
    """At that process and all below it; what a replica has started, which decodes for it, counts as the replica."""
    usage: dict[str, Usage] = {}
    replicas = set()
    for found in walk(pid):
        process, kind = found.process, REPLICAS if found.is_of_replica else _kind(found.command)
        try:
            with process.oneshot():
                one = Usage(process.memory_info().rss / MEBIBYTE, process.num_fds(), process.num_threads())
        except psutil.Error:  # gone meanwhile
            continue
        usage[kind] = usage.get(kind, Usage()) + one
        if found.is_replica:
            replicas.add(process.pid)
    return Look(usage, frozenset(replicas))


def _kind(command: str) -> str:
    return next((kind for kind, part in KINDS if part in command), OTHERS)


@dataclass
class Census:
    """Looked at every PERIOD_S by whoever calls `look` more often than that."""

    measure: Callable[[], Look]
    seconds: list[float] = field(default_factory=list)
    """When, from the start of the run."""
    looks: list[Look] = field(default_factory=list)
    stolen_s: list[float] = field(default_factory=list)
    """CPU seconds that the host had given to others by then."""

    def look(self, seconds: float) -> None:
        """At a time, in seconds from the start of the run."""
        if self.seconds and seconds // PERIOD_S == self.seconds[-1] // PERIOD_S:
            return
        self.seconds.append(seconds)
        self.looks.append(self.measure())
        self.stolen_s.append(machine.stolen_s())

    @property
    def kinds(self) -> list[str]:
        """Those that were seen."""
        seen = {kind for one in self.looks for kind in one.usage}
        return [name for name in NAMES if name in seen]

    @property
    def replicas_ended(self) -> int:
        """Those that were there once, and not at the last look."""
        every = frozenset[int]().union(*(one.replicas for one in self.looks))
        return len(every - self.looks[-1].replicas) if self.looks else 0

    def memory_mib(self, kinds: Sequence[str]) -> list[float]:
        """At each look, of these kinds together."""
        return [sum(one.usage.get(kind, Usage()).memory_mib for kind in kinds) for one in self.looks]

    def mean(self, kind: str, begin_s: float, end_s: float) -> Usage | None:
        """None where nothing was seen in [begin_s, end_s)."""
        seen = [one.usage.get(kind, Usage()) for one in self._between(begin_s, end_s)]
        if not seen:
            return None
        return Usage(*(fmean(getattr(one, name) for one in seen) for name in ("memory_mib", "descriptors", "threads")))

    def stolen_cores(self, begin_s: float, end_s: float) -> float | None:
        """Taken from this machine in [begin_s, end_s); None where it was not looked at twice."""
        at = [i for i, seconds in enumerate(self.seconds) if begin_s <= seconds < end_s]
        if len(at) < 2:
            return None
        first, last = at[0], at[-1]
        return (self.stolen_s[last] - self.stolen_s[first]) / (self.seconds[last] - self.seconds[first])

    def _between(self, begin_s: float, end_s: float) -> Iterator[Look]:
        return (one for at_s, one in zip(self.seconds, self.looks, strict=True) if begin_s <= at_s < end_s)
