"""Decode and the device, as in a replica but without HTTP: what one replica could do at most."""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from statistics import median
from time import perf_counter

from serve_app.bench import isolated
from serve_app.bench.forward import Setup
from serve_app.bench.images import readable
from serve_app.config import GIL_SWITCH_INTERVAL_S, Args
from serve_app.decode import Decoder, Pixels

WARM_UPS = 3


def images_per_s(setup: Setup, files: Sequence[bytes], batch_size: int, seconds: float) -> float:
    """Of full batches, each decoded in threads while the one before it is on the device. Raises ConfigError."""
    return next(isolated.stream(_measure, setup, files, batch_size, seconds))


def one_by_one_per_s(setup: Setup, files: Sequence[bytes], seconds: float) -> float:
    """As a lone client has it: decoded, then on the device alone, by the median. Raises ConfigError."""
    return next(isolated.stream(_measure_one_by_one, setup, files, seconds))


def _measure_one_by_one(setup: Setup, files: Sequence[bytes], seconds: float) -> Iterator[float]:
    engine = setup.create()
    engine.warm_up(1)
    decode = Decoder(setup.checkpoint().spec.geometry, Args().max_image_pixels)
    taken: list[float] = []
    files, ends = readable(files, decode), perf_counter() + seconds
    while perf_counter() < ends or len(taken) <= WARM_UPS:
        started = perf_counter()
        engine.infer([decode(files[len(taken) % len(files)])])
        taken.append(perf_counter() - started)
    yield 1 / median(taken[WARM_UPS:])


def _measure(setup: Setup, files: Sequence[bytes], batch_size: int, seconds: float) -> Iterator[float]:
    sys.setswitchinterval(GIL_SWITCH_INTERVAL_S)
    engine = setup.create()
    engine.warm_up(batch_size)
    decode = Decoder(setup.checkpoint().spec.geometry, Args().max_image_pixels)
    files = readable(files, decode)
    with ThreadPoolExecutor(setup.num_threads) as threads:
        pending: deque[Future[Pixels]] = deque()
        submitted = 0

        def next_batch() -> list[Pixels]:
            nonlocal submitted
            while len(pending) < 2 * batch_size:
                pending.append(threads.submit(decode, files[submitted % len(files)]))
                submitted += 1
            return [pending.popleft().result() for _ in range(batch_size)]

        for _ in range(WARM_UPS):
            engine.infer(next_batch())
        executions, started = 0, perf_counter()
        while executions < 1 or perf_counter() - started < seconds:
            engine.infer(next_batch())
            executions += 1
        yield executions * batch_size / (perf_counter() - started)
        for future in pending:
            future.cancel()
