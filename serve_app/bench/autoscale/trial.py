"""One shape of traffic sent to one service: what became of the requests, and of the replicas."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Any

from serve_app.bench.autoscale.history import History, Replica
from serve_app.bench.autoscale.traffic import Traffic
from serve_app.bench.autoscale.watch import Watch
from serve_app.bench.generator import Generator, Run
from serve_app.bench.load import Row, take
from serve_app.bench.resident import Resident
from serve_app.bench.sweep import SHARE_WITHIN_BOUND
from serve_app.bench.timeline import Second, timeline

BACK_WINDOW_S = 5
"""Seconds whose requests together are within the objective: one alone may be so by luck."""


@dataclass(frozen=True)
class Trial:
    traffic: Traffic
    objective_ms: float | None
    phases: dict[str, Row]
    """Of what should have been sent before the rate rose, while it was up, and after it fell."""
    whole: Row
    timeline: Sequence[Second]
    history: History

    @cached_property
    def first_added(self) -> Replica | None:
        """Of the replicas that the rise brought, the first that answered."""
        return self.history.first_added(self.traffic.rise_s)

    @property
    def back_s(self) -> float | None:
        """See `back_s`; None without an objective, too."""
        return None if self.objective_ms is None else back_s(self.timeline, self.traffic.rise_s)

    def as_dict(self) -> dict[str, Any]:
        """`decided_s`, `ready_s` and `back_s` count from `rise_s`, which counts from the start."""
        figures = {
            **self._added(),
            "back_s": self.back_s,
            "replica_seconds": self.history.replica_seconds(self.traffic.duration_s),
        }
        return {
            "shape": self.traffic.name,
            "steps": [[step.rate_per_s, step.duration_s] for step in self.traffic.steps],
            "rise_s": self.traffic.rise_s,
            "fall_s": self.traffic.fall_s,
            "objective_ms": self.objective_ms,
            **{name: None if value is None else round(value, 2) for name, value in figures.items()},
            "most_running": self.history.most_running(),
            "reversals": self.history.reversals(self.traffic.fall_s),
            "phases": {name: row.median.as_dict() for name, row in self.phases.items()},
            "timeline": [second.as_dict() for second in self.timeline],
            "replicas": [look.as_dict() for look in self.history.looks],
        }

    def _added(self) -> dict[str, float | None]:
        """Seconds: from the rise to the decision and to the first answer, and what lies between them."""
        added = self.first_added
        if added is None:
            return dict.fromkeys(("decided_s", "start_up_s", "ready_s"))
        rise_s = self.traffic.rise_s
        return {
            "decided_s": added.seen_s - rise_s,
            "start_up_s": added.start_up_s,
            "ready_s": added.ready_s - rise_s,
        }


def send(
    generator: Generator,
    run: Run,
    traffic: Traffic,
    watch: Watch,
    objective_ms: float | None,
    on_progress: Callable[[float], None],
) -> Trial:
    """`run` says how; its times are the traffic's. Raises GeneratorError, and Unseen."""
    run = replace(run, steps=traffic.steps, duration_s=traffic.duration_s, warm_up_s=0.0)
    start = time.monotonic()

    def look(seconds: float) -> None:
        nonlocal start
        start = time.monotonic() - seconds
        on_progress(seconds)

    taken = take(generator, run, look)

    def row(begin_s: float, end_s: float) -> Row:
        return Row(run, (taken.between(begin_s, end_s).summary(end_s - begin_s, objective_ms),))

    return Trial(
        traffic=traffic,
        objective_ms=objective_ms,
        phases={
            "before": row(0.0, traffic.rise_s),
            "up": row(traffic.rise_s, traffic.fall_s),
            "after": row(traffic.fall_s, traffic.duration_s),
        },
        whole=row(0.0, traffic.duration_s),
        timeline=timeline(taken.samples, traffic.duration_s, objective_ms or inf, Resident()),
        history=watch.history(start),
    )


def back_s(seconds: Sequence[Second], rise_s: float) -> float | None:
    """Seconds from `rise_s` until 99 of 100 requests are within the objective again; 0: they always were.

    Counted by the first BACK_WINDOW_S that hold it, after the first that do not. What was refused or failed is
    not within it: a service that refuses half of its requests answers the others fast enough. None: never.
    """
    begin = int(rise_s)
    held = [_hold(seconds[at : at + BACK_WINDOW_S]) for at in range(begin, len(seconds) - BACK_WINDOW_S + 1)]
    if all(held):
        return 0.0
    lost = held.index(False)
    return float(held.index(True, lost)) if True in held[lost:] else None


def _hold(seconds: Sequence[Second]) -> bool:
    return sum(one.good for one in seconds) >= SHARE_WITHIN_BOUND * sum(one.offered for one in seconds)
