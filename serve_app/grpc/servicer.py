"""The rpcs of `inference.GRPCInferenceService`, and `Check` of `grpc.health.v1.Health`, over a `Service`.

Requests come as bytes (server.py): they are parsed here, where the limits are known, and Ray's ordinary
proxy hands them on without having parsed them itself.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from serve_app.errors import INTERNAL_CODE, BodyTooLarge, ModelNotFound, RequestError
from serve_app.grpc import SERVICE, messages, wire
from serve_app.grpc import inference_pb2 as pb
from serve_app.headers import plain_id, wishes
from serve_app.protocol.infer import check_model, infer, require_ready
from serve_app.scheduler import Priority, Terms
from serve_app.service import Service

logger = logging.getLogger(__name__)

ERROR_CODE = "error-code"
"""Trailing metadata: the error's code, as HTTP has it in the body."""
RETRY_PUSHBACK = "grpc-retry-pushback-ms"
"""... after how long to try again (gRPC's retry design, proposal A6)."""
STATUS = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""By HTTP status; whatever else is wrong with a request is INVALID_ARGUMENT, as in Triton."""

Metadata = Mapping[str, str]
Response = TypeVar("Response", bound=Message)
Handler = Callable[[Service, bytes, Metadata], Awaitable[Response]]


class Context(Protocol):
    """What Ray's `RayServegRPCContext` and grpc.aio's `ServicerContext` have in common."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]: ...

    def set_code(self, code: grpc.StatusCode) -> None: ...

    def set_details(self, details: str) -> None: ...

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str]]) -> None: ...


def _rpc(
    handler: Handler[Response], response: type[Response], is_open: bool = False
) -> Callable[..., Awaitable[Response]]:
    """The method of a servicer that answers with what `handler` returns, or with the status of what it raises.

    `is_open`: to everybody, as probes have no token. The status is set, not raised: for what is raised Ray writes a
    traceback, and drops the metadata.
    """

    async def method(self: Any, request: bytes, grpc_context: Context) -> Response:
        metadata = {k: v for k, v in grpc_context.invocation_metadata() if isinstance(v, str)}
        try:
            if not is_open:
                self.authorize(metadata.get("authorization"))
            return await handler(self, request, metadata)
        except RequestError as error:
            _refuse(error, grpc_context)
        except Exception as error:
            _bug(error, metadata, grpc_context)
        return response()

    return method


def _refuse(error: RequestError, context: Context) -> None:
    trailing = [(ERROR_CODE, error.code)]
    if error.retry_after_s is not None:
        trailing.append((RETRY_PUSHBACK, str(round(error.retry_after_s * 1e3))))
    context.set_code(STATUS.get(error.status, grpc.StatusCode.INVALID_ARGUMENT))
    context.set_details(error.message)
    context.set_trailing_metadata(trailing)


def _bug(error: Exception, metadata: Metadata, context: Context) -> None:
    request_id = plain_id(metadata.get("request_id", ""))
    logger.error("request %s failed", request_id, exc_info=error)
    context.set_code(grpc.StatusCode.INTERNAL)
    context.set_details(f"internal error; the log has the details under the id {request_id}")
    context.set_trailing_metadata([(ERROR_CODE, INTERNAL_CODE)])


async def _server_live(_: Service, __: bytes, ___: Metadata) -> pb.ServerLiveResponse:
    return pb.ServerLiveResponse(live=True)


async def _server_ready(service: Service, _: bytes, __: Metadata) -> pb.ServerReadyResponse:
    return pb.ServerReadyResponse(ready=service.ready)


async def _model_ready(service: Service, request: bytes, _: Metadata) -> pb.ModelReadyResponse:
    asked = wire.message(pb.ModelReadyRequest, request)
    check_model(service, asked.name, asked.version)
    return pb.ModelReadyResponse(ready=service.ready)


async def _server_metadata(_: Service, __: bytes, ___: Metadata) -> pb.ServerMetadataResponse:
    return messages.server_metadata()


async def _model_metadata(service: Service, request: bytes, _: Metadata) -> pb.ModelMetadataResponse:
    asked = wire.message(pb.ModelMetadataRequest, request)
    check_model(service, asked.name, asked.version)
    return messages.model_metadata(service)


async def _model_config(service: Service, request: bytes, _: Metadata) -> pb.ModelConfigResponse:
    asked = wire.message(pb.ModelConfigRequest, request)
    check_model(service, asked.name, asked.version)
    return messages.model_config(service)


async def _model_statistics(service: Service, request: bytes, _: Metadata) -> pb.ModelStatisticsResponse:
    asked = wire.message(pb.ModelStatisticsRequest, request)
    check_model(service, asked.name or service.model_name, asked.version)  # without a name: of every model
    return messages.statistics(service)


async def _repository_index(service: Service, request: bytes, _: Metadata) -> pb.RepositoryIndexResponse:
    asked = wire.message(pb.RepositoryIndexRequest, request)
    if asked.ready and not service.ready:
        return pb.RepositoryIndexResponse()
    return messages.repository_index(service)


async def _check(service: Service, request: bytes, _: Metadata) -> health_pb2.HealthCheckResponse:
    """grpc.health.v1: of the server ("") or of its inference service."""
    asked = wire.message(health_pb2.HealthCheckRequest, request)
    if asked.service not in ("", SERVICE):
        raise ModelNotFound(f"no such service; this server has {SERVICE}")
    states = health_pb2.HealthCheckResponse
    return states(status=states.SERVING if service.ready else states.NOT_SERVING)


async def _model_infer(service: Service, request: bytes, metadata: Metadata) -> pb.ModelInferResponse:
    limit = service.args.max_request_bytes
    if len(request) > limit:
        raise BodyTooLarge(f"a request may have at most {limit:,} bytes (max_request_bytes)")
    message, raw = wire.infer_request(request, messages.max_packed_bytes(service))
    check_model(service, message.model_name, message.model_version)
    require_ready(service)
    terms = _terms(service, message, metadata)
    service.check_admission(terms)  # before the tensors are looked at
    parsed = messages.infer_request(message, raw, service)
    return messages.infer_response(await infer(service, parsed, terms))


def _terms(service: Service, message: pb.ModelInferRequest, metadata: Metadata) -> Terms:
    """The request's parameters before its metadata, those before the server's own."""
    timeout_s, priority = messages.wishes(message)
    metadata_timeout_s, metadata_priority = wishes(metadata)
    return service.terms(
        metadata_timeout_s if timeout_s is None else timeout_s,
        (metadata_priority or Priority.INTERACTIVE) if priority is None else priority,
    )


class InferenceServicer:
    """The rpcs of a class that implements `Service`, which Ray calls by their names."""

    ServerLive = _rpc(_server_live, pb.ServerLiveResponse, is_open=True)
    ServerReady = _rpc(_server_ready, pb.ServerReadyResponse, is_open=True)
    ModelReady = _rpc(_model_ready, pb.ModelReadyResponse)
    ServerMetadata = _rpc(_server_metadata, pb.ServerMetadataResponse)
    ModelMetadata = _rpc(_model_metadata, pb.ModelMetadataResponse)
    ModelInfer = _rpc(_model_infer, pb.ModelInferResponse)
    ModelConfig = _rpc(_model_config, pb.ModelConfigResponse)
    ModelStatistics = _rpc(_model_statistics, pb.ModelStatisticsResponse)
    RepositoryIndex = _rpc(_repository_index, pb.RepositoryIndexResponse)
    Check = _rpc(_check, health_pb2.HealthCheckResponse, is_open=True)
