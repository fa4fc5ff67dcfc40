"""The device alone: t(n), the milliseconds of a batch of n, for networks, precisions and devices.

Every figure is taken after a warm-up, with the device synchronised, `repeats` times; the repeats go
round all batch sizes, so that a slow minute of the machine falls on all of them.
"""

import resource
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any, Literal

import numpy as np
import psutil
import torch
from PIL.Image import Image

from serve_app.bench import isolated, memory
from serve_app.bench.baselines.eager import EagerEngine
from serve_app.bench.images import readable
from serve_app.config import Args
from serve_app.decode import Decoder, Pixels, resize_and_crop
from serve_app.engine import Engine, create
from serve_app.engine.memory import is_out_of_memory
from serve_app.model_spec import Geometry, ModelSpec
from serve_app.weights import Checkpoint, load

MIN_MEASURE_S = 0.3  # per figure: 20 executions of 15 ms
WARM_UPS = 2
KNEE_TOLERANCE = 0.05
NUM_CLASSES = 1000


Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Setup:
    """A network on a device, and how it is run."""

    arch: str
    device: str
    """`cpu`, or `cuda:0`."""
    precision: Precision
    num_threads: int
    engine: Literal["engine", "eager"] = "engine"
    weights: str | None = None
    """None: random ones, for the time does not depend on them."""
    memory_limit_bytes: int | None = None
    """On the CPU; None: what is free at the start."""

    def checkpoint(self) -> Checkpoint:
        if self.weights is not None:
            return load(Args(arch=self.arch, weights=self.weights))
        return random_checkpoint(self.arch)

    def create(self, top_k: int = 5) -> Engine:
        """The engine, in the thread that will drive it. Raises ConfigError, as the service would."""
        checkpoint = self.checkpoint()
        if self.device.startswith("cuda"):
            torch.cuda.set_device(self.device)
        if self.engine == "eager":
            torch.set_num_threads(self.num_threads)
            precision = "fp32" if self.precision == "auto" else self.precision
            return EagerEngine(checkpoint, precision, top_k, self.device)
        device: Any = self.device.partition(":")[0]
        args = Args(arch=self.arch, device=device, precision=self.precision, max_top_k=top_k)
        engine = create(args, checkpoint, self.num_threads)
        engine.start()
        return engine


@dataclass
class Curve:
    """t(n) of one setup."""

    precision: str = ""
    """As `auto` was resolved."""
    times_ms: dict[int, list[float]] = field(default_factory=dict)
    """Batch size -> milliseconds of one execution, by repeat."""
    peak_bytes: dict[int, int | None] = field(default_factory=dict)
    """Batch size -> memory, of the process on the CPU, allocated on a GPU."""
    out_of_memory_at: int | None = None
    """The batch size that did not fit; None if all did."""

    def ms(self, batch_size: int) -> float:
        return median(self.times_ms[batch_size])

    def images_per_s(self, batch_size: int) -> float:
        return batch_size / self.ms(batch_size) * 1e3

    @property
    def knee(self) -> int:
        """The smallest batch within 5 % of the best images/s. Raises ValueError if nothing was measured."""
        best = max(self.images_per_s(size) for size in self.times_ms)
        return min(size for size in self.times_ms if self.images_per_s(size) >= best * (1 - KNEE_TOLERANCE))

    def rows(self) -> list[dict[str, Any]]:
        """As JSON: a row for each size, and one for the size that ran out of memory."""
        knee = self.knee if self.times_ms else None
        found: list[dict[str, Any]] = [
            {
                "batch_size": size,
                "images_per_s": round(self.images_per_s(size), 2),
                "ms_per_batch": round(self.ms(size), 3),
                "ms_per_batch_spread": [round(min(times), 3), round(max(times), 3)],
                "ms_per_image": round(self.ms(size) / size, 3),
                "peak_memory_mib": _mebibytes(self.peak_bytes.get(size)),
                "knee": size == knee,
                "error": None,
            }
            for size, times in sorted(self.times_ms.items())
        ]
        if self.out_of_memory_at is not None:
            empty = dict.fromkeys(("images_per_s", "ms_per_batch", "ms_per_batch_spread", "ms_per_image"))
            row = {"batch_size": self.out_of_memory_at, **empty, "peak_memory_mib": None, "knee": False}
            found.append({**row, "error": "out of memory"})
        return found


