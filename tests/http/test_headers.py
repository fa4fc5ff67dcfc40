import re

import pytest

from serve_app.errors import UnreadableImage
from serve_app.scheduler import Priority, Terms
from tests.http.client import classify, client, failing, refusal
from tests.http.service import FakeService

PLAIN_IDS = ["a", "0b1c", "a.b_c-d:e", "x" * 128]
HOSTILE_IDS = ["", " ", "a b", "a/b", "<script>", "x" * 129, "ä".encode("latin-1"), "a\tb", '"', "{}"]


@pytest.mark.parametrize("given", PLAIN_IDS)
def test_a_plain_request_id_is_echoed(given: str) -> None:
    assert classify(x_request_id=given).json()["id"] == given


@pytest.mark.parametrize("given", HOSTILE_IDS)
def test_a_hostile_request_id_is_replaced(given: str | bytes) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", classify(x_request_id=given).json()["id"])


def test_requests_without_an_id_get_one_each() -> None:
    both = client()
    first, second = (both.post("/v1/classify", content=b"7").json()["id"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize("images", [[b"7"], [b"2", b"9", b"bad"], [b"bad", b"bad"]], ids=repr)
def test_the_server_timing_header_says_what_the_body_says(images: list[bytes]) -> None:
    service = failing(UnreadableImage("cut short")) if len(images) > 1 else FakeService()
    files = [("file", (str(i), image)) for i, image in enumerate(images)]
    response = client(service).post("/v1/classify", files=files)
    header = response.headers["server-timing"]
    assert re.fullmatch(r"decode;dur=[0-9.]+, queue;dur=[0-9.]+, device;dur=[0-9.]+", header)
    stages = (entry.split(";dur=") for entry in header.split(", "))
    assert {name: float(ms) for name, ms in stages} == response.json()["timings_ms"]


def test_without_headers_a_request_is_interactive_and_the_server_sets_its_deadline() -> None:
    service = FakeService()
    assert classify(service).status_code == 200
    assert service.asked == [Terms()]


@pytest.mark.parametrize(
    ("text", "seconds"), [("0.25", 0.25), ("3", 3.0), (".5", 0.5), ("2.", 2.0), ("999999999", 999_999_999)]
)
def test_a_request_names_its_deadline_and_priority(text: str, seconds: float) -> None:
    service = FakeService()
    assert classify(service, x_request_timeout_seconds=text, x_request_priority="Batch").status_code == 200
    assert service.asked == [Terms(seconds, Priority.BATCH)]


@pytest.mark.parametrize("text", ["", "0", "0.0", "-1", "nan", "inf", "1e3", "1s", "1,5", "0x1", "1" * 400, "١"])
def test_a_deadline_that_is_no_positive_number_is_refused(text: str) -> None:
    service = FakeService()
    response = classify(service, x_request_timeout_seconds=text.encode())
    assert refusal(response) == (400, "bad_parameter")
    assert "x-request-timeout-seconds" in response.json()["error"]
    assert service.seen == []


@pytest.mark.parametrize("text", ["", "high", "0", "interactive, batch"])
def test_an_unknown_priority_is_refused_with_those_that_there_are(text: str) -> None:
    response = classify(x_request_priority=text)
    assert refusal(response) == (400, "bad_parameter")
    assert "interactive, batch" in response.json()["error"]
