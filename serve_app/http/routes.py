"""Paths, answers and errors: bytes of a request -> JSON, over a `Service`.

POST /v1/classify        images in, top classes out
GET  /v2/health/live     the process answers
GET  /v2/health/ready    the model is warmed: 200, else 503
GET  /v2/models          names of the models served
GET  /v2/models/{name}   what the checkpoint says of itself, and where it runs
"""

import asyncio
import logging
import math
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app import __version__
from serve_app.errors import (
    INTERNAL_CODE,
    BadParameter,
    BodyTooLarge,
    EmptyBody,
    ModelNotFound,
    NotReady,
    RequestError,
)
from serve_app.http.body import Upload, read_uploads
from serve_app.http.service import Classification, Service
from serve_app.scheduler import Priority, Terms

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
TIMEOUT_HEADER = "x-request-timeout-seconds"
"""Ray Serve's own: when it has passed, Ray cancels the request (_private/constants.py)."""
PRIORITY_HEADER = "x-request-priority"
PLAIN_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}")
STAGES = ("decode", "queue", "device")


def build_app(service: Service) -> Starlette:
    """The ASGI application of one replica."""

    async def classify(request: Request) -> Response:
        _require_ready(service)
        top_k = _parse_top_k(request, service)
        timeout_s, priority = _parse_terms(request)
        terms = service.terms(timeout_s, priority)
        service.check_admission(terms)  # before the body is read
        uploads = await read_uploads(request, service.args)
        if timeout_s is None:  # the server's own objective does not count how long the client sends
            terms = service.terms(None, priority)
        outcomes = await _classify_all(uploads, service, terms)
        return _answer(request, service, uploads, outcomes, top_k)

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        _require_ready(service)
        return JSONResponse({"ready": True})

    async def models(_: Request) -> Response:
        return JSONResponse({"models": [service.model_name]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name != service.model_name:
            raise ModelNotFound(f"no such model; this server has {service.model_name}")
        return JSONResponse({**service.metadata(), "server": {"name": "serve-app", "version": __version__}})

    return Starlette(
        routes=[
            Route("/v1/classify", classify, methods=["POST"]),
            Route("/v2/health/live", live),
            Route("/v2/health/ready", ready),
            Route("/v2/models", models),
            Route("/v2/models/{name}", model),
        ],
        exception_handlers={
            RequestError: _request_error,
            HTTPException: _http_exception,
            ClientDisconnect: _client_left,
            Exception: _bug,
        },
    )


def _require_ready(service: Service) -> None:
    if not service.ready:
        raise NotReady("the model is not ready yet: try again shortly")


def _parse_top_k(request: Request, service: Service) -> int:
    unknown = sorted(set(request.query_params) - {"top_k"})
    if unknown:
        raise BadParameter(f"unknown parameter {unknown[0][:40]!r}; there is top_k")
    values = request.query_params.getlist("top_k")
    if not values:
        return min(service.default_top_k, service.max_top_k)
    # At most nine digits: int() of a long number is slow, and refused by Python beyond 4300 digits.
    if len(values) > 1 or not re.fullmatch(r"[0-9]{1,9}", values[0]) or not 1 <= int(values[0]) <= service.max_top_k:
        raise BadParameter(f"top_k must be one whole number from 1 to {service.max_top_k}")
    return int(values[0])


def _parse_terms(request: Request) -> tuple[float | None, Priority]:
    """The timeout in seconds and the priority that the headers ask for."""
    timeout = request.headers.get(TIMEOUT_HEADER)
    if timeout is not None and not (PLAIN_NUMBER.fullmatch(timeout) and float(timeout) > 0):
        raise BadParameter(f"{TIMEOUT_HEADER} must be a number of seconds above 0 and below 1,000,000,000, e.g. 0.25")
    priority = request.headers.get(PRIORITY_HEADER, Priority.INTERACTIVE.name).upper()
    if priority not in Priority.__members__:
        raise BadParameter(f"{PRIORITY_HEADER} must be one of {', '.join(Priority.__members__).lower()}")
    return None if timeout is None else float(timeout), Priority[priority]


async def _classify_all(
    uploads: Sequence[Upload], service: Service, terms: Terms
) -> list[Classification | RequestError]:
    """One outcome per upload, in order; a bug in any of them is raised."""

    async def outcome(upload: Upload) -> Classification | RequestError:
        try:
            if upload.too_large:
                raise BodyTooLarge(f"an image may have at most {service.args.max_image_bytes:,} bytes")
            if not upload.data:
                raise EmptyBody("the file is empty")
            return await service.classify(bytes(upload.data), terms)
        except RequestError as error:
            return error

    if len(uploads) == 1:
        return [await outcome(uploads[0])]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(upload)) for upload in uploads]
    return [task.result() for task in tasks]


