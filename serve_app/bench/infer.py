"""The same images as native requests and as inference requests of the Open Inference Protocol, in turns.

The client is one process with a connection for each request in flight: what it costs counts alike for both.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from serve_app.bench.bars import Check
from serve_app.protocol.tensor import BYTES, Tensor, to_bytes
from serve_app.tokens import authorization

NATIVE, ONE_EACH, TOGETHER = "native, one each", "infer, one each", "infer, all in one"
MODES = (NATIVE, ONE_EACH, TOGETHER)
BAR = 1.0
"""Images/s of an inference request over those of native ones: no slower."""
HEADER_LENGTH = "Inference-Header-Content-Length"

ClassIds = list[int]


class InferError(RuntimeError):
    """An answer that is none, or another one than the native request's; the message says which."""


@dataclass
class Rounds:
    """Seconds for all images, by mode, a round each; in a round the modes follow one another."""

    num_images: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {mode: [] for mode in MODES})

    def per_s(self, mode: str) -> float:
        """Images/s, of the median round."""
        return self.num_images / statistics.median(self.seconds[mode])

    def ratios(self, mode: str) -> list[float]:
        """Images/s over the native ones', round by round."""
        return [native / other for native, other in zip(self.seconds[NATIVE], self.seconds[mode], strict=True)]

    def checks(self) -> list[Check]:
        return [
            Check(f"{mode} / native", statistics.median(self.ratios(mode)), ">=", BAR, note=self._spread(mode))
            for mode in (ONE_EACH, TOGETHER)
        ]

    def _spread(self, mode: str) -> str:
        ratios = self.ratios(mode)
        return f"median of {len(ratios)}, {min(ratios):.2f} to {max(ratios):.2f}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "num_images": self.num_images,
            "images_per_s": {mode: round(self.per_s(mode), 2) for mode in MODES},
            "seconds": {mode: [round(s, 5) for s in seconds] for mode, seconds in self.seconds.items()},
            "checks": [check.as_dict() for check in self.checks()],
        }


async def measure(
    url: str, images: Sequence[bytes], rounds: int, timeout_s: float, done: Callable[[str], None]
) -> Rounds:
    """Every mode once unmeasured, then `rounds` times in turns. `done` is told of each round.

    Raises InferError where the classes of two modes differ, or where an answer is an error.
    """
    found = Rounds(len(images))
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout, headers=authorization()) as session:
        client = _Client(session, await _model(session), images)
        for number in range(-1, rounds):
            turn = number % len(MODES)
            answers = {}
            for mode in (*MODES[turn:], *MODES[:turn]):
                started = time.perf_counter()
                answers[mode] = await client.send[mode]()
                if number >= 0:
                    found.seconds[mode].append(time.perf_counter() - started)
            _check_same(answers)
            done("warm-up" if number < 0 else f"round {number + 1}")
    return found


def _check_same(answers: dict[str, ClassIds]) -> None:
    for mode in MODES:
        differing = sum(a != b for a, b in zip(answers[NATIVE], answers[mode], strict=True))
        if differing:
            raise InferError(f"{mode}: {differing} of {len(answers[mode])} images have another first class")


async def _model(session: aiohttp.ClientSession) -> str:
    (name,) = (await _json(await session.get("/v2/models")))["models"]
    return str(name)


class _Client:
    def __init__(self, session: aiohttp.ClientSession, model: str, images: Sequence[bytes]) -> None:
        self._session = session
        self._infer = f"/v2/models/{model}/infer"
        self._images = images
        self.send: dict[str, Callable[[], Coroutine[Any, Any, ClassIds]]] = {
            NATIVE: self._native,
            ONE_EACH: self._one_each,
            TOGETHER: lambda: self._inferred(images),
        }

    async def _native(self) -> ClassIds:
        return await asyncio.gather(*(self._classified(image) for image in self._images))

    async def _one_each(self) -> ClassIds:
        found = await asyncio.gather(*(self._inferred([image]) for image in self._images))
        return [class_id for ids in found for class_id in ids]

    async def _classified(self, image: bytes) -> int:
        answer = await _json(await self._session.post("/v1/classify?top_k=1", data=image))
        return int(answer["images"][0]["classes"][0]["class_id"])

    async def _inferred(self, images: Sequence[bytes]) -> ClassIds:
        """The first class of each, from one request."""
        body, headers = request(images)
        answer = await _json(await self._session.post(self._infer, data=body, headers=headers))
        return [int(class_id) for class_id in answer["outputs"][0]["data"]]


def request(images: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an inference request for the first class of each image."""
    tensor = Tensor("image", BYTES, (len(images), 1), list(images))
    raw = to_bytes(tensor)
    head = {
        "parameters": {"top_k": 1},
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": tensor.shape,
                "parameters": {"binary_data_size": len(raw)},
            }
        ],
        "outputs": [{"name": "class_ids"}],
    }
    text = json.dumps(head).encode()
    return text + raw, {HEADER_LENGTH: str(len(text)), "Content-Type": "application/octet-stream"}


async def _json(response: aiohttp.ClientResponse) -> Any:
    async with response:
        if response.status != 200:
            raise InferError(f"{response.url.path} answers {response.status}: {(await response.text())[:300]}")
        return await response.json(content_type=None)
