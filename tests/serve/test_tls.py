"""A service with a certificate, in both proxy modes: HTTP and gRPC, tokens, and nothing in plain text."""

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import grpc
import pytest

from serve_app import tls
from serve_app.grpc import SERVICE
from serve_app.grpc import inference_pb2 as pb
from serve_app.tokens import CLIENT_VARIABLE, add, create
from tests.certificates import Authority
from tests.grpc.calls import image_request
from tests.serve.service import BIN, Service, config, running
from tests.waiting import eventually

HOST = "127.0.0.1"


@dataclass
class Secured:
    """A running service, who is to be trusted to find it, and what it is to be told."""

    service: Service
    authority: Authority
    token: str
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = {"Authorization": f"Bearer {self.token}"}

    @property
    def port(self) -> int:
        port: int = self.service.content["http_options"]["port"]
        return port

    def ask(self, context: ssl.SSLContext, path: str = "/v1/classify", body: bytes | None = None) -> tuple[int, Any]:
        client = HTTPSConnection(HOST, self.port, timeout=30, context=context)
        try:
            client.request("GET" if body is None else "POST", path, body, self.headers)
            answer = client.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            client.close()

    def infer(self, image: bytes, ca: Path | None) -> int:
        """The class, over gRPC. Raises grpc.RpcError."""
        target = f"{HOST}:{self.service.grpc_port}"
        channel = (
            grpc.secure_channel(target, grpc.ssl_channel_credentials(ca.read_bytes()))
            if ca
            else grpc.insecure_channel(target)
        )
        with channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            metadata = (("authorization", f"Bearer {self.token}"),)
            answer = call(image_request(image).SerializeToString(), metadata=metadata, timeout=20)
        response = pb.ModelInferResponse.FromString(answer)
        raw = dict(zip([each.name for each in response.outputs], response.raw_output_contents, strict=True))
        return int.from_bytes(raw["class_ids"][:8], "little")

    def command(self, *arguments: str, ca: Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "SSL_CERT_FILE": str(ca), CLIENT_VARIABLE: self.token}
        command = [sys.executable, "-m", "serve_app", *arguments, "--url", f"https://{HOST}:{self.port}", "--json"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module", params=["1", "0"], ids=["haproxy", "ordinary proxy"])
def secured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    token, caller = create("caller")
    add(folder / "tokens", caller)
    content = config({"tokens_file": str(folder / "tokens")})
    content["http_options"] |= authority.signed("service", HOST, "photos.example").options()
    with running(content, grpc=True, RAY_SERVE_ENABLE_HA_PROXY=request.param) as service:
        yield Secured(service, authority, token)


@pytest.fixture
def trusting(secured: Secured) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(secured.authority.path))


def test_https_answers_whoever_has_the_token(
    secured: Secured, trusting: ssl.SSLContext, samples: dict[int, bytes]
) -> None:
    status, body = secured.ask(trusting, body=samples[7])
    assert (status, body["images"][0]["classes"][0]["label"]) == (200, "seven")
    secured.headers, before = {}, secured.headers
    assert secured.ask(trusting, body=samples[7])[0] == 401
    secured.headers = before


def test_the_port_says_nothing_in_plain_text(secured: Secured, samples: dict[int, bytes]) -> None:
    client = HTTPConnection(HOST, secured.port, timeout=30)
    status = None
    with suppress(HTTPException, OSError):
        client.request("POST", "/v1/classify", samples[7], secured.headers)
        status = client.getresponse().status
    client.close()
    assert status is None


def test_who_trusts_another_authority_or_wants_another_host_gets_no_answer(
    secured: Secured, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    other = ssl.create_default_context(cafile=str(Authority(tmp_path).path))
    with pytest.raises(ssl.SSLCertVerificationError, match="CERTIFICATE_VERIFY_FAILED"):
        secured.ask(other, "/v2/health/live")
    client = HTTPSConnection("localhost", secured.port, timeout=30, context=trusting)
    with pytest.raises(ssl.SSLCertVerificationError, match="localhost"):
        client.request("GET", "/v2/health/live")
    client.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_old_versions_of_tls_are_not_spoken(secured: Secured, trusting: ssl.SSLContext) -> None:
    trusting.minimum_version = trusting.maximum_version = ssl.TLSVersion.TLSv1_1
    trusting.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version|EOF"):  # told so, or hung up on
        secured.ask(trusting, "/v2/health/live")


def test_grpc_has_the_same_certificate(secured: Secured, samples: dict[int, bytes], tmp_path: Path) -> None:
    assert secured.infer(samples[7], secured.authority.path) == 7
    for ca in (Authority(tmp_path).path, None):
        with pytest.raises(grpc.RpcError) as refused:
            secured.infer(samples[7], ca)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_the_commands_find_it_by_its_authority(secured: Secured, samples: dict[int, bytes], tmp_path: Path) -> None:
    image = tmp_path / "7.png"
    image.write_bytes(samples[7])
    known = secured.command("classify", str(image), ca=secured.authority.path)
    assert json.loads(known.stdout)["classes"][0]["label"] == "seven"
    unknown = secured.command("classify", str(image), ca=Authority(tmp_path).path)
    assert (unknown.returncode, json.loads(unknown.stdout)["error"]) == (1, tls.UNTRUSTED)
    load = ("bench", "load", "--rate", "5", "--duration-s", "2", "--repeats", "1", "--images", str(tmp_path / "photos"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "7.png").write_bytes(samples[7])
    measured = secured.command(*load, ca=secured.authority.path)
    assert measured.returncode == 0, measured.stderr
    [row] = json.loads(measured.stdout)["rows"]
    assert row["completed_per_s"] > 0
    refused = secured.command(*load, ca=Authority(tmp_path, "third").path)
    assert (refused.returncode, tls.UNTRUSTED in refused.stderr) == (2, True)


def test_what_the_command_says_is_https(secured: Secured) -> None:
    url = f"https://{HOST}:{secured.port}"
    assert f"ready {url} through " in secured.service.output
    assert f"{url}/v1/classify" in secured.service.output
    assert "http://127.0.0.1:" not in secured.service.output.partition("live  ")[0]


def test_a_live_update_leaves_tls_as_it_is(
    secured: Secured, trusting: ssl.SSLContext, samples: dict[int, bytes]
) -> None:
    content = secured.service.content
    content["applications"][0]["deployments"][0]["user_config"]["top_k"] = 3

    def classes() -> int:
        status, body = secured.ask(trusting, body=samples[7])
        assert status == 200
        return len(body["images"][0]["classes"])

    assert classes() == 5
    secured.service.deploy(content)
    eventually(lambda: classes() == 3, 60)
    with pytest.raises(grpc.RpcError):
        secured.infer(samples[7], None)


def test_a_key_with_a_password_starts_nothing(tmp_path: Path) -> None:
    pair = Authority(tmp_path).signed("service", HOST, password="sesame")
    path = tmp_path / "config.json"
    content = config()
    content["http_options"] |= {**pair.options(), "ssl_keyfile_password": "sesame"}
    path.write_text(json.dumps(content))
    result = subprocess.run([BIN / "serve-app", "run", path], capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert "openssl pkey" in " ".join(result.stderr.split())
