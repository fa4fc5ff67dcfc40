"""Responses: what goes well, and every error class under the statuses that it has on a route."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from serve_app.errors import (
    BadEncoding,
    BadMultipart,
    BadParameter,
    BadTensor,
    BodyTooLarge,
    DeadlineExceeded,
    DeviceStalled,
    EmptyBody,
    MalformedRequest,
    ModelNotFound,
    NotReady,
    Overloaded,
    QueueFull,
    RateLimited,
    RequestError,
    TooManyImages,
    TooManyPixels,
    Unauthorized,
    UnreadableImage,
    UnsupportedImage,
)
from serve_app.http.headers import STAGES
from serve_app.http.infer import HEADER_LENGTH, protocol_status
from serve_app.http.openapi.schema import COUNT, TEXT, Schema, ref

Errors = tuple[type[RequestError], ...]

ANYWHERE: Errors = (NotReady, QueueFull, DeadlineExceeded)
"""Ray Serve's own too, translated by serve_app/middleware.py: on every path."""
CLOSED: Errors = (*ANYWHERE, Unauthorized, RateLimited)
"""Where there are tokens, nobody comes further without one."""
OF_A_MODEL: Errors = (*CLOSED, ModelNotFound)
OF_IMAGES: Errors = (
    EmptyBody,
    BadParameter,
    BodyTooLarge,
    TooManyPixels,
    UnsupportedImage,
    UnreadableImage,
    Overloaded,
    DeviceStalled,
    *CLOSED,
)
OF_CLASSIFY: Errors = (*OF_IMAGES, BadMultipart, TooManyImages)
OF_INFER: Errors = (*OF_IMAGES, ModelNotFound, MalformedRequest, BadTensor, BadEncoding)
NO_SUCH_PATH = "not_found"
"""Where a name in the path holds a slash, it is another path."""

_NUMBER = r"[0-9]+\.[0-9]+"
SERVER_TIMING: Schema = {
    "description": "milliseconds of each stage, of its slowest image",
    "required": True,
    "schema": {"type": "string", "pattern": f"^{', '.join(f'{stage};dur={_NUMBER}' for stage in STAGES)}$"},
}
RETRY_AFTER: Schema = {
    "description": "seconds after which to try again",
    "required": True,
    "schema": COUNT,
}
CHALLENGE: Schema = {"description": "RFC 6750", "required": True, "schema": {"const": "Bearer"}}
ETAG: Schema = {"description": "of the content", "required": True, "schema": {"type": "string", "pattern": '^"[^"]+"$'}}
HEADER_LENGTH_GIVEN: Schema = {
    "description": "bytes of JSON before the binary tensors, where there are any",
    "schema": COUNT,
}


def answer(description: str, schema: Schema, headers: Schema | None = None) -> Schema:
    """One in JSON."""
    return _response(description, {"application/json": {"schema": schema}}, headers)


def file(description: str, content_type: str, schema: Schema) -> Schema:
    """200 with a file's content, 304 without."""
    headers = {"ETag": ETAG}
    return {
        "200": _response(description, {content_type: {"schema": schema}}, headers),
        "304": {"description": "the client has it", "headers": headers},
    }


def inferred() -> Schema:
    content = {
        "application/json": {"schema": ref("InferResponse")},
        # No schema: bytes that are no text have none in OpenAPI 3.1 (4.8.14.2).
        "application/octet-stream": {},
    }
    return _response(
        "the outputs: JSON, with those that were asked for as binary data behind it",
        content,
        {"Server-Timing": SERVER_TIMING, HEADER_LENGTH.title(): HEADER_LENGTH_GIVEN},
    )


def errors(classes: Errors) -> Schema:
    """By status."""
    return _by_status(classes, lambda error: error.status, lambda codes: _error(codes))


def classify_errors() -> Schema:
    """Where all images of a form failed there is an entry for each, and the first one's error for all of them."""
    return _by_status(
        OF_CLASSIFY,
        lambda error: error.status,
        lambda codes: {"anyOf": [_error(codes), _with_codes("FailedClassification", codes)]},
    )


def infer_errors() -> Schema:
    return _by_status(OF_INFER, lambda error: protocol_status(error("")), lambda codes: _error(codes))


def _by_status(
    classes: Errors, status: Callable[[type[RequestError]], int], schema: Callable[[list[str]], Schema]
) -> Schema:
    codes: dict[int, list[str]] = {}
    for error in classes:
        codes.setdefault(status(error), []).append(error.code)
    if ModelNotFound in classes:
        codes[ModelNotFound.status].append(NO_SUCH_PATH)
    responses = {str(each): answer(_listed(codes[each]), schema(codes[each]), _headers(each)) for each in sorted(codes)}
    return {**responses, "500": _bug()}


def _listed(codes: Iterable[str]) -> str:
    return ", ".join(f"`{code}`" for code in codes)


def _headers(status: int) -> Schema | None:
    return {
        HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": CHALLENGE},
        HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": RETRY_AFTER},
        HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": RETRY_AFTER},
    }.get(HTTPStatus(status))


def _error(codes: list[str]) -> Schema:
    return _with_codes("Error", codes)


def _with_codes(name: str, codes: list[str]) -> Schema:
    return {**ref(name), "properties": {"code": {"enum": codes}}}


def _bug() -> Schema:
    content = {
        "application/json": {"schema": ref("InternalError")},
        "text/plain": {"schema": TEXT},
    }
    return _response("a bug; in plain text from HAProxy, where a replica died", content)


def _response(description: str, content: dict[str, Any], headers: Schema | None = None) -> Schema:
    return {"description": description, "content": content, **({} if headers is None else {"headers": headers})}
