"""The messages themselves: those of Triton by name and number, and such as Ray can pickle."""

import json
import pickle
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings

from serve_app.errors import RequestError
from serve_app.grpc import SERVICE, messages, wire
from serve_app.grpc import inference_pb2 as pb
from tests.grpc.calls import image_request
from tests.grpc.test_wire import FULL, mutated
from tests.http.service import FakeService

CLASSES: list[type[Message]] = [getattr(pb, name) for name in pb.DESCRIPTOR.message_types_by_name]

# In a process of its own: its messages have the names of ours, and one pool takes them once.
TRITONS = """
import json
from tritonclient.grpc import model_config_pb2, service_pb2

def fields(kind):
    return {each.name: [each.number, each.type, each.message_type.name if each.message_type else None]
            for each in kind.fields}

def walk(kinds):
    for kind in kinds:
        yield kind.full_name, fields(kind)
        yield from walk(kind.nested_types)

files = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
print(json.dumps({
    "messages": {name: found for file in files for name, found in walk(file.message_types_by_name.values())},
    "rpcs": {rpc.name: [rpc.input_type.full_name, rpc.output_type.full_name] for rpc in service.methods},
    "data_types": dict(model_config_pb2.DataType.items()),
}))
"""


@pytest.fixture(scope="module")
def tritons() -> dict[str, Any]:
    result = subprocess.run([sys.executable, "-c", TRITONS], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def nested(kind: Descriptor) -> list[Descriptor]:
    return [kind, *(each for inner in kind.nested_types for each in nested(inner))]


OURS = [each for name in pb.DESCRIPTOR.message_types_by_name.values() for each in nested(name)]


def described(each: FieldDescriptor) -> list[Any]:
    return [each.number, each.type, each.message_type.name if each.message_type else None]


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.full_name)
def test_a_message_is_tritons_with_fewer_fields(kind: Descriptor, tritons: dict[str, Any]) -> None:
    theirs = tritons["messages"][kind.full_name]
    assert {each.name: described(each) for each in kind.fields}.items() <= theirs.items()


def test_the_rpcs_and_data_types_are_tritons(tritons: dict[str, Any]) -> None:
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert service.full_name == SERVICE
    for rpc in service.methods:
        assert [rpc.input_type.full_name, rpc.output_type.full_name] == tritons["rpcs"][rpc.name]
    assert dict(pb.DataType.items()).items() <= tritons["data_types"].items()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_message_survives_pickling(kind: type[Message]) -> None:
    message = pickle.loads(pickle.dumps(kind()))  # noqa: S301 - our own
    assert type(message) is kind
    assert message == kind()


@settings(max_examples=300)
@given(mutated(FULL) | mutated(image_request(b"1", b"2").SerializeToString()))
def test_whatever_comes_is_a_request_or_refused(data: bytes) -> None:
    service = FakeService()
    with suppress(RequestError):
        message, raw = wire.infer_request(data, messages.max_packed_bytes(service))
        request = messages.infer_request(message, raw, service)
        assert request.outputs
        assert len(service.signature.images(request.tensor)) == request.tensor.shape[0]


def test_numbers_are_bounded_by_the_models_largest_input() -> None:
    assert messages.max_packed_bytes(FakeService()) == 32 * 3 * 4 * 4 * 4
