"""Calls to a servicer over a fake service: a real server of grpc.aio on a free port, as Ray starts one."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from serve_app.grpc import SERVICE
from serve_app.grpc import inference_pb2 as pb
from serve_app.grpc.server import HEALTH, add_servicers
from serve_app.grpc.servicer import InferenceServicer
from tests.http.service import FakeService

DEADLINE_S = 30.0
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class FakeServicer(FakeService, InferenceServicer):
    """The fake service, as the deployment is the real one."""


@dataclass(frozen=True)
class Call:
    """An rpc; its request is a message or whatever bytes."""

    method: str
    request: Message | bytes
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)
    deadline_s: float = DEADLINE_S
    service: str = SERVICE


@dataclass(frozen=True)
class Outcome:
    status: grpc.StatusCode
    details: str = ""
    trailing: Mapping[str, Any] = field(default_factory=dict)
    response: Any = None

    @property
    def error_code(self) -> Any:
        return self.trailing.get("error-code")


RESPONSES: dict[str, type[Message]] = {
    **{
        name: getattr(pb, method.output_type.name)
        for name, method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name.items()
    },
    "Check": health_pb2.HealthCheckResponse,
}


def call(service: FakeService, *calls: Call) -> Any:
    """What comes back: of one call its outcome, of several those in order, one after another."""
    outcomes = asyncio.run(_call(service, calls))
    return outcomes[0] if len(calls) == 1 else outcomes


async def _call(service: FakeService, calls: Sequence[Call]) -> list[Outcome]:
    server = grpc.aio.server(options=OPTIONS)
    add_servicers(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
            return [await answered(channel, each) for each in calls]
    finally:
        await server.stop(None)


async def answered(channel: grpc.aio.Channel, call: Call) -> Outcome:
    """A call on any channel."""
    rpc: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{call.service}/{call.method}")
    request = call.request if isinstance(call.request, bytes) else call.request.SerializeToString()
    running = rpc(request, metadata=tuple(call.metadata.items()), timeout=call.deadline_s)
    try:
        response = await running
    except grpc.aio.AioRpcError as error:
        return Outcome(error.code(), error.details() or "", dict(error.trailing_metadata()))
    kind = RESPONSES.get(call.method)
    return Outcome(grpc.StatusCode.OK, response=response if kind is None else kind.FromString(response))


def check(service: str = "") -> Call:
    return Call("Check", health_pb2.HealthCheckRequest(service=service), service=HEALTH)


def infer(edit: Callable[[pb.ModelInferRequest], object] | None = None, **options: Any) -> Call:
    """The file `7` as a raw tensor, changed by `edit`."""
    request = image_request()
    if edit is not None:
        edit(request)
    return Call("ModelInfer", request, **options)


def image_request(*files: bytes, model_name: str = "digits") -> pb.ModelInferRequest:
    files = files or (b"7",)
    image = pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[len(files), 1])
    raw = b"".join(len(each).to_bytes(4, "little") + each for each in files)
    return pb.ModelInferRequest(model_name=model_name, inputs=[image], raw_input_contents=[raw])
