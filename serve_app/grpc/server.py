"""The rpcs registered with a server: `grpc_servicer_functions: [serve_app.grpc.server.add_servicers]`.

Imported by Ray's proxies too: nothing heavy here.
"""

from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from serve_app.grpc import SERVICE, inference_pb2

HEALTH: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
RPCS = {
    SERVICE: tuple(inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name),
    HEALTH: ("Check",),
}


def add_servicers(servicer: Any, server: grpc.aio.Server) -> None:
    """Register every rpc; to others, such as Triton's for shared memory, the server itself answers UNIMPLEMENTED.

    Requests stay bytes (servicer.py): grpc would parse whatever comes.
    """
    for service, names in RPCS.items():
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(getattr(servicer, name), response_serializer=_serialized)
            for name in names
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
