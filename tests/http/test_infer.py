import asyncio
import base64
import itertools
import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.config import Args
from serve_app.decode import Pixels
from serve_app.engine.base import Normalised
from serve_app.errors import INTERNAL_CODE, Overloaded, RequestError, UnreadableImage
from serve_app.http import build_app
from serve_app.scheduler import Priority, Terms
from serve_app.service import Classification
from tests.http.asgi import Exchange
from tests.http.client import client, failing, refusal
from tests.http.service import LABELS, FakeService
from tests.protocol.values import MAX_MESSAGE, REQUESTS

PATH = "/v2/models/digits/infer"
LENGTH = "inference-header-content-length"
PIXELS: dict[str, Any] = {"name": "pixels", "datatype": "UINT8", "shape": [1, 4, 4, 3]}
CHUNK = b" " * 10


def files(*images: bytes, **fields: Any) -> dict[str, Any]:
    """A request for the class of each image, in base64."""
    data = [base64.b64encode(image).decode() for image in images]
    given = {"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": data}
    return {"inputs": [given], "outputs": [{"name": "class_ids"}], **fields}


def binary(head: Mapping[str, Any], behind: bytes) -> tuple[bytes, dict[str, str]]:
    """A body with a binary tensor, and its header."""
    text = json.dumps(head).encode()
    return text + behind, {LENGTH: str(len(text))}


def infer(
    request: Mapping[str, Any] | bytes,
    service: FakeService | None = None,
    headers: Mapping[str, str] | None = None,
    path: str = PATH,
) -> httpx2.Response:
    content = request if isinstance(request, bytes) else json.dumps(request).encode()
    response = client(service).post(path, content=content, headers=dict(headers or {}))
    assert len(response.json()["error"]) < MAX_MESSAGE if response.is_error else True
    return response


def exchange(request: Exchange, service: FakeService | None = None) -> Exchange:
    request.path = PATH
    return request.run(build_app(service or FakeService()))


def best(response: httpx2.Response) -> list[int]:
    """The first class of each image."""
    (output,) = response.json()["outputs"]
    assert output["name"] == "class_ids"
    found: list[int] = output["data"][:: output["shape"][1]]
    return found


@pytest.mark.parametrize("path", [PATH, "/v2/models/digits/versions/1/infer"])
def test_a_request_and_its_answer_in_json_in_full(path: str) -> None:
    request = {
        "id": "42",
        "inputs": [PIXELS | {"data": [7] + [0] * 47}],
        "outputs": [
            {"name": "labels"},
            {"name": "class_ids"},
            {"name": "probabilities", "parameters": {"classification": 2}},
        ],
        "parameters": {"top_k": 3},
    }
    response = infer(request, path=path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert LENGTH not in response.headers
    assert response.json() == {
        "id": "42",
        "model_name": "digits",
        "model_version": "1",
        "outputs": [
            {"name": "labels", "datatype": "BYTES", "shape": [1, 3], "data": ["seven", "eight", "nine"]},
            {"name": "class_ids", "datatype": "INT64", "shape": [1, 3], "data": [7, 8, 9]},
            {
                "name": "probabilities",
                "datatype": "BYTES",
                "shape": [1, 2],
                "data": ["0.500489:7:seven", "0.250244:8:eight"],
            },
        ],
    }


def test_without_outputs_all_of_them_come() -> None:
    outputs = infer({"inputs": [PIXELS | {"data": [0] * 48}]}).json()["outputs"]
    assert {output["name"]: output["shape"] for output in outputs} == {
        "class_ids": [1, 2],
        "labels": [1, 2],
        "probabilities": [1, 10],
        "logits": [1, 10],
    }


def test_tensors_go_binary_both_ways() -> None:
    head = {
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [2, 1], "parameters": {"binary_data_size": 10}}],
        "outputs": [{"name": "class_ids"}, {"name": "labels", "parameters": {"binary_data": False}}],
        "parameters": {"binary_data_output": True, "top_k": 1},
    }
    content, headers = binary(head, b"\1\0\0\0007\1\0\0\0003")
    response = client().post(PATH, content=content, headers=headers)
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers[LENGTH])
    assert int(response.headers["content-length"]) == len(response.content)
    ids, names = json.loads(response.content[:length])["outputs"]
    assert ids == {"name": "class_ids", "datatype": "INT64", "shape": [2, 1], "parameters": {"binary_data_size": 16}}
    assert names["data"] == ["seven", "three"]
    assert np.frombuffer(response.content[length:], "<i8").tolist() == [7, 3]


