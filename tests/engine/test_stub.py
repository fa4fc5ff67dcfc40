from collections.abc import Sequence

import numpy as np
import pytest

from serve_app.config import Stub
from serve_app.decode import Pixels
from serve_app.engine.base import Item, Prediction
from serve_app.engine.stub import StubEngine
from serve_app.model_spec import Geometry
from tests.engine.answers import assert_logits_are_those_of_the_scores, normalised

NUM_CLASSES = 10
NO_TIME = Stub(base_ms=0, per_image_ms=0)
GEOMETRY = Geometry(mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 1))


def image(value: int) -> Pixels:
    """Its pixels sum up to `value`."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0, 0] = (value, 0, 0)
    return pixels


def infer(images: Sequence[Item], times: Stub = NO_TIME, top_k: int = 4, warm: int = 16) -> list[Prediction]:
    engine = StubEngine(times, NUM_CLASSES, top_k, GEOMETRY)
    engine.warm_up(warm)
    return engine.infer(images)


def test_the_answer_follows_from_the_pixels() -> None:
    values = [3, 3, 14, 0, 255]
    best = [int(prediction.class_ids[0]) for prediction in infer([image(value) for value in values])]
    assert best == [value % NUM_CLASSES for value in values]


def test_an_answer_does_not_depend_on_the_batch() -> None:
    images = [image(value) for value in range(16)]
    alone = [infer([one])[0].class_ids.tolist() for one in images]
    assert [prediction.class_ids.tolist() for prediction in infer(images)] == alone


def test_large_images_do_not_overflow() -> None:
    white = np.full((3000, 3000, 3), 255, np.uint8)
    assert infer([white])[0].class_ids[0] == 3000 * 3000 * 3 * 255 % NUM_CLASSES


def test_there_are_k_classes_best_first() -> None:
    prediction = infer([image(8)], top_k=4)[0]
    assert prediction.class_ids.tolist() == [8, 9, 0, 1]
    of_all_classes = 1 - 0.5**NUM_CLASSES
    np.testing.assert_allclose(prediction.scores * of_all_classes, [0.5, 0.25, 0.125, 0.0625], rtol=1e-6)


@pytest.mark.parametrize("top_k", [1, 4, NUM_CLASSES])
def test_logits_are_those_of_the_scores(top_k: int) -> None:
    answers = infer([image(value) for value in (0, 3, 9)], top_k=top_k)
    assert_logits_are_those_of_the_scores(answers, NUM_CLASSES)
    assert len({prediction.logits.tobytes() for prediction in answers}) == 3


def test_a_normalised_image_gets_the_class_of_its_pixels() -> None:
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(8)]
    every_value = [np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)]
    images = noise + every_value
    mixed = [normalised(one, GEOMETRY) if i % 3 else one for i, one in enumerate(images)]
    expected = [prediction.class_ids.tolist() for prediction in infer(images)]
    assert [prediction.class_ids.tolist() for prediction in infer(mixed)] == expected


def test_a_batch_has_its_size_without_padding() -> None:
    assert [prediction.batch_size for prediction in infer([image(1)] * 3, warm=16)] == [3, 3, 3]


def test_a_batch_takes_the_times_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("serve_app.engine.stub.time.sleep", slept.append)
    infer([image(0)] * 5, Stub(base_ms=8, per_image_ms=0.5))
    assert slept[-1] == pytest.approx(0.0105)
