"""A device that only takes its time, and fails when told to: for tests of everything but the model.

Its answer follows from the pixels, so a test sees whether each caller got its own.
"""

import threading
import time
from collections.abc import Sequence
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from serve_app.config import Stub
from serve_app.decode import Pixels
from serve_app.engine.base import Normalised, StagedEngine
from serve_app.engine.network import Top
from serve_app.model_spec import Geometry


class StubEngine(StagedEngine):
    def __init__(self, stub: Stub, num_classes: int, top_k: int, geometry: Geometry) -> None:
        super().__init__(top_k)
        self.device = "stub"
        self.precision = "none"
        self._stub = stub
        self._num_classes = num_classes
        self._mean, self._std = (np.array(values).reshape(3, 1, 1) for values in (geometry.mean, geometry.std))
        self._logits = -log(2) * torch.arange(num_classes)
        """float32 (num_classes,), best first: each class half as likely as the one before it."""
        self._scores = self._logits.softmax(dim=0)[:top_k]

    def _blank(self) -> Pixels:
        return np.zeros((1, 1, 3), dtype=np.uint8)

    def _copy_in(self, images: Sequence[Any], bucket: int) -> torch.Tensor:
        """int64 (number of images,): each one's best class. There is no padding, for none would cost time."""
        return torch.tensor([self._class(image) for image in images])

    def _class(self, image: Pixels | Normalised) -> int:
        """By the sum of its uint8 pixels, which a Normalised had once."""
        pixels = self._denormalised(image.pixels) if isinstance(image, Normalised) else image
        return int(pixels.sum(dtype=np.int64)) % self._num_classes

    def _denormalised(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        levels: npt.NDArray[np.int64] = np.rint((pixels * self._std + self._mean) * 255).astype(np.int64)
        return levels

    def _forward(self, pixels: torch.Tensor) -> Top:
        time.sleep((self._stub.base_ms + self._stub.per_image_ms * len(pixels)) / 1e3)
        if self._stub.raise_on_class in pixels.tolist():
            raise RuntimeError(f"this stub device fails on images of class {self._stub.raise_on_class}")
        if self._stub.hang_on_class in pixels.tolist():
            threading.Event().wait()
        class_ids = (pixels[:, None] + torch.arange(self._top_k)) % self._num_classes
        ranks = (torch.arange(self._num_classes) - pixels[:, None]) % self._num_classes
        return Top(self._scores.expand(len(pixels), -1), class_ids, self._logits[ranks])
