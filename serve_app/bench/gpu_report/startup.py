"""How long an engine takes until every batch size of the service is warm: with an empty cache, a full one, and none."""

from collections.abc import Generator, Iterator
from time import perf_counter
from typing import Any

from serve_app.bench import isolated
from serve_app.bench.gpu_report.line import Line
from serve_app.bench.gpu_report.scale import Scale
from serve_app.bench.gpu_report.subject import Subject, Variant
from serve_app.bench.gpu_report.task import Context
from serve_app.config import UserConfig
from serve_app.engine import Engine

SECTION = 3
COLD, WARM, UNCOMPILED = "compiled, its cache empty", "compiled, its cache full", "not compiled"
Marks = dict[str, float]
"""`loaded`, `warm`: seconds until then."""


def run_warm(context: Context) -> Iterator[Line]:
    """With what the rows before it have compiled."""
    context.needs_gpu()
    marks = dict(isolated.stream(_measure, context.subject, context.scale, limit_s=context.limit_s))
    yield line(WARM, marks, context.scale)


def line(what: str, marks: Marks, scale: Scale) -> Line:
    note = f"{marks['loaded']:.1f} s until it is made, then {len(buckets(scale))} batch sizes; torch imported before"
    return Line(SECTION, f"an engine, {what}", marks["warm"], "s", note=note)


def buckets(scale: Scale) -> tuple[int, ...]:
    """The batch sizes that a service warms."""
    return UserConfig(max_batch_size=scale.max_batch_size).buckets()


def started(subject: Subject, variant: Variant, scale: Scale) -> Generator[tuple[str, Any], None, Engine]:
    """The engine, warm; on the way the Marks, one by one."""
    began = perf_counter()
    engine = subject.engine(variant)
    yield "loaded", perf_counter() - began
    for size in reversed(buckets(scale)):  # as the service does
        engine.warm_up(size)
    yield "warm", perf_counter() - began
    return engine


def _measure(subject: Subject, scale: Scale) -> Iterator[tuple[str, float]]:
    yield from started(subject, "compiled", scale)
