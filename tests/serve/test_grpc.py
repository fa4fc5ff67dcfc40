"""gRPC through Ray: what its two proxies could do otherwise than the server of tests/grpc."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from serve_app.config import Args
from serve_app.grpc import SERVICE
from serve_app.grpc import inference_pb2 as pb
from serve_app.grpc.server import HEALTH
from tests.grpc.calls import OPTIONS, Call, answered, check, image_request
from tests.serve.service import Service, config, running

PROXIES = {"HAProxy": "1", "ordinary": "0"}
Status = grpc.StatusCode


@pytest.fixture(scope="module", params=PROXIES)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with running(config(), grpc=True, RAY_SERVE_ENABLE_HA_PROXY=PROXIES[request.param]) as running_service:
        yield running_service


def call(service: Service, asked: Call) -> Any:
    async def outcome() -> Any:
        async with grpc.aio.insecure_channel(service.grpc_address, options=OPTIONS) as channel:
            return await answered(channel, asked)

    return asyncio.run(outcome())


def best(response: pb.ModelInferResponse) -> list[int]:
    ids = np.frombuffer(response.raw_output_contents[0], "<i8").reshape(response.outputs[0].shape)
    return [int(each) for each in ids[:, 0]]


def in_contents(*files: bytes) -> pb.ModelInferRequest:
    request = image_request(*files)
    del request.raw_input_contents[:]
    request.inputs[0].contents.bytes_contents.extend(files)
    return request


def test_its_address_is_announced(service: Service) -> None:
    assert f"gRPC  {service.grpc_address}, {SERVICE}" in service.output


def test_server_and_model_say_what_they_are(service: Service) -> None:
    assert call(service, Call("ServerLive", b"")).response.live
    assert call(service, Call("ModelReady", pb.ModelReadyRequest(name="digits"))).response.ready
    metadata = call(service, Call("ModelMetadata", pb.ModelMetadataRequest(name="digits"))).response
    assert [each.name for each in metadata.inputs] == ["image", "pixels", "normalized"]
    assert call(service, Call("ModelConfig", pb.ModelConfigRequest(name="digits"))).response.config.name == "digits"


@pytest.mark.parametrize("request_of", [image_request, in_contents], ids=["raw", "contents"])
def test_images_are_classified(service: Service, samples: dict[int, bytes], request_of: Any) -> None:
    before = call(service, Call("ModelStatistics", b"")).response.model_stats[0].inference_count
    response = call(service, Call("ModelInfer", request_of(samples[7], samples[3]))).response
    assert best(response) == [7, 3]
    after = call(service, Call("ModelStatistics", b"")).response.model_stats[0].inference_count
    assert after - before == 2


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (image_request(b"x", model_name="other"), Status.NOT_FOUND, "model_not_found"),
        (image_request(b"no image"), Status.INVALID_ARGUMENT, "unsupported_image"),
        (b"\xff\xff\xff", Status.INVALID_ARGUMENT, "malformed_request"),
        (b"\x2a\x00" * (4 << 20), Status.INVALID_ARGUMENT, "malformed_request"),
        (image_request(bytes(Args().max_image_bytes + 1)), Status.INVALID_ARGUMENT, "body_too_large"),
        (image_request(bytes(Args().max_request_bytes)), Status.INVALID_ARGUMENT, "body_too_large"),
        (image_request(bytes(Args().max_request_bytes + (1 << 20))), Status.RESOURCE_EXHAUSTED, None),
    ],
    ids=["model", "image", "bytes", "inputs", "image size", "size", "size that Ray refuses"],
)
def test_refusals_carry_status_and_code(service: Service, request_: Any, status: Status, code: str | None) -> None:
    outcome = call(service, Call("ModelInfer", request_))
    assert (outcome.status, outcome.error_code) == (status, code)


@pytest.mark.parametrize("asked", [Call("ModelStreamInfer", b""), Call("Watch", b"", service=HEALTH)], ids=str)
def test_what_is_not_there_is_unimplemented(service: Service, asked: Call) -> None:
    assert call(service, asked).status is Status.UNIMPLEMENTED


def test_the_standard_health_check(service: Service) -> None:
    response = call(service, check(SERVICE)).response
    assert response.status == response.SERVING
    assert call(service, check("other")).status is Status.NOT_FOUND


def test_reflection_knows_the_services(service: Service) -> None:
    with grpc.insecure_channel(service.grpc_address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {SERVICE, HEALTH} <= set(database.get_services())
        assert database.FindFileContainingSymbol(SERVICE).package == "inference"
