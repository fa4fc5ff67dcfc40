import logging

import pytest

from serve_app import errors
from serve_app.config import Args
from serve_app.errors import RequestError, UnreadableImage
from serve_app.http import build_app
from tests.http.asgi import Exchange
from tests.http.client import classify, client, failing, refusal
from tests.http.service import FakeService

INTERNALS = "secret /path"


@pytest.mark.parametrize("error", RequestError.__subclasses__(), ids=lambda error: error.__name__)
def test_every_error_reaches_the_client_with_its_status_code_and_words(error: type[RequestError]) -> None:
    response = classify(failing(error("what to do")), b"bad")
    assert response.status_code == error.status
    assert response.json() == {"error": "what to do", "code": error.code}


def test_a_wrong_method_is_refused_in_the_format_of_the_others() -> None:
    assert client().get("/v1/classify").json() == {"error": "Method Not Allowed", "code": "method_not_allowed"}


def test_a_bug_gives_a_bare_500_and_its_id() -> None:
    response = classify(failing(RuntimeError(INTERNALS)), b"bad", x_request_id="req-1")
    assert response.status_code == 500
    assert response.json().keys() == {"error", "code", "id"}
    assert (response.json()["code"], response.json()["id"]) == (errors.INTERNAL_CODE, "req-1")


def test_a_bug_shows_the_client_nothing_of_itself() -> None:
    response = classify(failing(RuntimeError(INTERNALS)), b"bad")
    seen = response.text + str(response.headers)
    assert not [word for word in ("secret", "path", "RuntimeError", "Traceback", ".py") if word in seen]


def test_a_bug_is_logged_once_with_its_traceback_and_its_id(caplog: pytest.LogCaptureFixture) -> None:
    response = classify(failing(RuntimeError(INTERNALS)), b"bad")
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert response.json()["id"] in record.getMessage()
    assert f"RuntimeError: {INTERNALS}" in caplog.text
    assert "in classify" in caplog.text


def test_a_bug_in_one_of_several_files_is_a_bare_500(caplog: pytest.LogCaptureFixture) -> None:
    files = [("file", ("a", b"7")), ("file", ("b", b"bad"))]
    response = client(failing(RuntimeError(INTERNALS))).post("/v1/classify", files=files)
    assert (response.status_code, response.json()["code"]) == (500, errors.INTERNAL_CODE)
    assert f"RuntimeError: {INTERNALS}" in caplog.text


def test_a_refused_request_is_not_logged_as_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    classify(failing(UnreadableImage("cut short")), b"bad")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_client_that_leaves_while_sending_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService()
    Exchange([b"half an ima"], ends_in_disconnect=True).run(build_app(service))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert service.seen == []


@pytest.mark.parametrize(("seconds", "header"), [(0.2, "1"), (1.0, "1"), (1.01, "2"), (0.0, "1")])
def test_a_refusal_at_the_door_says_when_to_come_back_and_reads_nothing(seconds: float, header: str) -> None:
    service = FakeService(refuses=errors.Overloaded("later", seconds), args=Args(max_image_bytes=1))
    response = classify(service, content=b"more than one byte")
    assert refusal(response) == (503, "overloaded")
    assert response.headers["retry-after"] == header
    assert service.seen == []


def test_an_error_that_does_not_pass_with_time_has_no_retry_after() -> None:
    assert "retry-after" not in classify(failing(UnreadableImage("no")), content=b"bad").headers
