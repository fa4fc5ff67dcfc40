"""torch on the CPU: channels_last, bf16 where the processor is fast in it, a bounded number of threads.

Tried and dropped, images/s of a resnet18 on two cores of an EPYC, one by one and by eight: ONNX Runtime, which has fp32
only (113, 127; this 108, 127); two replicas of one core (143/s with 16 clients, a lone one waits 17 ms). Idle threads
that spin 2,000 times, not OpenMP's 300,000: 80 instead of 42 beside a busy process. onednn.py has the rest.
"""

import contextlib
import ctypes
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from serve_app.decode import Pixels
from serve_app.engine import onednn
from serve_app.engine.base import Execution, Item, Normalised, StagedEngine, blank, set_apart
from serve_app.engine.network import Network, Top
from serve_app.weights import Checkpoint

# malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT_BYTES = 1 << 30


def has_fast_bf16() -> bool:
    """Whether bf16 is faster than fp32 here: on Intel with AMX, on AMD with avx512_bf16.

    With AMX it was four times faster. With avx512_bf16 alone it takes half of fp32's time on an EPYC (Zen 5), and
    more than all of it on a Xeon: 433 against 368 ms for 16 images of a resnet18 (two cores each, torch 2.15).
    """
    return bool(torch.cpu._is_amx_tile_supported()) or (_is_amd() and bool(torch.cpu._is_avx512_bf16_supported()))


def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False


def _keep_freed_memory() -> None:
    """Let glibc keep what a batch frees, for the next one.

    By default that goes back to the kernel, and comes again page by page: 12,500 faults for 16 images of a
    resnet18. Batches of 8, 16, 64 on two cores of an EPYC: 187, 193, 172 images/s; with this, and MALLOC_ARENA_MAX=1
    in the environment, 219, 218, 224. Without that variable the device's thread may have a heap of 64 MB at most.
    """
    with contextlib.suppress(OSError, AttributeError):  # another libc
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEPT_BYTES)):
            mallopt(option, value)


class CpuEngine(StagedEngine):
    def __init__(self, checkpoint: Checkpoint, precision: str, top_k: int, num_threads: int) -> None:
        super().__init__(top_k)
        self.device = "cpu"
        self.precision = ("bf16" if has_fast_bf16() else "fp32") if precision == "auto" else precision
        self._num_threads = num_threads
        self.max_in_flight = self.num_drivers = 1 if num_threads == 1 else 2
        self._launched = 0
        self._halves = [num_threads // 2, num_threads - num_threads // 2]
        self._lock = threading.Lock()
        self._blank_crop = blank(checkpoint.spec.geometry)
        self._network = Network(checkpoint, torch.bfloat16 if self.precision == "bf16" else torch.float32, top_k)
        if onednn.is_available():
            self._network.model = onednn.fused(self._network.model)

    def start(self) -> None:
        _keep_freed_memory()
        torch.set_num_threads(self._num_threads)

    def _launch(self, images: Sequence[Item], bucket: int) -> Execution:
        with self._threads_of_a_batch() as num_threads:
            # The number belongs to the calling thread (OpenMP keeps it per thread): set elsewhere, it has
            # no effect here.
            torch.set_num_threads(num_threads)
            return super()._launch(images, bucket)

    @contextlib.contextmanager
    def _threads_of_a_batch(self) -> Iterator[int]:
        """All for a batch that is alone, half for one beside another."""
        with self._lock:
            self._launched += 1
            half = self._halves.pop() if self._launched > 1 else None
        try:
            yield half or self._num_threads
        finally:
            with self._lock:
                self._launched -= 1
                if half is not None:
                    self._halves.append(half)

    def _blank(self) -> Pixels:
        return self._blank_crop

    def _copy_in(self, images: Sequence[Any], bucket: int) -> torch.Tensor:
        crops, normalised = set_apart(images, self._blank_crop)
        batch = np.zeros((bucket, *crops[0].shape), dtype=np.uint8)
        np.stack(crops, out=batch[: len(images)])
        pixels = torch.from_numpy(batch)
        return self._inputs(pixels, normalised) if normalised else pixels

    @torch.inference_mode()
    def _inputs(self, pixels: torch.Tensor, normalised: Mapping[int, Normalised]) -> torch.Tensor:
        side = pixels.shape[1]
        images = np.empty((len(normalised), 3, side, side), dtype=np.float32)
        np.stack([image.pixels for image in normalised.values()], out=images)
        return self._network.inputs(pixels, list(normalised), torch.from_numpy(images))

    @torch.inference_mode()
    def _forward(self, pixels: torch.Tensor) -> Top:
        top: Top = self._network(pixels) if pixels.dtype == torch.uint8 else self._network.top(pixels)
        return top
