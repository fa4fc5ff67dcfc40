"""Errors -> answers, in one format on every path: `{"error": message, "code": code}`."""

import logging
import math
from collections.abc import Sequence
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from serve_app.errors import INTERNAL_CODE, RequestError
from serve_app.http.headers import request_id

logger = logging.getLogger(__name__)


async def _request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101 - registered for this class
    return refusal(error, error.status)


def refusal(error: RequestError, status: int) -> Response:
    """The answer to a request that cannot be answered."""
    headers = retry_after([error])
    if status == 401:
        headers["www-authenticate"] = "Bearer"  # RFC 6750
    return JSONResponse({"error": error.message, "code": error.code}, status_code=status, headers=headers)


def retry_after(errors: Sequence[RequestError]) -> dict[str, str]:
    """Whole seconds, as RFC 9110 has it, and at least one; nothing where to try again does not help."""
    seconds = max((error.retry_after_s for error in errors if error.retry_after_s is not None), default=None)
    return {} if seconds is None else {"retry-after": str(max(1, math.ceil(seconds)))}


async def _http_exception(_: Request, error: Exception) -> Response:
    """Starlette's own refusals (404, 405) in the error format of the others."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return JSONResponse({"error": error.detail, "code": code}, status_code=error.status_code, headers=error.headers)


async def _client_left(_: Request, __: Exception) -> Response:
    """Nobody reads this answer; without it a client that leaves while sending would count as a bug."""
    return Response(status_code=499)


async def _bug(request: Request, error: Exception) -> Response:
    given = request_id(request)
    logger.error("request %s failed", given, exc_info=error)
    return JSONResponse(
        {
            "error": "internal error; the log has the details under this id",
            "code": INTERNAL_CODE,
            "id": given,
        },
        status_code=500,
    )


HANDLERS = {
    RequestError: _request_error,
    HTTPException: _http_exception,
    ClientDisconnect: _client_left,
    Exception: _bug,
}
