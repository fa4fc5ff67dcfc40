"""Images whose answer is known: asked once in quiet, and whether an answer later is the same."""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from serve_app.tokens import authorization

SCORE_TOLERANCE = 0.05
"""Batches of other sizes round otherwise: in fp32 by 1e-4 at most, in bf16 by what it may differ from fp32."""
WRONG_CLASS, WRONG_SCORE = "wrong class", "wrong score"


class Unknown(RuntimeError):
    """No answer that others can be held against; the message says what came."""


@dataclass(frozen=True)
class Known:
    """The first class of an image, and its score."""

    class_id: int
    score: float

    def fault(self, body: Any) -> str | None:
        """What is wrong with the answer of that JSON to the same image, or None."""
        try:
            first = body["images"][0]["classes"][0]
            class_id, score = first["class_id"], float(first["score"])
        except (TypeError, LookupError, ValueError):
            return WRONG_CLASS
        if class_id != self.class_id:
            return WRONG_CLASS
        return None if abs(score - self.score) <= SCORE_TOLERANCE else WRONG_SCORE


@dataclass(frozen=True)
class Reference:
    """What a service answers in quiet."""

    model: str
    answers: tuple[Known | None, ...]
    """To each image; None: its first two classes are too close for the order to be kept whatever the batch."""

    @property
    def num_known(self) -> int:
        return sum(answer is not None for answer in self.answers)


def reference(url: str, images: Sequence[bytes], timeout_s: float) -> Reference:
    """Each image alone, one after the other. Raises Unknown, also where not one class is clear."""
    bodies = [_ask(url, image, timeout_s) for image in images]
    try:
        found = Reference(str(bodies[0]["model_name"]), tuple(_known(body) for body in bodies))
    except (TypeError, LookupError, ValueError) as error:
        raise Unknown(f"{url} answers in another format than ours: {error!r}") from None
    if not found.num_known:
        raise Unknown("no image is clearly of one class, so no answer could be told from a wrong one: give others")
    return found


def _known(body: Any) -> Known | None:
    first, *others = body["images"][0]["classes"]
    if others and first["score"] - others[0]["score"] <= 2 * SCORE_TOLERANCE:
        return None
    return Known(int(first["class_id"]), float(first["score"]))


def _ask(url: str, image: bytes, timeout_s: float) -> Any:
    request = urllib.request.Request(f"{url}?top_k=2", data=image, headers=authorization())  # noqa: S310 - ours
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Unknown(
            f"a good image was answered with {error.code}: {error.read(300).decode(errors='replace')}"
        ) from None
    except (OSError, ValueError, HTTPException) as error:
        raise Unknown(f"a good image was not answered: {error}") from None
