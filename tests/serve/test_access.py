"""Who may call, on a real Ray Serve instance: every route, port and protocol, past HAProxy too."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from serve_app.grpc.server import RPCS
from serve_app.tokens import RELOAD_S, add, create
from tests.grpc.calls import OPTIONS, Call, Outcome, answered, image_request
from tests.http.test_access import CLOSED
from tests.serve.service import Sent, Service, config, running
from tests.waiting import eventually

Status = grpc.StatusCode
NAME = "test-caller"
NAME_OF_APPLICATION = "serve-app"
"""Of deploy/local.yaml."""
PROBES = {"ServerLive", "ServerReady", "Check"}
BOTH = pytest.mark.parametrize("service", ["1", "0"], ids=["haproxy", "ordinary proxy"], indirect=True)
HAPROXY = pytest.mark.parametrize("service", ["1"], ids=["haproxy"], indirect=True)


class Callers:
    """A tokens_file, and the token of its one caller."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token, caller = create(NAME)
        add(path, caller)
        self.other, _ = create(NAME)
        """Of another service: well-formed, of the same name."""

    def wrong(self) -> list[dict[str, str]]:
        return [{}, *({"authorization": value} for value in (f"Bearer {self.other}", f"Basic {self.token}"))]

    def right(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Callers:
    return Callers(tmp_path_factory.mktemp("tokens") / "tokens")


@pytest.fixture(scope="module")
def service(request: pytest.FixtureRequest, callers: Callers) -> Iterator[Service]:
    content = config({"tokens_file": str(callers.path)})
    with running(content, grpc=True, RAY_SERVE_ENABLE_HA_PROXY=request.param) as running_service:
        yield running_service


def ask(address: str, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, dict[str, Any]]:
    client = HTTPConnection(address, timeout=30)
    try:
        client.request(method, path, body or None, headers)
        answer = client.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content.startswith(b"{") else {}
    finally:
        client.close()


def rpc(address: str, call: Call) -> Outcome:
    async def outcome() -> Outcome:
        async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
            return await answered(channel, call)

    return asyncio.run(outcome())


def calls(headers: dict[str, str], image: bytes) -> Iterator[Call]:
    for of, names in RPCS.items():
        for name in names:
            yield Call(name, image_request(image) if name == "ModelInfer" else b"", headers, service=of)


def check_http(address: str, callers: Callers, image: bytes) -> None:
    for method, path in CLOSED:
        for headers in callers.wrong():
            status, body = ask(address, method, path, headers, image if method == "POST" else b"")
            assert (status, body.get("code")) == (401, None if method == "HEAD" else "unauthorized"), (method, path)
    status, body = ask(address, "POST", "/v1/classify", callers.right(), image)
    assert (status, body["images"][0]["classes"][0]["class_id"]) == (200, 7)
    assert ask(address, "GET", "/v2/health/ready", {})[0] == 200


def check_grpc(address: str, callers: Callers, image: bytes) -> None:
    for headers in callers.wrong():
        for call in calls(headers, image):
            expected = Status.OK if call.method in PROBES else Status.UNAUTHENTICATED
            assert rpc(address, call).status is expected, call.method
    [infer] = [call for call in calls(callers.right(), image) if call.method == "ModelInfer"]
    assert rpc(address, infer).status is Status.OK


@BOTH
def test_through_the_proxy_every_route_and_every_rpc_needs_the_token(
    service: Service, callers: Callers, samples: dict[int, bytes]
) -> None:
    check_http(service.url.removeprefix("http://"), callers, samples[7])
    check_grpc(service.grpc_address, callers, samples[7])


@BOTH
def test_what_ray_tells_everybody_is_that_it_is_well_and_the_names_of_applications(service: Service) -> None:
    address = service.url.removeprefix("http://")
    assert ask(address, "GET", "/-/healthz", {}) == (200, {})
    assert ask(address, "GET", "/-/routes", {}) == (200, {"/": NAME_OF_APPLICATION})
    listed = rpc(service.grpc_address, Call("ListApplications", b"", service="ray.serve.RayServeAPIService"))
    assert listed.response == b"\n" + bytes([len(NAME_OF_APPLICATION)]) + NAME_OF_APPLICATION.encode()


@HAPROXY
def test_a_replicas_own_ports_need_it_too(service: Service, callers: Callers, samples: dict[int, bytes]) -> None:
    speaks_http, speaks_grpc = [], []
    for port in listening(service):
        address = f"127.0.0.1:{port}"
        if is_http(address):
            speaks_http.append(address)
        elif rpc(address, Call("ServerLive", b"", deadline_s=5)).status is Status.OK:  # Ray's own know nothing of it
            speaks_grpc.append(address)
    assert speaks_http
    assert speaks_grpc
    for address in speaks_http:
        check_http(address, callers, samples[7])
    for address in speaks_grpc:
        check_grpc(address, callers, samples[7])


def listening(service: Service) -> set[int]:
    """Ports of the replicas."""
    found = set()
    for pid in service.replica_pids():
        for connection in psutil.Process(pid).net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                found.add(connection.laddr.port)
    return found


def is_http(address: str) -> bool:
    with suppress(OSError, ValueError, HTTPException):
        return ask(address, "GET", "/v2/health/live", {})[0] == 200
    return False


@HAPROXY
def test_the_answer_does_not_wait_for_the_body(service: Service) -> None:
    addresses = [service.url.removeprefix("http://"), *(f"127.0.0.1:{port}" for port in listening(service))]
    refused = 0
    for address in filter(is_http, addresses):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")
        refused += 1
    assert refused > 1


@BOTH
def test_a_caller_comes_and_goes_while_the_service_runs(
    service: Service, callers: Callers, samples: dict[int, bytes]
) -> None:
    before = callers.path.read_text()
    command = [sys.executable, "-m", "serve_app", "token", "newcomer", "--file", str(callers.path)]
    token = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    headers = {"Authorization": f"Bearer {token}"}

    def status() -> int:
        return service.send(Sent(samples[7], headers))[0].status

    eventually(lambda: status() == 200, 10 * RELOAD_S)
    callers.path.write_text(before)
    eventually(lambda: status() == 401, 10 * RELOAD_S)
    assert service.send(Sent(samples[7], callers.right()))[0].status == 200
    assert service.process.poll() is None


@BOTH
def test_no_log_holds_a_token(service: Service, callers: Callers, samples: dict[int, bytes]) -> None:
    for headers in (callers.right(), *callers.wrong()):
        service.send(Sent(samples[7], headers))
    time.sleep(1)  # for the logs
    folder = Path(service.output.split("logs in ")[1].split()[0]).parent
    texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert any(b"/v1/classify" in text for text in texts)
    for secret in (callers.token, callers.other):
        assert not [text for text in texts if secret.encode() in text]
    assert callers.token not in service.output


def test_a_token_too_fast_is_told_so(tmp_path: Path, samples: dict[int, bytes]) -> None:
    token, caller = create(NAME, 2)
    with running(config(), grpc=True, SERVE_APP_TOKENS=caller.line()) as service:
        headers = {"authorization": f"Bearer {token}"}
        answers = service.send(*[Sent(samples[7], headers) for _ in range(30)])
        assert {answer.status for answer in answers} == {200, 429}
        slow = next(answer for answer in answers if answer.status == 429)
        assert (slow.code, slow.headers["Retry-After"]) == ("rate_limited", "1")
        outcomes = [rpc(service.grpc_address, Call("ModelMetadata", b"", headers)) for _ in range(9)]
        limited = [outcome for outcome in outcomes if outcome.error_code == "rate_limited"]
        assert limited
        assert limited[0].status is Status.RESOURCE_EXHAUSTED
        assert service.send(Sent(samples[7]))[0].status == 401
        assert '-H "Authorization: Bearer $SERVE_APP_TOKEN"' in service.output
