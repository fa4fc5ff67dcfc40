"""Ray's own answers, as its 2.60 gives them, in the documented format."""

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from serve_app.door import Door
from serve_app.errors import INTERNAL_CODE
from serve_app.middleware import HTTP_CALLBACK, DocumentedErrors, Utf8Headers, middlewares

PLAIN, JSON = (b"content-type", b"text/plain; charset=utf-8"), (b"content-type", b"application/json")


def answer(
    status: int, *body: bytes, headers: tuple[tuple[bytes, bytes], ...] = (PLAIN,)
) -> tuple[int, dict[str, str], bytes]:
    """What a client receives where Ray answers so: status, headers and body."""
    sent: list[Message] = []

    async def ray(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [list(h) for h in headers]})
        for i, part in enumerate(body):
            await send({"type": "http.response.body", "body": part, "more_body": i < len(body) - 1})

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(DocumentedErrors(ray)({"type": "http"}, _no_receive, send))
    assert [message["type"] for message in sent[:2]] == ["http.response.start", "http.response.body"]
    received = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], received, b"".join(message.get("body", b"") for message in sent[1:])


async def _no_receive() -> Message:
    raise AssertionError("nobody reads here")


@pytest.mark.parametrize(
    ("status", "text", "becomes", "code"),
    [
        (408, b"Request 1f2e timed out after 20s.", 504, "deadline_exceeded"),
        (503, b"Request dropped due to backpressure", 503, "queue_full"),
        (429, b"Request dropped due to backpressure (num_queued_requests=2)", 429, "queue_full"),
        (503, b"Deployment is unavailable because it failed to deploy.", 503, "not_ready"),
        (404, b"Path '/x' not found. Ping http://.../-/routes", 404, "not_found"),
        (500, b"ray::ServeReplica() (pid=7, ip=10.0.0.1) Traceback", 500, INTERNAL_CODE),
    ],
)
def test_rays_plain_text_becomes_the_documented_error(status: int, text: bytes, becomes: int, code: str) -> None:
    received_status, headers, body = answer(status, text)
    content = json.loads(body)
    assert (received_status, content["code"]) == (becomes, code)
    assert (headers["content-type"], headers["content-length"]) == ("application/json", str(len(body)))
    assert ("retry-after" in headers) == (becomes in (429, 503))


def test_nothing_of_rays_own_words_goes_out() -> None:
    _, _, body = answer(500, b"Traceback: /home/me/", b"app.py, ip=10.0.0.1")
    assert not [word for word in (b"home", b"10.0.0.1", b"Traceback") if word in body]


def test_rays_own_retry_after_is_kept() -> None:
    text, after = b"Request dropped due to backpressure", (b"retry-after", b"7")
    assert answer(503, text, headers=(PLAIN, after))[1]["retry-after"] == "7"


@pytest.mark.parametrize("status", [200, 400, 503, 504])
def test_what_the_application_answers_passes_as_it_is(status: int) -> None:
    assert answer(status, b'{"a":', b"1}", headers=(JSON,)) == (
        status,
        {"content-type": "application/json"},
        b'{"a":1}',
    )


def test_a_plain_text_that_is_no_error_passes() -> None:
    assert answer(200, b"success")[2] == b"success"


def test_what_is_no_http_request_passes() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, send))

    async def send(_: Message) -> None:
        return

    asyncio.run(DocumentedErrors(app)({"type": "websocket"}, _no_receive, send))
    assert seen == [({"type": "websocket"}, send)]


def test_ray_finds_it_by_the_path_in_the_environment() -> None:
    from ray._common.utils import import_attr

    [path] = HTTP_CALLBACK.values()
    assert import_attr(path) is middlewares
    assert [middleware.cls for middleware in middlewares()] == [Utf8Headers, DocumentedErrors, Door]


def handed_on(*headers: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    seen: list[tuple[bytes, bytes]] = []

    async def ray(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(scope["headers"])

    async def send(message: Message) -> None:
        raise AssertionError("nobody answers here")

    asyncio.run(Utf8Headers(ray)({"type": "http", "headers": list(headers)}, _no_receive, send))
    return seen


def test_a_header_that_ray_could_not_decode_is_handed_on_as_one_that_it_can() -> None:
    given = [(b"x-request-timeout-seconds", b"\xff\xfe"), (b"x-request-id", "é".encode("latin-1")), (b"host", b"a")]
    seen = handed_on(*given)
    assert [name for name, _ in seen] == [name for name, _ in given]
    assert [value.decode() for _, value in seen] == ["ÿþ", "é", "a"]


def test_other_headers_pass_as_they_are() -> None:
    given = [(b"host", b"a"), (b"x-request-id", "é".encode())]
    assert handed_on(*given) == given