@dataclass(frozen=True)
class Lesson:
    """The same images one by one and in batches, milliseconds by repeat."""

    count: int
    batch_size: int
    one_by_one_ms: list[float]
    batched_ms: list[float]

    @property
    def speed_up(self) -> float:
        return median(self.one_by_one_ms) / median(self.batched_ms)

    def as_dict(self) -> dict[str, Any]:
        return {
            "images": self.count,
            "batch_size": self.batch_size,
            "one_by_one_images_per_s": round(self.count / median(self.one_by_one_ms) * 1e3, 2),
            "one_by_one_ms": [round(ms, 2) for ms in self.one_by_one_ms],
            "batched_images_per_s": round(self.count / median(self.batched_ms) * 1e3, 2),
            "batched_ms": [round(ms, 2) for ms in self.batched_ms],
            "speed_up": round(self.speed_up, 3),
        }


def doublings(max_batch_size: int) -> list[int]:
    """1, 2, 4, ... up to the maximum, which is always one of them."""
    return sorted({*(1 << i for i in range(max_batch_size.bit_length())), max_batch_size})


def curve(setup: Setup, sizes: Sequence[int], repeats: int, on_step: Callable[[int], None] = lambda _: None) -> Curve:
    """t(n) for each size, ascending, in a process of its own; it ends at the first that does not fit into memory.

    `on_step` is told each batch size once it has been measured, `repeats` times in all.
    """
    found = Curve()
    trying = sizes[0]
    try:
        for kind, size, value in isolated.stream(_measure_curve, setup, sizes, repeats):
            if kind == "precision":
                found.precision = value
            elif kind == "trying":
                trying = size
            elif kind == "peak":
                found.peak_bytes[size] = value
            elif kind == "out of memory":
                found.out_of_memory_at = size
                found.times_ms.pop(size, None)  # of an earlier repeat
            else:
                found.times_ms.setdefault(size, []).append(value)
                on_step(size)
    except isolated.Died as error:
        if not error.killed:
            raise
        found.out_of_memory_at = trying
        found.times_ms.pop(trying, None)
    return found


def lesson(setup: Setup, files: Sequence[bytes], count: int, batch_size: int, repeats: int) -> Lesson:
    """`count` decoded images one by one, then the same in batches, in one process. Raises ConfigError."""
    return next(isolated.stream(_measure_lesson, setup, files, count, batch_size, repeats))


