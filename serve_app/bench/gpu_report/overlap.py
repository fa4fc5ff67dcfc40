"""Decode and network beside each other in one process, as in a replica but without HTTP."""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle, islice
from time import perf_counter

from serve_app.bench import isolated
from serve_app.bench.gpu_report.image_path import for_the_gpu
from serve_app.bench.gpu_report.line import Line, of_repeats
from serve_app.bench.gpu_report.scale import Scale
from serve_app.bench.gpu_report.subject import Subject, Variant
from serve_app.bench.gpu_report.task import Context, NotMeasured
from serve_app.bench.images import readable
from serve_app.config import GIL_SWITCH_INTERVAL_S
from serve_app.decode import Pixels
from serve_app.engine import Item, Outcome
from serve_app.errors import RequestError

SECTION = 5
WARM_UPS = 3


def row(decode: str) -> Callable[[Context], Iterator[Line]]:
    """`decode`: `cpu` or `gpu`, as in a config."""

    def run(context: Context) -> Iterator[Line]:
        if decode == "gpu":
            context.needs_gpu()
        variant: Variant = "default" if context.known.compiles else "uncompiled"
        arguments = (context.subject, variant, decode, context.pictures.files, context.scale)
        per_s = list(isolated.stream(_measure, *arguments, limit_s=context.limit_s))
        what = f"decode on the {decode.upper()} beside the network, batches of {context.scale.max_batch_size}"
        yield of_repeats(Line(SECTION, what, unit="images/s", note="one process, without HTTP"), per_s)

    return run


def _measure(subject: Subject, variant: Variant, decode: str, files: Sequence[bytes], scale: Scale) -> Iterator[float]:
    """Images/s of full batches, `repeats` times; as many batches are on the device at once as the engine takes."""
    sys.setswitchinterval(GIL_SWITCH_INTERVAL_S)
    size = scale.max_batch_size
    engine = subject.engine(variant, decode=decode)
    engine.warm_up(size)
    in_flight: deque[Future[list[Outcome]]] = deque()
    with ThreadPoolExecutor(subject.num_cores) as threads, ThreadPoolExecutor(1) as collector:
        batches = _encoded(files, size) if decode == "gpu" else _decoded(subject, files, size, threads)

        def one() -> None:
            while len(in_flight) < engine.max_in_flight:
                in_flight.append(collector.submit(engine.launch(next(batches)).results))
            if errors := [outcome for outcome in in_flight.popleft().result() if isinstance(outcome, RequestError)]:
                raise NotMeasured(f"{len(errors)} of {size} images were not decoded: {errors[0]}")

        for _ in range(WARM_UPS):
            one()
        for _ in range(scale.repeats):
            executions, started = 0, perf_counter()
            while executions < 1 or perf_counter() - started < scale.pipeline_s:
                one()
                executions += 1
            yield executions * size / (perf_counter() - started)


def _encoded(files: Sequence[bytes], size: int) -> Iterator[list[Item]]:
    images = cycle(for_the_gpu(files)[1])
    while True:
        yield list(islice(images, size))


def _decoded(subject: Subject, files: Sequence[bytes], size: int, threads: ThreadPoolExecutor) -> Iterator[list[Item]]:
    """Two batches ahead."""
    decoder = subject.decoder()
    images = cycle(readable(files, decoder))
    pending: deque[Future[Pixels]] = deque()
    try:
        while True:
            pending.extend(threads.submit(decoder, file) for file in islice(images, 3 * size - len(pending)))
            yield [pending.popleft().result() for _ in range(size)]
    finally:
        for future in pending:
            future.cancel()
