"""What every engine offers: images -> top classes and logits of each, in batches of warmed sizes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from serve_app.decode import Pixels
from serve_app.engine.network import Top
from serve_app.errors import RequestError
from serve_app.jpeg import Jpeg
from serve_app.model_spec import Geometry

STAGES = ("copy_in", "forward", "copy_out")
WARM_UP_AGAIN_BELOW_S = 0.5
"""Of a batch's first run, which takes longer than the next: where it is long itself, it says enough."""


@dataclass(frozen=True)
class Normalised:
    """A crop that is scaled to the network's mean and std already: it goes to the network as it is."""

    pixels: npt.NDArray[np.float32]
    """float32 (3, crop_size, crop_size), RGB"""


Item = Pixels | Jpeg | Normalised
"""A decoded crop, what the device is to decode (`decode: gpu`), or what a client has normalised."""


@dataclass(frozen=True)
class Prediction:
    """One image's top classes, best first, its logits, and the execution it was part of."""

    class_ids: npt.NDArray[np.int64]
    """int64 (k,)"""
    scores: npt.NDArray[np.float32]
    """float32 (k,), softmax probabilities"""
    logits: npt.NDArray[np.float32]
    """float32 (num_classes,), by class id: a row of its batch's, which is kept for as long as this is"""
    batch_size: int
    """Images in the execution, without padding."""
    device_ms: float
    """From the assembled list of images to results in host memory: with their decoding where the device does that,
    and with what is left of the batch before it."""
    device_started: float
    """When that began, as perf_counter() says: the same for all of an execution."""


class NotANumber(RuntimeError):
    """The network's answer to an image is none: NaN, which JSON has no word for, and no top class to rely on."""


Outcome = Prediction | RequestError | NotANumber
"""An image's prediction, or why the device could not decode it, or that what it answered is no number."""


class Execution:
    """A batch that is on the device, or done."""

    def __init__(
        self,
        num_images: int,
        started: float,
        collect: Callable[[], Top],
        errors: Mapping[int, RequestError] | None = None,
    ) -> None:
        self._num_images = num_images
        self._started = started
        self._collect = collect
        self._errors = errors or {}

    def results(self) -> list[Outcome]:
        """One for each image, in order, once the device is done; to be called once, in any thread."""
        top = self._collect()
        device_ms = (perf_counter() - self._started) * 1e3
        scores, class_ids, logits = (part.numpy()[: self._num_images] for part in top)
        # Of k scores, not of all logits: one that is not finite makes NaN of each score of its row, or is -inf.
        finite = np.isfinite(scores).all(axis=1)
        return [
            self._errors.get(i)
            or (
                Prediction(class_ids[i], scores[i], logits[i], self._num_images, device_ms, self._started)
                if finite[i]
                else NotANumber("the network's answer is no number")
            )
            for i in range(self._num_images)
        ]


