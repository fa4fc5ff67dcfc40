"""Ray's own answers in plain text -> the documented errors.

Ray Serve takes ASGI middleware for every HTTP server of an instance, proxies and replicas alike, from an
environment variable (HTTP_CALLBACK), so a client receives one format, whoever answers. Imported by the
proxies: nothing heavy here.
"""

import json
from typing import NamedTuple

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.door import Door
from serve_app.errors import INTERNAL_CODE, DeadlineExceeded, NotReady, QueueFull, RequestError
from serve_app.grpc.address import confine

HTTP_CALLBACK = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.middleware:middlewares"}
RETRY_AFTER = "1"
# ray/serve/_private/replica.py and router.py, 2.60
BACKPRESSURE = b"Request dropped due to backpressure"


class _Answer(NamedTuple):
    status: int
    code: str
    message: str


def middlewares() -> list[Middleware]:
    """What Ray Serve calls for, before it opens a port."""
    confine()
    return [Middleware(Utf8Headers), Middleware(DocumentedErrors), Middleware(Door)]  # each around those before it


class Utf8Headers:
    """Hands on headers of which each is UTF-8: Ray decodes some so, and answered 500 where one was not.

    HTTP takes any bytes, and Latin-1 is what they were (RFC 9110, 5.5). Who reads the header judges it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not all(_is_utf8(value) for _, value in scope.get("headers", ())):
            scope["headers"] = [(name, _as_utf8(value)) for name, value in scope["headers"]]
        await self._app(scope, receive, send)


def _is_utf8(value: bytes) -> bool:
    return value.isascii() or _as_utf8(value) is value


def _as_utf8(value: bytes) -> bytes:
    try:
        value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1").encode()
    return value


class DocumentedErrors:
    """Rewrites answers that are errors in plain text; what the application answers is JSON, and passes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held: Message | None = None
        body = b""

        async def rewrite(message: Message) -> None:
            nonlocal held, body
            if message["type"] == "http.response.start" and _is_plain_error(message):
                held = message
            elif held is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    for part in _documented(held, body):
                        await send(part)

        await self._app(scope, receive, rewrite)


def _is_plain_error(start: Message) -> bool:
    return start["status"] >= 400 and any(
        name.lower() == b"content-type" and value.startswith(b"text/plain") for name, value in start["headers"]
    )


def _documented(start: Message, body: bytes) -> list[Message]:
    answer = _translated(start["status"], body)
    start["status"] = answer.status
    headers = MutableHeaders(raw=[tuple(header) for header in start["headers"]])
    content = json.dumps({"error": answer.message, "code": answer.code}).encode()
    headers["content-type"] = "application/json"
    headers["content-length"] = str(len(content))
    if answer.status in (429, 503):
        headers.setdefault("retry-after", RETRY_AFTER)
    start["headers"] = headers.raw
    return [start, {"type": "http.response.body", "body": content}]


def _translated(status: int, body: bytes) -> _Answer:
    """Never Ray's own words, which may name hosts, processes and files."""
    if status in (408, 504):
        return _answer(DeadlineExceeded, "the deadline passed before the answer was ready")
    if body.startswith(BACKPRESSURE):
        return _Answer(status, QueueFull.code, "as many requests wait as may: try again later")
    if status in (429, 502, 503):
        return _answer(NotReady, "no replica is ready for this request: try again shortly")
    if status == 404:
        return _Answer(404, "not_found", "Not Found")
    if status < 500:
        return _Answer(status, "bad_request", "the request cannot be answered as it is")
    return _Answer(500, INTERNAL_CODE, "internal error; the logs have the details")


def _answer(error: type[RequestError], message: str) -> _Answer:
    return _Answer(error.status, error.code, message)