def _answer(
    request: Request,
    service: Service,
    uploads: Sequence[Upload],
    outcomes: Sequence[Classification | RequestError],
    top_k: int,
) -> Response:
    succeeded = [outcome for outcome in outcomes if isinstance(outcome, Classification)]
    errors = [outcome for outcome in outcomes if isinstance(outcome, RequestError)]
    if len(outcomes) == 1 and errors:
        raise errors[0]
    slowest = {stage: max((_timings(c)[stage] for c in succeeded), default=0.0) for stage in STAGES}
    body = {
        "id": _request_id(request),
        "model_name": service.model_name,
        "replica": service.replica,
        "timings_ms": slowest,
        "images": [_image(u, o, service.labels, top_k) for u, o in zip(uploads, outcomes, strict=True)],
    }
    if not succeeded:
        body |= {
            "error": f"none of the {len(errors)} images could be classified; see images",
            "code": errors[0].code,
        }
    headers = {"server-timing": ", ".join(f"{stage};dur={ms}" for stage, ms in slowest.items())}
    return JSONResponse(
        body,
        status_code=200 if succeeded else errors[0].status,
        headers=headers if succeeded else headers | _retry_after(errors),
    )


def _image(upload: Upload, outcome: Classification | RequestError, labels: Sequence[str], top_k: int) -> dict[str, Any]:
    name = {} if upload.name is None else {"name": upload.name}
    if isinstance(outcome, RequestError):
        return {**name, "error": outcome.message, "code": outcome.code}
    prediction = outcome.prediction
    classes = zip(prediction.class_ids[:top_k].tolist(), prediction.scores[:top_k].tolist(), strict=True)
    return {
        **name,
        "classes": [{"class_id": i, "label": labels[i], "score": round(score, 6)} for i, score in classes],
        "batch_size": prediction.batch_size,
        "timings_ms": _timings(outcome),
    }


def _timings(outcome: Classification) -> dict[str, float]:
    times = (outcome.decode_ms, outcome.queue_ms, outcome.prediction.device_ms)
    return {stage: round(ms, 3) for stage, ms in zip(STAGES, times, strict=True)}


def _request_id(request: Request) -> str:
    """The client's or Ray's X-Request-ID where it is a plain word, else a new one; one per request."""
    if not hasattr(request.state, "request_id"):
        given = request.headers.get("x-request-id", "")
        request.state.request_id = given if REQUEST_ID.fullmatch(given) else uuid4().hex
    request_id: str = request.state.request_id
    return request_id


async def _request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101 - registered for this class
    return JSONResponse(
        {"error": error.message, "code": error.code}, status_code=error.status, headers=_retry_after([error])
    )


def _retry_after(errors: Sequence[RequestError]) -> dict[str, str]:
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
    request_id = _request_id(request)
    logger.error("request %s failed", request_id, exc_info=error)
    return JSONResponse(
        {
            "error": "internal error; the log has the details under this id",
            "code": INTERNAL_CODE,
            "id": request_id,
        },
        status_code=500,
    )
