"""The service over HTTP with some number of replicas on one GPU: closed loops, a lone client, an open loop."""

import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from serve_app.bench import compare
from serve_app.bench.generator import Run
from serve_app.bench.gpu_report import open_loop
from serve_app.bench.gpu_report.known import Known, Served
from serve_app.bench.gpu_report.line import Line
from serve_app.bench.gpu_report.scale import Scale
from serve_app.bench.gpu_report.subject import Subject, Variant
from serve_app.bench.gpu_report.task import Context, NotMeasured
from serve_app.bench.load import LoadTest, Row
from serve_app.config import max_ongoing_requests, max_queued_requests

SECTION, LONE_SECTION = 7, 10
START_S, MIN_START_S, MAX_START_S = 35.0, 20.0, 150.0
"""Of a service that was never started, until it is ready; given to every one; given to none beyond."""
STOP_S = 8.0
REQUEST_TIMEOUT_S = 10.0
MORE_RUNS = 2
"""Of the best closed loop."""


def row(replicas: int) -> Callable[[Context], Iterator[Line]]:
    return lambda context: _measured(context, replicas)


def expected_s(known: Known, scale: Scale) -> float:
    """Without the open loop, which takes what is left."""
    runs = len(scale.concurrencies) + MORE_RUNS + 1
    return (known.start_s or START_S) + STOP_S + runs * run_s(scale)


def run_s(scale: Scale) -> float:
    return scale.warm_up_s + scale.run_s + 0.4  # until its processes have begun, and its last answers are in


def content(subject: Subject, scale: Scale, replicas: int, variant: Variant) -> dict[str, Any]:
    """The config: JPEGs decoded on the GPU where there is one, which the replicas share, as they do the cores.

    Raises NotMeasured where there are more replicas than cores.
    """
    if replicas > subject.num_cores:
        raise NotMeasured(f"{replicas} replicas need as many cores, and here are {subject.num_cores}")
    args = subject.args(variant, decode="gpu" if subject.on_gpu else "cpu")
    terms = compare.Terms(args, scale.max_batch_size, subject.num_cores // replicas, int(subject.on_gpu))
    found = deepcopy(compare.ours(terms).content)
    deployment = found["applications"][0]["deployments"][0]
    deployment["num_replicas"] = replicas
    # As an operator has it, and not as what is compared has it, whose queues are without end.
    deployment["user_config"] = {"max_batch_size": scale.max_batch_size}
    deployment["max_ongoing_requests"] = max_ongoing_requests(scale.max_batch_size)
    deployment["max_queued_requests"] = max_queued_requests(scale.max_batch_size)
    if subject.on_gpu:
        deployment["ray_actor_options"]["num_gpus"] = 100 // replicas / 100
    return found


def template(scale: Scale) -> Run:
    """What is sent, but for the rate."""
    return Run("", scale.run_s, scale.warm_up_s, seed=1, timeout_s=REQUEST_TIMEOUT_S)


def start_timeout_s(context: Context, needed_s: float) -> float:
    """So that `needed_s` are left to measure it, but never too little to start at all."""
    return min(MAX_START_S, max(MIN_START_S, context.left_s() - needed_s))


def cells(row: Row) -> str:
    """Its figures beside the rate, in a phrase."""
    s = row.median
    if s.p50_ms is None or s.p99_ms is None:
        return f"nothing answered; failed: {s.errors}"
    batch = f", mean batch {s.mean_batch:.1f}" if s.mean_batch else ""
    failed = f", failed: {s.errors}" if s.errors else ""
    late = f", sent late by {s.lag_p99_ms:.1f} ms (p99)" if s.lagged else ""
    return f"p50 {s.p50_ms:.1f} ms, p99 {s.p99_ms:.1f} ms{batch}{late}{failed}"


def spread(values: list[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if len(values) > 1 else None


def many(replicas: int) -> str:
    return f"{replicas} replica{'s' if replicas > 1 else ''}"


def _measured(context: Context, replicas: int) -> Iterator[Line]:
    known, scale = context.known, context.scale
    variant: Variant = "default" if known.compiles else "uncompiled"
    served = content(context.subject, scale, replicas, variant)
    needed_s = expected_s(known, scale) - (known.start_s or START_S)
    began = time.monotonic()
    with context.serve(served, {}, template(scale), start_timeout_s(context, needed_s)) as test:
        known.start_s = time.monotonic() - began
        note = "" if known.compiles else "told not to compile, which failed or took too long above"
        yield Line(3, f"service of {many(replicas)}, until it is ready", known.start_s, "s", note=note)
        found = known.served.setdefault(replicas, Served())
        yield from _closed(test, known, replicas, found, scale.concurrencies)
        found.lone = test.at_concurrency(1)
        p50s = [s.p50_ms for s in found.lone.summaries if s.p50_ms is not None]
        if p50s:
            yield Line(LONE_SECTION, f"p50, {many(replicas)}", p50s[0], "ms", note=cells(found.lone))
        if known.best_replicas == replicas:
            yield from open_loop.lines(context, test, replicas, found)


def _closed(test: LoadTest, known: Known, replicas: int, found: Served, concurrencies: Sequence[int]) -> Iterator[Line]:
    """The best one again, where no other number of replicas was better. Raises NotMeasured if nothing was answered."""
    for concurrency in concurrencies:
        found.closed.append(test.at_concurrency(concurrency))
    if (best := found.best) is None:
        raise NotMeasured(f"nothing was answered: {found.closed[0].median.errors}")
    if known.best_replicas == replicas:
        again = replace(test, repeats=MORE_RUNS, run=replace(test.run, seed=test.run.seed + 1))
        more = again.at_concurrency(best.run.concurrency or 1)
        found.closed[found.closed.index(best)] = Row(best.run, best.summaries + more.summaries)
    for row in found.closed:
        yield closed_line(SECTION, f"{many(replicas)}, {row.run.concurrency} at once", row)


def closed_line(section: int, what: str, row: Row) -> Line:
    values = [summary.completed_per_s for summary in row.summaries]
    return Line(section, what, row.median.completed_per_s, "/s", spread(values), note=cells(row))
