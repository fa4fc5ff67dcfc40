"""What every engine offers: uint8 images -> the top classes of each, in batches of warmed sizes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from serve_app.decode import Pixels
from serve_app.model_spec import Geometry

STAGES = ("copy_in", "forward", "copy_out")
WARM_UP_AGAIN_BELOW_S = 0.5
"""Of a batch's first run, which takes longer than the next: where it is long itself, it says enough."""


@dataclass(frozen=True)
class Prediction:
    """One image's top classes, best first, and the execution it was part of."""

    class_ids: npt.NDArray[np.int64]
    """int64 (k,)"""
    scores: npt.NDArray[np.float32]
    """float32 (k,), softmax probabilities"""
    batch_size: int
    """Images in the execution, without padding."""
    device_ms: float
    """From the assembled list of images to results in host memory."""


class Engine(ABC):
    """A network on a device. Not thread-safe: one thread drives it."""

    device: str
    precision: str

    def __init__(self, top_k: int) -> None:
        self._top_k = top_k
        self._sizes: list[int] = []  # warmed, ascending
        self._in_use: Sequence[int] = ()

    @abstractmethod
    def _copy_in(self, images: Sequence[Pixels], bucket: int) -> torch.Tensor:
        """What the network takes, on the device: uint8 (bucket, crop_size, crop_size, 3), padded at its end."""

    @abstractmethod
    def _forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores float32 (bucket, k) and class ids int64 (bucket, k), on the device."""

    def _copy_out(self, top: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The same on the CPU, done."""
        return top

    @abstractmethod
    def _blank(self) -> Pixels:
        """An image of the network's geometry, to warm up with."""

    def start(self) -> None:
        """Called once, first, in the thread that drives the engine."""
        return

    def cold_sizes(self, buckets: Sequence[int]) -> list[int]:
        """Those of `buckets` that have not run yet."""
        return [size for size in buckets if size not in self._sizes]

    def _run(self, images: Sequence[Pixels], bucket: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._copy_out(self._forward(self._copy_in(images, bucket)))

    def warm_up(self, size: int) -> float:
        """Run a blank batch of `size`: from then on `infer` may use it. The seconds that it takes, warm."""
        seconds = self._blank_run(size)
        if seconds < WARM_UP_AGAIN_BELOW_S or not self._sizes:  # the very first one loads libraries
            seconds = self._blank_run(size)
        self._sizes = sorted({*self._sizes, size})
        return seconds

    def use(self, buckets: Sequence[int]) -> None:
        """From now on batches are padded to the next of these, which are warm; ascending."""
        self._in_use = buckets

    def _blank_run(self, size: int) -> float:
        started = perf_counter()
        self._run([self._blank()] * size, size)
        return perf_counter() - started

    def infer(self, images: Sequence[Pixels]) -> list[Prediction]:
        """One Prediction per image, in order, from one execution.

        `images`: uint8 (crop_size, crop_size, 3) each, at most the largest warmed size of them.
        """
        started = perf_counter()
        scores, class_ids = self._run(images, self._bucket(len(images)))
        device_ms = (perf_counter() - started) * 1e3
        return [
            Prediction(ids, top, len(images), device_ms)
            for ids, top in zip(class_ids.numpy()[: len(images)], scores.numpy(), strict=False)
        ]

    def profile(self, images: Sequence[Pixels]) -> dict[str, float]:
        """One execution as `infer` does it, in milliseconds of the device's clock: copy_in, forward, copy_out."""
        marks = [self._mark()]
        pixels = self._copy_in(images, self._bucket(len(images)))
        marks.append(self._mark())
        top = self._forward(pixels)
        marks.append(self._mark())
        self._copy_out(top)
        marks.append(self._mark())
        return {stage: self._between_ms(*marks[i : i + 2]) for i, stage in enumerate(STAGES)}

    def _bucket(self, num_images: int) -> int:
        # A batch that was formed just before other buckets came into use may be larger than they are.
        return next(size for size in (*self._in_use, *self._sizes) if size >= num_images)

    def _mark(self) -> Any:
        """This point of the device's work, for `_between_ms`."""
        return perf_counter()

    def _between_ms(self, start: Any, end: Any) -> float:
        return float(end - start) * 1e3


class Normalise(torch.nn.Module):
    """uint8 (N, H, W, 3) -> (N, 3, H, W) channels_last of `dtype`, scaled to the network's mean and std."""

    def __init__(self, geometry: Geometry, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        mean, std = torch.tensor(geometry.mean), torch.tensor(geometry.std)
        self._dtype = dtype
        self.register_buffer("scale", (1 / (255 * std)).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        # The permuted view of a contiguous NHWC tensor is channels_last already: no copy. The
        # arithmetic is fp32 whatever the network's dtype: bf16 has too few bits for 0..255.
        channels_first = pixels.permute(0, 3, 1, 2).float()
        normalised: torch.Tensor = channels_first.mul_(self.scale).add_(self.shift)
        return normalised.to(self._dtype)


def top_classes(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, num_classes) of any float dtype -> scores float32 (N, k), class ids int64 (N, k), best first."""
    scores, class_ids = logits.float().softmax(dim=1).topk(k, dim=1)
    return scores, class_ids


def blank(geometry: Geometry) -> Pixels:
    """uint8 (crop_size, crop_size, 3), mid-gray."""
    return np.full((geometry.crop_size, geometry.crop_size, 3), 128, dtype=np.uint8)
