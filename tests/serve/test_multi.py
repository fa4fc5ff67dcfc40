"""deploy/multi.yaml: two applications on one instance, each with a route, a model and batches of its own."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import grpc
import pytest

from serve_app import config_file
from serve_app.cli import ports
from serve_app.grpc import SERVICE
from serve_app.grpc import inference_pb2 as pb
from tests.serve.service import REPOSITORY, START_TIMEOUT_S, Sent, Service, running

FILE = config_file.read(REPOSITORY / "deploy" / "multi.yaml")
Applications = dict[str, "Application"]


@dataclass
class Application(Service):
    """One application of an instance, below its prefix."""

    prefix: str = ""

    @property
    def url(self) -> str:
        return super().url + self.prefix

    @property
    def settings(self) -> dict[str, Any]:
        (found,) = [each for each in FILE["applications"] if each["route_prefix"] == self.prefix]
        user_config: dict[str, Any] = found["deployments"][0]["user_config"]
        return user_config

    def replica(self, image: bytes) -> str:
        ((status, body),) = self.post(image)
        assert status == 200
        return str(body["replica"])


def content() -> dict[str, Any]:
    """The file, on a free port and any machine: of its photos' model only the time that it takes."""
    found = deepcopy(FILE)
    found["http_options"] = {**found["http_options"], "host": "127.0.0.1", "port": ports.free()}
    photos, digits = found["applications"]
    photos["args"] = {
        "weights": "bundled",
        "model_name": "photos",
        "device": "stub",
        "stub": {"base_ms": 200, "per_image_ms": 0},
    }
    for application in (photos, digits):
        application["deployments"][0]["ray_actor_options"]["num_cpus"] = 0.5
    return found


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(content(), grpc=True) as running_service:
        yield running_service


@pytest.fixture(scope="module")
def applications(service: Service) -> Applications:
    return {name: Application(**vars(service), prefix=f"/{name}") for name in ("photos", "digits")}


def test_each_is_announced_with_its_address(service: Service, applications: Applications) -> None:
    for name, application in applications.items():
        assert f"ready {application.url} through HAProxy" in service.output
        assert f"gRPC  {service.grpc_address}, {SERVICE} with metadata application: {name};" in service.output


def test_each_route_answers_with_its_own_model_and_batches(
    applications: Applications, samples: dict[int, bytes]
) -> None:
    for name, application in applications.items():
        assert application.get("/v2/models")[1] == {"models": [name]}
        batching = application.get(f"/v2/models/{name}")[1]["batching"]
        assert {key: batching[key] for key in application.settings} == application.settings
        ((status, body),) = application.post(samples[7])
        assert (status, body["model_name"]) == (200, name)
        assert len(body["images"][0]["classes"]) == application.settings["top_k"]
    assert body["images"][0]["classes"][0]["label"] == "seven"


def test_neither_knows_the_others_model(applications: Applications) -> None:
    assert applications["photos"].get("/v2/models/digits")[0] == 404
    assert applications["digits"].get("/v2/models/photos")[0] == 404


def test_each_has_the_page_and_its_description_below_its_prefix(applications: Applications) -> None:
    for application in applications.values():
        with urlopen(application.url, timeout=30) as page:  # without the last slash: sent on
            assert page.url == f"{application.url}/"
            assert b"<title>" in page.read()
        assert "/v1/classify" in application.get("/openapi.json")[1]["paths"]


def test_grpc_asks_for_the_application(service: Service) -> None:
    with grpc.insecure_channel(service.grpc_address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/RepositoryIndex")
        for name in ("photos", "digits"):
            answer = call(b"", timeout=30, metadata=(("application", name),))
            assert [model.name for model in pb.RepositoryIndexResponse.FromString(answer).models] == [name]
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=30)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_overload_of_one_is_not_the_others(applications: Applications, samples: dict[int, bytes]) -> None:
    photos, digits = applications["photos"], applications["digits"]
    hurry = {"X-Request-Timeout-Seconds": "1"}
    assert photos.post(samples[7])[0][0] == 200  # from here on it knows its time
    with ThreadPoolExecutor(1) as thread:
        crowd = thread.submit(photos.send, *[Sent(samples[i % 10], hurry) for i in range(120)])
        others = digits.post(*[samples[i % 10] for i in range(10)])
        codes = Counter(answer.code for answer in crowd.result())
    assert [status for status, _ in others] == [200] * 10
    assert codes["overloaded"] > 0
    assert set(codes) <= {None, "overloaded", "deadline_exceeded"}


def test_a_restart_of_one_is_not_the_others(
    service: Service, applications: Applications, samples: dict[int, bytes]
) -> None:
    before = {name: application.replica(samples[7]) for name, application in applications.items()}
    changed = deepcopy(service.content)
    changed["applications"][0]["args"]["max_images"] = 7  # a change of args: new replicas
    service.deploy(changed)
    deadline = time.monotonic() + START_TIMEOUT_S
    while applications["photos"].replica(samples[7]) == before["photos"]:
        assert applications["digits"].replica(samples[7]) == before["digits"]
        assert time.monotonic() < deadline
    assert applications["digits"].replica(samples[7]) == before["digits"]
