"""Replicas that nobody ever started."""

from collections.abc import Mapping, Sequence

from serve_app.bench.autoscale.history import History, Look
from serve_app.bench.autoscale.seen import Seen

FIRST = "first"
"""The replica that was there before."""


def history(
    wanted: Sequence[tuple[float, int]] = (),
    added: Mapping[str, tuple[float, float | None]] | None = None,
    gone_s: Mapping[str, float] | None = None,
    end_s: float = 200.0,
) -> History:
    """Looked at every second: FIRST, and those `added`, each with when it came and when it answered.

    `wanted` is the number and since when; `gone_s` says when one was no longer there.
    """
    came = {FIRST: (0.0, 0.0), **(added or {})}
    answered_s = {replica: at for replica, (_, at) in came.items() if at is not None}

    def look(at_s: float) -> Look:
        there = [one for one, (since, _) in came.items() if since <= at_s < (gone_s or {}).get(one, end_s + 1)]
        states = {one: "RUNNING" if answered_s.get(one, end_s + 1) <= at_s else "STARTING" for one in there}
        return Look(at_s, Seen([1, *(number for since, number in wanted if since <= at_s)][-1], states))

    return History([look(float(at)) for at in range(int(end_s) + 1)], answered_s)
