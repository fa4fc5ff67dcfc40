"""The replicas of a service over time, as they were seen, and the figures in it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from serve_app.bench.autoscale.seen import Seen

STARTING, RUNNING, STOPPING = "STARTING", "RUNNING", "STOPPING"


@dataclass(frozen=True)
class Look:
    at_s: float
    """From the start of the traffic."""
    seen: Seen

    def count(self, state: str) -> int:
        return sum(one == state for one in self.seen.states.values())

    def as_dict(self) -> dict[str, float]:
        counts = {state.lower(): self.count(state) for state in (STARTING, RUNNING, STOPPING)}
        return {"at_s": round(self.at_s, 3), "wanted": self.seen.wanted, **counts}


@dataclass(frozen=True)
class Replica:
    """One that was added; times are from the start of the traffic."""

    seen_s: float
    """When it was there for the first time, starting: the decision, at the latest."""
    ready_s: float
    """When its first answer came."""

    @property
    def start_up_s(self) -> float:
        return self.ready_s - self.seen_s


@dataclass(frozen=True)
class History:
    looks: Sequence[Look]
    """Ascending; so often that hardly a change is missed."""
    answered_s: Mapping[str, float]
    """By the replica's id, when its first answer came."""

    def first_added(self, after_s: float) -> Replica | None:
        """Of the replicas that were not there before `after_s`, the first that answered; None: none did."""
        first_seen: dict[str, float] = {}
        for look in self.looks:
            for replica in look.seen.states:
                first_seen.setdefault(replica, look.at_s)
        added = [
            Replica(at_s, self.answered_s[replica])
            for replica, at_s in first_seen.items()
            if at_s >= after_s and replica in self.answered_s
        ]
        return min(added, key=lambda one: one.ready_s, default=None)

    def most_running(self) -> int:
        return max(look.count(RUNNING) for look in self.looks)

    def num_stopped(self) -> int:
        """How many that had answered were told to stop, and are gone or about to be."""
        last = self.looks[-1].seen.states
        return sum(last.get(replica, STOPPING) == STOPPING for replica in self.answered_s)

    def replica_seconds(self, end_s: float) -> float:
        """What the replicas cost in [0, end_s): each from its first look to its last, starting and stopping too."""
        return sum(
            len(before.seen.states) * max(0.0, min(after.at_s, end_s) - max(before.at_s, 0.0))
            for before, after in pairwise(self.looks)
        )

    def reversals(self, fall_s: float) -> int:
        """How often the number wanted turned round without a reason.

        Of every change of it the direction counts: each up after a down and each down after an up is one
        reversal, except for the first down after an up that comes once the load has fallen, at `fall_s` or
        later. That one follows the load. So up and down again is none; up, down and up is one, and if the
        first of these downs came too early it is two.
        """
        found, allowed, last = 0, 1, 0
        for at_s, direction in self._moves():
            if last and direction != last:
                follows_the_load = direction < 0 and at_s >= fall_s
                if follows_the_load and allowed:
                    allowed -= 1
                else:
                    found += 1
            last = direction
        return found

    def _moves(self) -> Iterator[tuple[float, int]]:
        """When the number wanted was changed, and in which direction, 1 or -1."""
        for before, after in pairwise(self.looks):
            if after.seen.wanted != before.seen.wanted:
                yield after.at_s, 1 if after.seen.wanted > before.seen.wanted else -1
