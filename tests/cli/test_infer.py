"""`serve-app bench infer` beside a service that was never started: what it sends, says and returns."""

import asyncio
import json
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from serve_app.bench.infer import MODES, NATIVE, ONE_EACH, TOGETHER, Rounds
from serve_app.cli import main
from tests.bench import server
from tests.bench.server import Answer, Reply

MODEL = Answer(body=b'{"models": ["digits"]}')
IMAGES = {"a.png": b"3", "b.png": b"5"}
"""Their bytes are their class."""


def answer(body: bytes) -> Answer:
    """As the service: JSON and behind it BYTES is an inference request, whatever else is an image."""
    if not body.startswith(b"{"):
        classes = [{"class_id": int(body)}]
        return Answer(body=json.dumps({"images": [{"classes": classes}]}).encode())
    head, end = json.JSONDecoder().raw_decode(body.decode())
    (count, one) = head["inputs"][0]["shape"]
    assert one == 1
    elements, at = [], end
    for _ in range(count):
        (length,) = struct.unpack_from("<I", body, at)
        elements.append(body[at + 4 : at + 4 + length])
        at += 4 + length
    assert at == len(body) == end + head["inputs"][0]["parameters"]["binary_data_size"]
    outputs = [{"name": "class_ids", "data": [int(element) for element in elements]}]
    return Answer(body=json.dumps({"outputs": outputs}).encode())


def measured(tmp_path: Path, reply: Reply, *options: str, readiness: Answer = MODEL) -> Result:
    for name, data in IMAGES.items():
        (tmp_path / name).write_bytes(data)
    with server.running(reply, readiness) as url:
        arguments = [
            "bench",
            "infer",
            "--url",
            url,
            "--images",
            str(tmp_path),
            "--count",
            "4",
            "--rounds",
            "3",
            *options,
        ]
        return CliRunner().invoke(main, arguments)


async def well(body: bytes) -> Answer:
    return answer(body)


async def slow_inference(body: bytes) -> Answer:
    if body.startswith(b"{"):
        await asyncio.sleep(0.2)
    return answer(body)


async def wrong_inference(body: bytes) -> Answer:
    return Answer(body=answer(body).body.replace(b"5", b"6")) if body.startswith(b"{") else answer(body)


async def refused(body: bytes) -> Answer:
    return server.REFUSAL if body.startswith(b"{") else answer(body)


def test_the_report_has_every_mode_and_both_checks(tmp_path: Path) -> None:
    report = json.loads(measured(tmp_path, well, "--json").stdout)
    assert report["num_images"] == 4
    assert {mode: len(seconds) for mode, seconds in report["seconds"].items()} == dict.fromkeys(MODES, 3)
    assert all(per_s > 0 for per_s in report["images_per_s"].values())
    assert [check["check"] for check in report["checks"]] == [f"{ONE_EACH} / native", f"{TOGETHER} / native"]


def test_slower_inference_requests_miss_the_bar(tmp_path: Path) -> None:
    result = measured(tmp_path, slow_inference)
    assert result.exit_code == 1
    assert all(mode in result.stdout for mode in MODES)


@pytest.mark.parametrize(
    ("reply", "words"), [(wrong_inference, "2 of 4 images have another first class"), (refused, "answers 503")]
)
def test_what_is_no_answer_or_another_one_is_not_measured(tmp_path: Path, reply: Reply, words: str) -> None:
    result = measured(tmp_path, reply)
    assert (result.exit_code, words in result.stderr) == (2, True)


def test_a_service_that_is_not_ready_is_not_measured(tmp_path: Path) -> None:
    result = measured(tmp_path, well, readiness=Answer(503, b"{}"))
    assert (result.exit_code, "is not ready" in result.stderr) == (2, True)


def test_a_ratio_is_of_rounds_not_of_medians() -> None:
    rounds = Rounds(10, {NATIVE: [1.0, 2.0, 9.0], ONE_EACH: [2.0, 2.0, 3.0], TOGETHER: [0.5, 1.0, 3.0]})
    assert rounds.per_s(NATIVE) == 5
    assert rounds.ratios(ONE_EACH) == [0.5, 1.0, 3.0]
    assert [check.ok for check in rounds.checks()] == [True, True]
    slower = Rounds(10, {NATIVE: [1.0, 1.0, 1.0], ONE_EACH: [1.1, 1.1, 0.9], TOGETHER: [1.0, 1.0, 1.0]})
    assert [check.ok for check in slower.checks()] == [False, True]
