"""Decoding beside the device, as in a replica but without HTTP: what one replica could do at most.

The device's times are longer here than alone: where it is a CPU, the decode threads share its cores,
and everywhere they share Python's GIL.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

from serve_app.bench import isolated
from serve_app.bench.forward import Setup
from serve_app.bench.images import readable
from serve_app.config import Args
from serve_app.decode import Decoder, Pixels

WARM_UPS = 3
GIL_SWITCH_INTERVAL_S = 0.0005  # as the replica sets it


@dataclass(frozen=True)
class Stretch:
    """Batches of one size, one after the other, each decoded while the one before it was on the device."""

    batch_size: int
    images_per_s: float
    device_ms: list[float]
    """Of each execution, copies included."""
    decode_ms: list[float]
    """Of each image: its decode and resize, in one of the threads."""


@dataclass
class Pipeline:
    """Stretches by batch size, and what an image costs with the machine to itself."""

    decode_alone_ms: float = 0.0
    device_alone_ms: float = 0.0
    """A batch of one."""
    stretches: dict[int, Stretch] = field(default_factory=dict)

    @property
    def decode_ms(self) -> list[float]:
        return [ms for stretch in self.stretches.values() for ms in stretch.decode_ms]


def measure(
    setup: Setup,
    files: Sequence[bytes],
    sizes: Sequence[int],
    seconds: float,
    on_step: Callable[[int], None] = lambda _: None,
) -> Pipeline:
    """`seconds` of each batch size, with as many decode threads as the setup has. Raises ConfigError."""
    found = Pipeline()
    for item in isolated.stream(_measure, setup, files, sizes, seconds):
        if isinstance(item, Stretch):
            found.stretches[item.batch_size] = item
            on_step(item.batch_size)
        else:
            found.decode_alone_ms, found.device_alone_ms = item
    return found


# --- in the measuring process --------------------------------------------------------------------


def _measure(
    setup: Setup, files: Sequence[bytes], sizes: Sequence[int], seconds: float
) -> Iterator[Stretch | tuple[float, float]]:
    sys.setswitchinterval(GIL_SWITCH_INTERVAL_S)
    engine = setup.create()
    decoder = Decoder(setup.checkpoint().spec.geometry, Args().max_image_pixels)
    files = readable(files, decoder)
    for size in sorted({1, *sizes}):
        engine.warm_up(size)
    crop = decoder(files[0])
    alone = [engine.infer([crop])[0].device_ms for _ in range(10 * WARM_UPS)][WARM_UPS:]
    yield median(_timed(decoder, file)[1] for file in files), median(alone)

    with ThreadPoolExecutor(setup.num_threads) as decoders:
        number = 0
        pending: deque[Future[tuple[Pixels, float]]] = deque()

        def fill(target: int) -> None:
            nonlocal number
            while len(pending) < target:
                pending.append(decoders.submit(_timed, decoder, files[number % len(files)]))
                number += 1

        for size in sizes:
            device_ms: list[float] = []
            decode_ms: list[float] = []
            executions, started = -WARM_UPS, perf_counter()
            while executions < 1 or perf_counter() - started < seconds:
                fill(2 * size)
                batch = [pending.popleft().result() for _ in range(size)]
                fill(2 * size)
                execution_ms = engine.infer([pixels for pixels, _ in batch])[0].device_ms
                executions += 1
                if executions > 0:
                    device_ms.append(execution_ms)
                    decode_ms += [ms for _, ms in batch]
                else:
                    started = perf_counter()
            yield Stretch(size, executions * size / (perf_counter() - started), device_ms, decode_ms)
        for future in pending:
            future.cancel()


def _timed(decoder: Decoder, file: bytes) -> tuple[Pixels, float]:
    started = perf_counter()
    pixels = decoder(file)
    return pixels, (perf_counter() - started) * 1e3
