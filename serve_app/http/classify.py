"""`POST /v1/classify`: images in, the top classes of each out."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app.errors import BadParameter, BodyTooLarge, EmptyBody, RequestError
from serve_app.headers import wishes
from serve_app.http.body import Upload, read_uploads
from serve_app.http.errors import retry_after
from serve_app.http.headers import STAGES, request_id, server_timing
from serve_app.protocol.infer import require_ready
from serve_app.scheduler import Priority, Terms
from serve_app.service import Classification, Service


def routes(service: Service) -> list[Route]:
    async def classify(request: Request) -> Response:
        require_ready(service)
        top_k = _parse_top_k(request, service)
        timeout_s, priority = wishes(request.headers)
        terms = service.terms(timeout_s, priority or Priority.INTERACTIVE)
        service.check_admission(terms)  # before the body is read
        uploads = await read_uploads(request, service.args)
        if timeout_s is None:  # the server's own objective does not count how long the client sends
            terms = service.terms(None, terms.priority)
        outcomes = await _classify_all(uploads, service, terms)
        return _answer(request, service, uploads, outcomes, top_k)

    return [Route("/v1/classify", classify, methods=["POST"])]


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
        "id": request_id(request),
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
    headers = server_timing(slowest.values())
    return JSONResponse(
        body,
        status_code=200 if succeeded else errors[0].status,
        headers=headers if succeeded else headers | retry_after(errors),
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
