"""The network alone: images/s by batch size, as the service runs it and as a tutorial does."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from serve_app.bench import isolated
from serve_app.bench.forward import WARM_UPS, timed_ms
from serve_app.bench.gpu_report import startup
from serve_app.bench.gpu_report.line import Bar, Line, of_repeats
from serve_app.bench.gpu_report.scale import Scale
from serve_app.bench.gpu_report.subject import Subject, noise
from serve_app.bench.gpu_report.task import Context, NotMeasured, gathered
from serve_app.decode import Pixels
from serve_app.engine import Engine

SECTION = 2
BAR = Bar(">=", 28_000)
BAR_AT = 256
PROFILES = 9
BUCKET_S = 0.1
"""For the time of each batch size of the service."""
How = Literal["compiled", "uncompiled", "eager"]
NAMES: dict[How, str] = {
    "compiled": "ours, compiled",
    "uncompiled": "ours, not compiled",
    "eager": "torch eager, fp32, NCHW",
}
STARTS: dict[How, str] = {"compiled": startup.COLD, "uncompiled": startup.UNCOMPILED}


@dataclass(frozen=True)
class Timed:
    batch_size: int
    network_ms: float
    """Of one execution, images and results on the device."""
    whole_ms: float
    """From crops in the host's memory to results there."""


def row(how: How) -> Callable[[Context], Iterator[Line]]:
    """With the start-up of the engine before it: `compiled` is to be the first that compiles in this run."""

    def run(context: Context) -> Iterator[Line]:
        if how == "compiled":
            context.needs_gpu()
        if how == "eager" and context.subject.device == "stub":
            raise NotMeasured("the stub is no network")
        items, failure = gathered(
            isolated.stream(_measure, context.subject, how, context.scale, limit_s=context.limit_s)
        )
        marks: startup.Marks = {kind: value for kind, value in items if kind in ("loaded", "warm")}
        if "warm" in marks:
            yield startup.line(STARTS[how], marks, context.scale)
        elif how == "compiled":
            context.known.compiles = False
        if not context.known.bucket_ms:  # those of the compiled network, which is what is served, come first
            context.known.bucket_ms = dict(value for kind, value in items if kind == "bucket")
        yield from _lines(context, how, [value for kind, value in items if kind == "timed"])
        if failure:
            raise failure

    return run


def _lines(context: Context, how: How, timed: list[Timed]) -> Iterator[Line]:
    found: dict[int, list[Timed]] = {}
    for one in timed:
        found.setdefault(one.batch_size, []).append(one)
    per_s = {size: [size / one.network_ms * 1e3 for one in repeats] for size, repeats in found.items()}
    context.known.forward[how] = {size: median(values) for size, values in per_s.items()}
    for size, repeats in found.items():
        network_ms = median(one.network_ms for one in repeats)
        whole_ms = median(one.whole_ms for one in repeats)
        note = f"{network_ms:.2f} ms; with both copies {whole_ms:.2f} ms, {size / whole_ms * 1e3:,.0f}/s"
        bar = BAR if how == "compiled" and size == BAR_AT else None
        line = Line(SECTION, f"{NAMES[how]}, batch of {size}", unit="images/s", bar=bar, note=note)
        yield of_repeats(line, per_s[size])


def _measure(subject: Subject, how: How, scale: Scale) -> Iterator[tuple[str, Any]]:
    """The marks of its start; Timed ones; then the milliseconds of each batch size of the service."""
    if how == "eager":
        engine = subject.eager(subject.device)
    else:
        engine = yield from startup.started(subject, how, scale)
    crops = noise(subject.geometry(), max(*scale.forward_sizes, scale.max_batch_size))
    for repeat in range(scale.repeats):
        for size in scale.forward_sizes:
            for _ in range(WARM_UPS if repeat == 0 else 0):
                engine.warm_up(size)
            yield "timed", _timed(engine, crops[:size], how, scale.measure_s)
    for size in startup.buckets(scale) if how != "eager" else ():
        yield "bucket", (size, _infer_ms(engine, crops[:size], min(BUCKET_S, scale.measure_s)))


def _timed(engine: Engine, batch: Sequence[Pixels], how: How, measure_s: float) -> Timed:
    profiles = [engine.profile(batch) for _ in range(PROFILES)]
    # Of eager torch the host's clock sees the launch alone; the device is done when its results are copied.
    parts = ("forward", "copy_out") if how == "eager" else ("forward",)
    network_ms = median(sum(profile[part] for part in parts) for profile in profiles)
    return Timed(len(batch), network_ms, _infer_ms(engine, batch, measure_s))


def _infer_ms(engine: Engine, batch: Sequence[Pixels], measure_s: float) -> float:
    return timed_ms(lambda: engine.infer(batch), measure_s)
