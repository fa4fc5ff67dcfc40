"""What follows from several rows together: the lines that most bars are of."""

from dataclasses import replace

from serve_app.bench.gpu_report import open_loop, padding
from serve_app.bench.gpu_report.known import Known, keeps
from serve_app.bench.gpu_report.line import Bar, Line
from serve_app.bench.gpu_report.service import cells, many, spread
from serve_app.bench.load import Row

BEST = "most requests/s with p99 under 100 ms"
BEST_BAR, GOAL = Bar(">=", 8_000), "goal 10,000"
RATIO_BAR = Bar(">=", 60)
OPEN_BAR = Bar(">=", 6_000)
LONE_BAR = Bar("<=", 4.5)
NOT_SERVED = "no service was measured"


def lines(known: Known, max_batch_size: int) -> list[Line]:
    replicas = known.best_replicas
    best = known.served[replicas].best if replicas is not None else None
    return [
        *padding.lines(known.bucket_ms),
        _best(replicas, best),
        _ratio(known.tutorial, best),
        _open(known),
        _lone(known),
        _share(known, best, max_batch_size),
    ]


def _best(replicas: int | None, best: Row | None) -> Line:
    line = Line(7, BEST, unit="/s", bar=BEST_BAR, reason=NOT_SERVED)
    if replicas is None or best is None:
        return line
    where = f"{many(replicas)}, {best.run.concurrency} at once: {cells(best)}"
    if not keeps(best):
        # Measured, and missed: no rate at all kept it.
        return replace(line, value=0.0, note=f"none kept it; {best.median.completed_per_s:,.0f}/s with {where}")
    rates = [summary.completed_per_s for summary in best.summaries]
    return replace(line, value=best.median.completed_per_s, spread=spread(rates), note=f"{where}; {GOAL}")


def _ratio(tutorial: Row | None, best: Row | None) -> Line:
    line = Line(8, "ours over the tutorial's app", unit="x", bar=RATIO_BAR)
    if tutorial is None or best is None:
        return replace(line, reason="the tutorial's app was not measured" if tutorial is None else NOT_SERVED)
    ours, theirs = best.median.completed_per_s, tutorial.median.completed_per_s
    if not theirs:
        return replace(line, reason="the tutorial's app answered nothing in its time")
    return replace(line, value=ours / theirs, note=f"{ours:,.0f} over {theirs:,.1f}/s")


def _open(known: Known) -> Line:
    """Of whichever service was put under an open loop: those that were the best when they were measured."""
    line = Line(9, f"highest Poisson rate with p99 under {open_loop.P99_MS:g} ms", unit="/s", bar=OPEN_BAR)
    rates = {n: row.run.rate_per_s for n, served in known.served.items() if (row := served.open) and row.run.rate_per_s}
    if not rates:
        return replace(line, reason="no rate was found that holds it" if known.served else NOT_SERVED)
    replicas = max(rates, key=rates.__getitem__)
    return replace(line, value=rates[replicas], note=many(replicas))


def _lone(known: Known) -> Line:
    line = Line(10, "p50 of a lone client, at the best number of replicas", unit="ms", bar=LONE_BAR, reason=NOT_SERVED)
    if known.best_replicas is None or (row := known.served[known.best_replicas].lone) is None:
        return line
    return replace(line, value=row.median.p50_ms, note=many(known.best_replicas), reason="it was never answered")


def _share(known: Known, best: Row | None, size: int) -> Line:
    """Of the slowest stage alone, in batches as the service forms them."""
    line = Line(11, "served over the slowest stage alone")
    stages = {}
    for how in ("compiled", "uncompiled"):
        if size in known.forward.get(how, {}):
            stages[f"the network, {how}"] = known.forward[how][size]
            break
    if size in known.gpu_decode:
        stages["decode on the GPU"] = known.gpu_decode[size]
    elif known.cpu_decode_per_s:
        stages["decode on every core"] = known.cpu_decode_per_s
    if best is None or len(stages) < 2:
        return replace(line, reason=NOT_SERVED if best is None else "a stage alone was not measured")
    slowest = min(stages, key=stages.__getitem__)
    note = f"{best.median.completed_per_s:,.0f} over {stages[slowest]:,.0f}/s, {slowest}, batches of {size}"
    return replace(line, value=best.median.completed_per_s / stages[slowest], note=note)
