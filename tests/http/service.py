"""A service without Ray, a model or a decoder: what an image is worth follows from its bytes."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serve_app.config import Args
from serve_app.decode import Pixels
from serve_app.engine.base import Normalised, Prediction
from serve_app.errors import Unauthorized
from serve_app.protocol.signature import Signature
from serve_app.protocol.statistics import Statistics
from serve_app.scheduler import Priority, Terms
from serve_app.service import Classification

CROP_SIZE = 4
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass
class FakeService:
    """Answers the image `n` (a number as text) with class n first, or raises what `raises` says of its bytes.
    Of pixels n is the sum, modulo 10; of normalised ones rounded.

    Decoding takes n ms, queueing 2n, the device 3n.
    """

    args: Args = field(default_factory=Args)
    ready: bool = True
    default_top_k: int = 2
    max_top_k: int = len(LABELS)
    model_name: str = "digits"
    labels: tuple[str, ...] = LABELS
    replica: str = "r-1"
    raises: Mapping[bytes, Exception] = field(default_factory=dict)
    refuses: Exception | None = None
    token: str | None = None
    """The only one with which one may call."""
    counts_up: bool = False
    """Whether the server's own deadlines are 1, 2, ... as often as it is asked."""
    times_asked: int = 0
    asked: list[Terms] = field(default_factory=list)
    signature: Signature = field(default_factory=lambda: Signature(CROP_SIZE, len(LABELS)))
    statistics: Statistics = field(default_factory=Statistics)
    seen: list[bytes | Pixels | Normalised] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: list[bytes] = field(default_factory=list)

    def metadata(self) -> dict[str, Any]:
        batching = {"max_batch_size": 16, "batch_wait_timeout_s": 0.0}
        return {"name": self.model_name, "device": "fake", "batching": batching}

    def authorize(self, authorization: str | None) -> None:
        if self.token is not None and authorization != f"Bearer {self.token}":
            raise Unauthorized("a token is needed")

    def terms(self, timeout_s: float | None, priority: Priority) -> Terms:
        self.times_asked += 1
        if timeout_s is None and self.counts_up:
            return Terms(float(self.times_asked), priority)
        return Terms(math.inf if timeout_s is None else timeout_s, priority)

    def check_admission(self, terms: Terms) -> None:
        if self.refuses:
            raise self.refuses

    async def classify(self, image: bytes | Pixels | Normalised, terms: Terms) -> Classification:
        self.seen.append(image)
        self.asked.append(terms)
        if isinstance(image, bytes):
            if error := self.raises.get(image):
                raise error
            if image == b"hang":
                await self._hang(image)
        best = _number(image)
        class_ids = (best + np.arange(len(LABELS), dtype=np.int64)) % len(LABELS)
        scores = np.float32(0.5) ** np.arange(1, len(LABELS) + 1, dtype=np.float32)
        logits = np.empty(len(LABELS), np.float32)
        logits[class_ids] = np.log(scores)
        return Classification(Prediction(class_ids, scores, logits, 1, 3.0 * best, 0.0), 1.0 * best, 2.0 * best)

    async def _hang(self, data: bytes) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(data)
            raise


def _number(image: bytes | Pixels | Normalised) -> int:
    if isinstance(image, bytes):
        return int(image)
    if isinstance(image, Normalised):
        return round(float(image.pixels.sum())) % len(LABELS)
    return int(image.sum()) % len(LABELS)
