"""The labelled photographs of the shared data, and how far two engines agree on them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ImageOps

from serve_app.config import Args
from serve_app.decode import Decoder, Pixels, resize_and_crop
from serve_app.engine import Engine, Item, Outcome
from serve_app.model_spec import Geometry
from serve_app.weights import Checkpoint, load
from tests.engine.answers import best, predictions

TIE = 0.01
"""Two classes whose scores are nearer to each other: rounding may name either first."""
BATCH = 8


def resnet18(shared_data: Path) -> Checkpoint:
    return load(Args(weights=str(shared_data / "weights" / "resnet18.pth"), arch="resnet18"))


def photos(shared_data: Path) -> dict[str, bytes]:
    """The 63, by name."""
    folder = shared_data / "images" / "labelled"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def with_a_label(shared_data: Path) -> set[str]:
    """Of the 63 the 41 whose class is known."""
    return {Path(label["file"]).name for label in json.loads((shared_data / "images" / "labels.json").read_text())}


def views(data: bytes, geometry: Geometry) -> list[Pixels]:
    """Four crops of a photo, the first as it is served: with 63 images one tie would be more than 1 %."""
    image = Decoder(geometry, max_image_pixels=50_000_000).read(data)
    width, height = image.size
    parts = (
        image,
        ImageOps.mirror(image),
        image.crop((0, 0, width * 9 // 10, height * 9 // 10)),
        image.crop((width // 10, height // 10, width, height)),
    )
    return [np.asarray(resize_and_crop(part, geometry)) for part in parts]


def answers(engine: Engine, items: Sequence[Item]) -> list[Outcome]:
    for size in engine.cold_sizes([BATCH]):
        engine.warm_up(size)
    batches = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
    return [outcome for batch in batches for outcome in engine.launch(batch).results()]


@dataclass(frozen=True)
class Agreement:
    """In how many images two engines name the same class first."""

    images: int
    same: int
    decided: int
    """Images without a tie in the reference."""
    same_of_decided: int

    @property
    def share(self) -> float:
        return self.same / self.images

    @property
    def share_of_decided(self) -> float:
        return self.same_of_decided / self.decided


def agreement(reference: Sequence[Outcome], others: Sequence[Outcome]) -> Agreement:
    """`reference`: with two classes at least."""
    is_same = [a == b for a, b in zip(best(reference), best(others), strict=True)]
    is_decided = [bool(p.scores[0] - p.scores[1] > TIE) for p in predictions(reference)]
    same_of_decided = sum(same for same, decided in zip(is_same, is_decided, strict=True) if decided)
    return Agreement(len(is_same), sum(is_same), sum(is_decided), same_of_decided)