@pytest.mark.parametrize("number", [1, 32])
def test_as_many_images_as_allowed_are_answered_in_their_order(number: int) -> None:
    classes = [i % len(LABELS) for i in range(number)]
    assert best(infer(files(*(b"%d" % i for i in classes)))) == classes


def test_an_image_more_than_allowed_is_refused_before_any_is_classified() -> None:
    service = FakeService(args=Args(max_images=2))
    response = infer(files(b"1", b"2", b"3"), service)
    assert refusal(response) == (400, "bad_tensor")
    assert "1 to 2 images (max_images), not 3" in response.json()["error"]
    assert service.seen == []


def test_the_server_timing_header_is_that_of_the_slowest() -> None:
    response = infer(files(b"2", b"9", b"4"))
    assert response.headers["server-timing"] == "decode;dur=9.0, queue;dur=18.0, device;dur=27.0"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_inference_takes_only_post(method: str) -> None:
    response = client().request(method, PATH)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert method == "HEAD" or response.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path", ["/v2/models/other/infer", "/v2/models/digits/versions/2/infer", f"/v2/models/{'x' * 5000}/infer"]
)
def test_another_model_or_version_is_not_found_and_nothing_is_read(path: str) -> None:
    request = Exchange(itertools.repeat(CHUNK), path=path).run(build_app(FakeService()))
    assert (request.status, request.json["code"], request.pulled) == (404, "model_not_found", 0)


@pytest.mark.parametrize("error", RequestError.__subclasses__(), ids=lambda error: error.__name__)
def test_whatever_is_the_clients_fault_is_400_but_for_the_model_or_the_caller(error: type[RequestError]) -> None:
    response = infer(files(b"bad"), failing(error("what to do")))
    assert response.status_code == (error.status if error.status in (401, 404, 429, 503, 504) else 400)
    assert response.json() == {"error": "what to do", "code": error.code}


def test_the_first_image_that_fails_fails_the_request_with_its_number() -> None:
    response = infer(files(b"1", b"bad", b"2"), failing(UnreadableImage("cut short")))
    assert refusal(response) == (400, "unreadable_image")
    assert response.json()["error"] == "image 1 of 3 (counted from 0): cut short"