def stages(setup: Setup, files: Sequence[bytes], batch_size: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds per image and repeat: decode and resize of one thread, copy_in, forward, copy_out in batches."""
    return next(isolated.stream(_measure_stages, setup, files, batch_size, repeats))


def random_checkpoint(arch: str) -> Checkpoint:
    """A network of ImageNet's shape that has learnt nothing."""
    from serve_app import architectures

    torch.manual_seed(0)
    state_dict = architectures.build(arch, NUM_CLASSES).state_dict()
    labels = tuple(map(str, range(NUM_CLASSES)))
    return Checkpoint(ModelSpec(arch, arch, labels, Geometry(), weights="random", sha256=""), state_dict)


def timed_ms(run: Callable[[], object], min_measure_s: float = MIN_MEASURE_S) -> float:
    """Milliseconds of one `run()`, from as many as fill `min_measure_s`. It must end synchronised, as `infer` does."""
    count, started = 0, perf_counter()
    while (elapsed := perf_counter() - started) < min_measure_s or count == 0:
        run()
        count += 1
    return elapsed / count * 1e3


# --- in the measuring process --------------------------------------------------------------------


def _measure_curve(setup: Setup, sizes: Sequence[int], repeats: int) -> Iterator[tuple[str, int, Any]]:
    engine = setup.create()
    yield "precision", 0, engine.precision
    crops = _noise(setup, max(sizes))
    _limit_memory(setup)
    measured: list[int] = []
    for repeat in range(repeats):
        for size in sizes if repeat == 0 else measured:
            yield "trying", size, None
            try:
                if repeat == 0:
                    memory.reset_peak(setup.device)
                    for _ in range(WARM_UPS):
                        engine.warm_up(size)
                ms = timed_ms(lambda size=size: engine.infer(crops[:size]))  # type: ignore[misc]
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                measured = [smaller for smaller in measured if smaller < size]
                yield "out of memory", size, None
                break
            if repeat == 0:
                measured.append(size)
                yield "peak", size, memory.peak_bytes(setup.device)
            yield "ms", size, ms


def _measure_lesson(
    setup: Setup, files: Sequence[bytes], count: int, batch_size: int, repeats: int
) -> Iterator[Lesson]:
    engine = setup.create()
    distinct = _Decoded(setup, files).crops[:count]
    crops = [distinct[i % len(distinct)] for i in range(count)]
    batches = [crops[i : i + batch_size] for i in range(0, len(crops), batch_size)]
    for size in sorted({1, *map(len, batches)}):
        for _ in range(WARM_UPS):
            engine.warm_up(size)

    def one_by_one() -> None:
        for crop in crops:
            engine.infer([crop])

    def batched() -> None:
        for batch in batches:
            engine.infer(batch)

    times = [(timed_ms(one_by_one), timed_ms(batched)) for _ in range(repeats)]
    yield Lesson(len(crops), batch_size, [one for one, _ in times], [many for _, many in times])


def _measure_stages(
    setup: Setup, files: Sequence[bytes], batch_size: int, repeats: int
) -> Iterator[dict[str, list[float]]]:
    engine = setup.create()
    decoded = _Decoded(setup, files)
    batch = [decoded.crops[i % len(decoded.crops)] for i in range(batch_size)]
    for _ in range(WARM_UPS):
        engine.warm_up(batch_size)
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        ms = {
            "decode": timed_ms(decoded.decode) / len(decoded.crops),
            "resize": timed_ms(decoded.resize) / len(decoded.crops),
            **_profile(engine, batch),
        }
        for stage, value in ms.items():
            found.setdefault(stage, []).append(value)
    yield found


class _Decoded:
    """Those of `files` that can be read, as photos and as crops. Raises ConfigError if there are none."""

    def __init__(self, setup: Setup, files: Sequence[bytes]) -> None:
        self._geometry = setup.checkpoint().spec.geometry
        self._decoder = Decoder(self._geometry, Args().max_image_pixels)
        self._files = readable(files, self._decoder)
        self._photos = self.decode()
        self.crops = self.resize()

    def decode(self) -> list[Image]:
        return [self._decoder.read(file) for file in self._files]

    def resize(self) -> list[Pixels]:
        return [resize_and_crop(photo, self._geometry) for photo in self._photos]


def _profile(engine: Engine, batch: Sequence[Pixels]) -> dict[str, float]:
    """Median milliseconds per image of each stage of an execution."""
    profiles = [engine.profile(batch) for _ in range(max(5, round(32 / len(batch))))]
    return {stage: median(profile[stage] for profile in profiles) / len(batch) for stage in profiles[0]}


def _noise(setup: Setup, count: int) -> list[Pixels]:
    """Random crops; no more than 64 distinct ones, whose memory would be counted too."""
    side = setup.checkpoint().spec.geometry.crop_size
    generator = np.random.default_rng(0)
    distinct = [generator.integers(0, 256, (side, side, 3), np.uint8) for _ in range(min(count, 64))]
    return [distinct[i % len(distinct)] for i in range(count)]


def _limit_memory(setup: Setup) -> None:
    """On the CPU a batch too large must fail here, and not have the kernel end somebody else's process."""
    used = getattr(psutil.Process().memory_info(), "data", None)  # what RLIMIT_DATA counts; Linux alone tells
    if setup.device != "cpu" or used is None:
        return
    limit = used + (setup.memory_limit_bytes or psutil.virtual_memory().available)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _mebibytes(count: int | None) -> float | None:
    return None if count is None else round(count / 2**20, 1)
