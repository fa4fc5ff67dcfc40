"""The highest rate of Poisson arrivals that holds a p99, looked for within a bounded time."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from serve_app.bench.gpu_report.known import Served
from serve_app.bench.gpu_report.line import Line
from serve_app.bench.gpu_report.task import Context
from serve_app.bench.load import LoadTest, Row
from serve_app.bench.sweep import highest_rate

SECTION = 9
P99_MS = 50.0
FIRST_SHARE = 0.6
"""Of the best closed loop, the rate that is tried first."""
TOLERANCE = 0.06
TIMEOUT_S = 2.0
"""Of a request: of those that a rate too high leaves waiting, none may hold up the search."""
CONFIRMATIONS, CONFIRMING_RUNS = 3, 2
"""How often a rate is lowered until it holds in the median of its runs; and the runs beside the first."""


def lines(context: Context, test: LoadTest, replicas: int, found: Served) -> Iterator[Line]:
    """Of the service that `test` sends to, whose closed loops are found."""
    what = f"highest rate with p99 under {P99_MS:g} ms, {replicas} replica{'s' if replicas > 1 else ''}"
    best = found.best
    if best is None:
        return
    limit_s = min(context.scale.open_loop_s, context.left_s())
    bounded = replace(test, bound_ms=P99_MS, run=replace(test.run, timeout_s=TIMEOUT_S))
    found.open, tried = highest(bounded, FIRST_SHARE * best.median.completed_per_s, limit_s)
    if found.open is None:
        rates = ", ".join(f"{rate:.4g}" for rate in tried)
        yield Line(SECTION, what, unit="/s", reason=f"none that was tried in {limit_s:.0f} s held: {rates}")
        return
    s = found.open.median
    p99s = [one.p99_ms for one in found.open.summaries if one.p99_ms is not None]
    note = (
        f"p50 {s.p50_ms:.1f} ms, p99 {s.p99_ms:.1f} ms ({min(p99s):.1f} to {max(p99s):.1f}); tried {len(tried)} rates"
    )
    yield Line(SECTION, what, found.open.run.rate_per_s, "/s", note=note)


def highest(
    test: LoadTest, start_per_s: float, limit_s: float, clock: Callable[[], float] = time.monotonic
) -> tuple[Row | None, list[float]]:
    """The highest rate found that holds the test's bound in the median of its runs, or None; and all rates tried.

    After `limit_s` no other rate is tried: what was found until then is confirmed.
    """
    deadline = clock() + limit_s
    held: dict[float, Row] = {}
    tried: list[float] = []

    def holds(rate_per_s: float) -> bool:
        if clock() > deadline:
            return False
        tried.append(rate_per_s)
        row = test.at_rate(rate_per_s, repeats=1)
        if row.holds:
            held[rate_per_s] = row
        return row.holds

    rate = highest_rate(holds, start_per_s, TOLERANCE)
    if rate is None:
        return None, tried
    first: Row | None = held[rate]
    again = replace(test, run=replace(test.run, seed=test.run.seed + 1))
    for _ in range(CONFIRMATIONS):
        more = again.at_rate(rate, repeats=CONFIRMING_RUNS)
        confirmed = Row(more.run, (first.summaries if first else ()) + more.summaries)
        if confirmed.holds:
            return confirmed, tried
        first, rate = None, rate / (1 + TOLERANCE)
    return None, tried
