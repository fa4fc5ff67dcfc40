"""Answers that are known: learnt in quiet, and told from wrong ones by the load generator."""

import json
from collections import Counter
from typing import Any

import pytest

from serve_app.bench.generator import Generator, Run
from serve_app.bench.known import SCORE_TOLERANCE, WRONG_CLASS, WRONG_SCORE, Known, Unknown, reference
from tests.bench import server
from tests.bench.server import Answer

IMAGES = (b"3", b"5")


def body(class_id: int, score: float = 0.9, second: float = 0.05) -> dict[str, Any]:
    classes = [{"class_id": class_id, "score": score}, {"class_id": class_id + 1, "score": second}]
    return {"model_name": "digits", "images": [{"classes": classes}]}


def answer(class_id: int, *scores: float) -> Answer:
    return Answer(body=json.dumps(body(class_id, *scores)).encode())


async def by_its_bytes(image: bytes) -> Answer:
    return answer(int(image))


def test_each_image_is_asked_alone() -> None:
    with server.running(by_its_bytes) as url:
        found = reference(url, IMAGES, 5)
    assert (found.model, found.answers, found.num_known) == ("digits", (Known(3, 0.9), Known(5, 0.9)), 2)


async def close(image: bytes) -> Answer:
    return answer(3) if image == b"3" else answer(5, 0.4, 0.4 - 2 * SCORE_TOLERANCE + 0.01)


def test_of_an_image_whose_first_two_classes_are_close_nothing_is_known() -> None:
    with server.running(close) as url:
        assert reference(url, IMAGES, 5).answers == (Known(3, 0.9), None)
        with pytest.raises(Unknown, match="no image is clearly of one class"):
            reference(url, IMAGES[1:], 5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Answer(500, b"oh dear"), "answered with 500: oh dear"),
        (Answer(body=b"no JSON"), "was not answered"),
        (Answer(body=b"[]"), "another format"),
        (Answer(body=b'{"model_name": "m", "images": [{"error": "cut short"}]}'), "another format"),
    ],
)
def test_what_is_no_answer_ends_it(given: Answer, message: str) -> None:
    async def reply(_: bytes) -> Answer:
        return given

    with server.running(reply) as url, pytest.raises(Unknown, match=message):
        reference(url, IMAGES, 5)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (body(3), None),
        (body(3, 0.9 - SCORE_TOLERANCE + 0.001), None),
        (body(3, 0.9 + SCORE_TOLERANCE + 0.001), WRONG_SCORE),
        (body(3, float("nan")), WRONG_SCORE),
        (body(4), WRONG_CLASS),
        ({"images": []}, WRONG_CLASS),
        ({"images": [{"error": "cut short"}]}, WRONG_CLASS),
        (None, WRONG_CLASS),
    ],
)
def test_an_answer_is_held_against_the_known_one(given: object, fault: str | None) -> None:
    assert Known(3, 0.9).fault(given) == fault


@pytest.mark.parametrize(("known", "expected"), [((Known(3, 0.9), Known(6, 0.9)), 1), ((Known(3, 0.9), None), 0)])
def test_the_generator_tells_wrong_answers_from_right_ones(known: tuple[Known | None, ...], expected: int) -> None:
    sent: Counter[bytes] = Counter()

    async def reply(image: bytes) -> Answer:
        sent[image] += 1
        return await by_its_bytes(image)

    with server.running(reply) as url, Generator(IMAGES, 1) as generator:
        samples, _ = generator.run(Run(url, duration_s=0.5, rate_per_s=100, known=known))
    assert Counter(samples.status.tolist())[WRONG_CLASS] == expected * sent[b"5"]
    assert len(samples.status) == sent.total() > sent[b"5"] > 0
