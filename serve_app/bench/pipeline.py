"""Decode beside the device, as in a replica but without HTTP: what one replica could do at most."""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