@pytest.mark.parametrize("images", [[b"bad"], [b"1", b"bad"]], ids=len)
def test_a_bug_is_a_bare_500_with_an_id_and_in_the_log_as_itself(
    images: Sequence[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    response = infer(files(*images), failing(RuntimeError("secret /path")), {"x-request-id": "req-1"})
    assert response.status_code == 500
    assert response.json().keys() == {"error", "code", "id"}
    assert (response.json()["code"], response.json()["id"]) == (INTERNAL_CODE, "req-1")
    assert "secret" not in response.text
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is RuntimeError


def test_before_it_is_ready_nothing_is_read() -> None:
    request = exchange(Exchange(itertools.repeat(CHUNK)), FakeService(ready=False))
    assert (request.status, request.json["code"], request.pulled) == (503, "not_ready", 0)


def test_admission_is_asked_before_the_body_is_read() -> None:
    service = FakeService(refuses=Overloaded("later", 1.5))
    request = exchange(Exchange(itertools.repeat(CHUNK)), service)
    assert (request.status, request.json, request.pulled) == (503, {"error": "later", "code": "overloaded"}, 0)
    assert (b"retry-after", b"2") in request.sent[0]["headers"]


def test_without_any_wish_a_request_is_interactive_and_the_server_sets_its_deadline() -> None:
    service = FakeService()
    infer(files(b"7"), service)
    assert service.asked == [Terms()]


@pytest.mark.parametrize(
    ("parameters", "headers", "terms"),
    [
        ({"timeout": 250_000}, {}, Terms(0.25)),
        ({"priority": 2}, {}, Terms(priority=Priority.BATCH)),
        ({"timeout": 250_000, "priority": 2}, {}, Terms(0.25, Priority.BATCH)),
        ({}, {"x-request-timeout-seconds": "5", "x-request-priority": "batch"}, Terms(5.0, Priority.BATCH)),
        ({"timeout": 250_000}, {"x-request-timeout-seconds": "5"}, Terms(0.25)),
        ({"timeout": 9_000_000}, {"x-request-timeout-seconds": "5"}, Terms(9.0)),
        ({"timeout": 0}, {"x-request-timeout-seconds": "5"}, Terms(5.0)),
        ({"timeout": 250_000}, {"x-request-priority": "batch"}, Terms(0.25, Priority.BATCH)),
        ({"priority": 2}, {"x-request-timeout-seconds": "5"}, Terms(5.0, Priority.BATCH)),
        ({"priority": 1}, {"x-request-priority": "batch"}, Terms(priority=Priority.INTERACTIVE)),
        ({"priority": 0}, {"x-request-priority": "batch"}, Terms(priority=Priority.BATCH)),
    ],
    ids=str,
)
def test_parameters_go_before_headers_and_those_before_the_servers_own(
    parameters: dict[str, Any], headers: dict[str, str], terms: Terms
) -> None:
    service = FakeService()
    assert infer(files(b"7", b"8", parameters=parameters), service, headers).status_code == 200
    assert service.asked == [terms, terms]


def test_the_headers_deadline_runs_from_when_it_came_the_servers_from_when_all_has_been_read() -> None:
    service = FakeService(counts_up=True)
    infer(files(b"7", parameters={"priority": 2}), service)
    assert service.times_asked == 2
    infer(files(b"7", parameters={"priority": 2}), service, {"x-request-timeout-seconds": "5"})
    assert service.times_asked == 3
    assert service.asked == [Terms(2.0, Priority.BATCH), Terms(5.0, Priority.BATCH)]


@pytest.mark.parametrize("name", ["x-request-timeout-seconds", "x-request-priority"])
def test_a_wrong_header_is_refused_before_the_body_is_read(name: str) -> None:
    request = exchange(Exchange(itertools.repeat(CHUNK), {name: "soon"}))
    assert (request.status, request.json["code"], request.pulled) == (400, "bad_parameter", 0)


@pytest.mark.parametrize(
    "text", ["", " ", "+5", "-5", " 5", "5 ", "5.0", "1e1", "0x5", "1_0", "five", "5,5", "\xb2", "1" * 19, "9" * 5000]
)
def test_a_length_of_json_that_is_no_number_is_refused_before_the_body_is_read(text: str) -> None:
    request = exchange(Exchange(itertools.repeat(CHUNK), {LENGTH: text}))
    assert (request.status, request.json["code"], request.pulled) == (400, "malformed_request", 0)
    assert request.json["error"] == "Inference-Header-Content-Length must be a whole number of bytes"


@pytest.mark.parametrize("text", ["101", "9" * 18])
def test_a_length_of_json_over_the_limit_is_refused_before_the_body_is_read(text: str) -> None:
    request = exchange(Exchange(itertools.repeat(CHUNK), {LENGTH: text}), FakeService(args=Args(max_json_bytes=100)))
    assert (request.status, request.json["code"], request.pulled) == (400, "malformed_request", 0)
    assert "at most 100 bytes (max_json_bytes)" in request.json["error"]


def test_a_length_of_json_beyond_the_body_is_refused_with_both() -> None:
    response = infer(b"{}", headers={LENGTH: "3"})
    assert refusal(response) == (400, "malformed_request")
    assert response.json()["error"] == "the JSON is to have 3 bytes, and the body has 2"


@pytest.mark.parametrize("text", ["007", "0000000000000000" + "02"])
def test_zeros_before_a_length_of_json_do_not_matter(text: str) -> None:
    assert "inputs: Field required" in infer(b"{}     ", headers={LENGTH: text}).json()["error"]


SMALL = Args(max_json_bytes=100, max_image_bytes=100, max_request_bytes=1000)


@pytest.mark.parametrize(
    ("headers", "limit", "code", "words"),
    [
        ({}, 100, "malformed_request", "the JSON of a request may have at most 100 bytes (max_json_bytes)"),
        ({LENGTH: "2"}, 1000, "body_too_large", "a request may have at most 1,000 bytes (max_request_bytes)"),
    ],
    ids=["JSON", "binary"],
)
def test_a_body_over_its_limit_is_refused_by_its_declared_length_or_the_chunk_that_passes_it(
    headers: dict[str, str], limit: int, code: str, words: str
) -> None:
    declared = {**headers, "content-length": str(limit + 1)}
    request = exchange(Exchange(itertools.repeat(CHUNK), declared), FakeService(args=SMALL))
    assert (request.status, request.json["code"], request.pulled) == (400, code, 0)
    assert request.json["error"].startswith(words)
    request = exchange(Exchange(itertools.repeat(CHUNK), headers), FakeService(args=SMALL))
    assert (request.status, request.json["code"], request.pulled) == (400, code, limit // len(CHUNK) + 1)
    assert request.json["error"].startswith(words)


def test_a_body_of_exactly_its_limit_is_read() -> None:
    request = exchange(Exchange([CHUNK] * 10), FakeService(args=SMALL))
    assert "the request is no JSON" in request.json["error"]
    request = exchange(Exchange([CHUNK] * 100, {LENGTH: "100"}), FakeService(args=SMALL))
    assert "the request is no JSON" in request.json["error"]


def test_a_body_may_come_in_any_chunks() -> None:
    content, headers = binary({"inputs": [PIXELS | {"parameters": {"binary_data_size": 48}}]}, b"\7" + bytes(47))
    service = FakeService()
    request = exchange(Exchange([content[i : i + 1] for i in range(len(content))], headers), service)
    assert request.status == 200
    assert [int(np.asarray(image).sum()) for image in service.seen] == [7]


def test_an_empty_body_is_refused() -> None:
    assert refusal(infer(b"")) == (400, "malformed_request")


def test_a_binary_tensor_reaches_the_service_as_part_of_the_body_that_came() -> None:
    batch = PIXELS | {"shape": [2, 4, 4, 3], "parameters": {"binary_data_size": 96}}
    content, headers = binary({"inputs": [batch]}, bytes(96))
    service = FakeService()
    assert infer(content, service, headers).status_code == 200
    first, second = (np.asarray(image) for image in service.seen)
    owner: Any = first
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    assert isinstance(owner, memoryview)
    assert len(owner.obj) == len(content)  # type: ignore[arg-type] # the bytearray that it was read into
    assert second.ctypes.data - first.ctypes.data == 48


@pytest.mark.parametrize("images", [[b"hang"], [b"7", b"hang", b"hang"]], ids=len)
def test_a_client_that_leaves_cancels_all_of_its_images(images: Sequence[bytes]) -> None:
    service = FakeService()

    async def cancel_once_started() -> None:
        body = json.dumps(files(*images)).encode()
        request = asyncio.create_task(Exchange([body], path=PATH).drive(build_app(service)))
        await service.started.wait()
        await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(asyncio.wait_for(cancel_once_started(), 60))
    assert service.cancelled == [image for image in images if image == b"hang"]


def test_a_client_that_leaves_while_sending_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService()
    exchange(Exchange([b'{"inputs"'], ends_in_disconnect=True), service)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert service.seen == []


class Indifferent(FakeService):
    """Takes any file for the same one."""

    async def classify(self, image: bytes | Pixels | Normalised, terms: Terms) -> Classification:
        return await super().classify(b"7" if isinstance(image, bytes) else image, terms)


@settings(deadline=None)
@given(REQUESTS)
def test_no_request_whatever_is_a_bug(value: Any) -> None:
    request = exchange(Exchange([json.dumps(value).encode()]), Indifferent())
    assert request.status in (200, 400)


@settings(deadline=None)
@given(st.binary(max_size=100), st.text(st.characters(max_codepoint=255), max_size=5))
def test_no_body_and_no_length_of_json_whatever_is_a_bug(body: bytes, length: str) -> None:
    request = exchange(Exchange([body], {LENGTH: length}))
    assert request.status == 400
    assert re.fullmatch(r"malformed_request|bad_tensor", request.json["code"])


class Hurried(FakeService):
    """Its objective cannot be kept: who asks for less than infinite time is refused at the door."""

    def terms(self, timeout_s: float | None, priority: Priority) -> Terms:
        return Terms(1.0 if timeout_s is None else timeout_s, priority)

    def check_admission(self, terms: Terms) -> None:
        if terms.deadline < 10:
            raise Overloaded("too late", 1.0)


def test_at_the_door_a_request_is_not_judged_by_terms_that_it_may_not_have() -> None:
    service = Hurried()
    assert infer(files(b"7", parameters={"timeout": 60_000_000}), service).status_code == 200
    assert service.asked == [Terms(60.0, Priority.INTERACTIVE)]
    assert refusal(infer(files(b"7"), service, {"X-Request-Timeout-Seconds": "2"})) == (503, "overloaded")
