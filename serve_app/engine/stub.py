"""A device that only takes its time, and fails when told to: for tests of everything but the model.

Its answer follows from the pixels, so a test sees whether each caller got its own.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from serve_app.config import Stub
from serve_app.decode import Pixels
from serve_app.engine.base import StagedEngine
from serve_app.engine.network import Top


class StubEngine(StagedEngine):
    def __init__(self, stub: Stub, num_classes: int, top_k: int) -> None:
        super().__init__(top_k)
        self.device = "stub"
        self.precision = "none"
        self._stub = stub
        self._num_classes = num_classes

    def _blank(self) -> Pixels:
        return np.zeros((1, 1, 3), dtype=np.uint8)

    def _copy_in(self, images: Sequence[Any], bucket: int) -> torch.Tensor:
        """int64 (number of images,): each one's best class. There is no padding, for none would cost time."""
        return torch.tensor([int(image.sum(dtype=np.int64)) % self._num_classes for image in images])

    def _forward(self, pixels: torch.Tensor) -> Top:
        time.sleep((self._stub.base_ms + self._stub.per_image_ms * len(pixels)) / 1e3)
        if self._stub.raise_on_class in pixels.tolist():
            raise RuntimeError(f"this stub device fails on images of class {self._stub.raise_on_class}")
        if self._stub.hang_on_class in pixels.tolist():
            threading.Event().wait()
        class_ids = (pixels[:, None] + torch.arange(self._top_k)) % self._num_classes
        scores = (0.5 ** torch.arange(1, self._top_k + 1)).expand(len(pixels), -1)
        return scores, class_ids
