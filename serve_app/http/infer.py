"""`POST /v2/models/{name}/infer`: the Open Inference Protocol, JSON and binary tensors."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_app.errors import BodyTooLarge, MalformedRequest, RequestError
from serve_app.headers import wishes
from serve_app.http.encoding import read_unpacked
from serve_app.http.errors import refusal
from serve_app.http.headers import server_timing
from serve_app.http.models import MODEL_PATHS
from serve_app.protocol import json_form
from serve_app.protocol.infer import Answer, check_model, infer, require_ready
from serve_app.protocol.request import InferRequest
from serve_app.scheduler import Priority, Terms
from serve_app.service import Service

HEADER_LENGTH = "inference-header-content-length"
MAX_DIGITS = 18


def routes(service: Service) -> list[Route]:
    async def answer(request: Request) -> Response:
        try:
            return await _infer(request, service)
        except RequestError as error:
            return refusal(error, protocol_status(error))

    return [Route(f"{path}/infer", answer, methods=["POST"]) for path in MODEL_PATHS]


def protocol_status(error: RequestError) -> int:
    """Triton's mapping: whatever is wrong with a request is 400, but for a model that is not there, or the caller."""
    return 400 if 400 <= error.status < 500 and error.status not in (401, 404, 429) else error.status


async def _infer(request: Request, service: Service) -> Response:
    check_model(service, request.path_params["name"], request.path_params.get("version", ""))
    require_ready(service)
    timeout_s, priority = wishes(request.headers)
    terms = service.terms(timeout_s, priority or Priority.INTERACTIVE)
    # Before the body is read, whose parameters may yet allow more time than the server would.
    service.check_admission(terms if timeout_s else Terms(priority=Priority.INTERACTIVE))
    header_length = _header_length(request, service.args.max_json_bytes)
    body = memoryview(await _read(request, header_length, service))
    parsed = json_form.parse(body, header_length, service)
    answer = await infer(service, parsed, _terms(service, parsed, terms, timeout_s))
    return _response(answer, parsed)


def _header_length(request: Request, limit: int) -> int | None:
    """Bytes of JSON before the binary tensors, at most `limit`; None where the body is JSON alone."""
    given = request.headers.get(HEADER_LENGTH)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= MAX_DIGITS):
        raise MalformedRequest("Inference-Header-Content-Length must be a whole number of bytes")
    if int(given) > limit:
        raise MalformedRequest(json_form.too_much_json(limit))
    return int(given)


async def _read(request: Request, header_length: int | None, service: Service) -> bytearray:
    args = service.args
    if header_length is None:
        return await read_unpacked(
            request, args.max_json_bytes, MalformedRequest(json_form.too_much_json(args.max_json_bytes))
        )
    return await read_unpacked(
        request,
        args.max_request_bytes,
        BodyTooLarge(f"a request may have at most {args.max_request_bytes:,} bytes (max_request_bytes)"),
    )


def _terms(service: Service, parsed: InferRequest, first: Terms, header_timeout_s: float | None) -> Terms:
    """The request's parameters before its headers, those before the server's own."""
    priority = first.priority if parsed.priority is None else parsed.priority
    if parsed.timeout_s is None and header_timeout_s is not None:  # that runs since the header came
        return Terms(first.deadline, priority)
    return service.terms(parsed.timeout_s, priority)


def _response(answer: Answer, parsed: InferRequest) -> Response:
    body, json_length = json_form.render(answer, parsed)
    headers = server_timing(round(ms, 3) for ms in answer.timings_ms)
    if json_length is None:
        return Response(body, media_type="application/json", headers=headers)
    headers[HEADER_LENGTH] = str(json_length)
    return Response(body, media_type="application/octet-stream", headers=headers)