class Engine(ABC):
    """A network on a device. Results may be collected in another thread than the one that launched them."""

    device: str
    precision: str
    is_compiled = False
    max_in_flight = 1
    """Batches that may be launched and not collected at once."""
    num_drivers = 1
    """Threads that may launch batches at once. Alone the first does, which also starts and warms up the engine."""

    def __init__(self, top_k: int) -> None:
        self._top_k = top_k
        self._sizes: list[int] = []  # warmed, ascending
        self._in_use: Sequence[int] = ()

    def start(self) -> None:
        """Called once, first, in the thread that drives the engine."""
        return

    @abstractmethod
    def _launch(self, images: Sequence[Item], bucket: int) -> Execution:
        """`images`, padded to a batch of `bucket`, which is warm or being warmed up."""

    @abstractmethod
    def profile(self, images: Sequence[Item]) -> dict[str, float]:
        """One execution as `infer` does it, in milliseconds of the device's clock: copy_in, forward, copy_out."""

    @abstractmethod
    def _blank(self) -> Item:
        """An image of the network's geometry, to warm up with."""

    def _prepare(self, size: int) -> None:
        """What is to be done once before the first batch of `size` runs."""
        return

    def cold_sizes(self, buckets: Sequence[int]) -> list[int]:
        """Those of `buckets` that have not run yet."""
        return [size for size in buckets if size not in self._sizes]

    def warm_up(self, size: int) -> float:
        """Run a blank batch of `size`: from then on `launch` may use it. The seconds that it takes, warm.

        Raises NotANumber for a network that does not answer with numbers.
        """
        self._prepare(size)
        seconds = self._blank_run(size)
        if seconds < WARM_UP_AGAIN_BELOW_S or not self._sizes:  # the very first one loads libraries
            seconds = self._blank_run(size)
        self._sizes = sorted({*self._sizes, size})
        return seconds

    def use(self, buckets: Sequence[int]) -> None:
        """From now on batches are padded to the next of these, which are warm; ascending."""
        self._in_use = buckets

    def launch(self, images: Sequence[Item]) -> Execution:
        """One execution. An engine with one batch in flight returns when it is done.

        `images`: at most the largest warmed size of them.
        """
        return self._launch(images, self._bucket(len(images)))

    def infer(self, images: Sequence[Item]) -> list[Prediction]:
        """One prediction per image, in order, from one execution. Raises what the first that has none has instead."""
        return [_prediction(outcome) for outcome in self.launch(images).results()]

    def _blank_run(self, size: int) -> float:
        started = perf_counter()
        for outcome in self._launch([self._blank()] * size, size).results():
            _prediction(outcome)  # a device that answers nonsense is not ready, and not well
        return perf_counter() - started

    def _bucket(self, num_images: int) -> int:
        # A batch that was formed just before other buckets came into use may be larger than they are.
        return next(size for size in (*self._in_use, *self._sizes) if size >= num_images)


class StagedEngine(Engine):
    """An engine of three stages, one after another."""

    @abstractmethod
    def _copy_in(self, images: Sequence[Any], bucket: int) -> torch.Tensor:
        """What `_forward` takes, on the device, padded at its end.

        uint8 (bucket, crop_size, crop_size, 3); of the network's dtype, (bucket, 3, crop_size, crop_size), where there
        is a Normalised among the images.
        """

    @abstractmethod
    def _forward(self, pixels: torch.Tensor) -> Top:
        """Top of `bucket` rows, on the device."""

    def _copy_out(self, top: Top) -> Top:
        """The same on the CPU, done."""
        return top

    def _launch(self, images: Sequence[Item], bucket: int) -> Execution:
        started = perf_counter()
        top = self._copy_out(self._forward(self._copy_in(images, bucket)))
        return Execution(len(images), started, lambda: top)

    def profile(self, images: Sequence[Item]) -> dict[str, float]:
        marks = [perf_counter()]
        pixels = self._copy_in(images, self._bucket(len(images)))
        marks.append(perf_counter())
        top = self._forward(pixels)
        marks.append(perf_counter())
        self._copy_out(top)
        marks.append(perf_counter())
        return {stage: (marks[i + 1] - marks[i]) * 1e3 for i, stage in enumerate(STAGES)}


def _prediction(outcome: Outcome) -> Prediction:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def set_apart(images: Sequence[Item], blank: Pixels) -> tuple[Sequence[Any], dict[int, Normalised]]:
    """Pixels and Jpegs, with `blank` in the place of each Normalised; and these, by their places."""
    normalised = {i: image for i, image in enumerate(images) if isinstance(image, Normalised)}
    if not normalised:
        return images, normalised
    return [blank if i in normalised else image for i, image in enumerate(images)], normalised


def blank(geometry: Geometry) -> Pixels:
    """uint8 (crop_size, crop_size, 3), mid-gray."""
    return np.full((geometry.crop_size, geometry.crop_size, 3), 128, dtype=np.uint8)
