"""The commands that ask a service, by https: they know its certificate, or say what to do."""

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from serve_app import tls
from serve_app.cli import endpoint
from serve_app.cli.bench.local_service import not_ready
from tests.certificates import Authority, Pair

ANSWER = {"images": [{"classes": [{"label": "seven", "score": 0.9}]}]}


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer({"ready": True})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(ANSWER)

    def _answer(self, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.signed("service", "photos.example", "127.0.0.1")


@pytest.fixture
def port(pair: Pair) -> Iterator[int]:
    """Of a server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def classify(port: int, folder: Path, ca: Path) -> tuple[int, dict[str, Any]]:
    (folder / "7.png").write_bytes(b"7")
    command = [sys.executable, "-m", "serve_app", "classify", str(folder / "7.png"), "--json"]
    command += ["--url", f"https://127.0.0.1:{port}"]
    environment = {**os.environ, "SSL_CERT_FILE": str(ca)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return result.returncode, json.loads(result.stdout)


def test_classify_takes_the_ca_of_ssl_cert_file(port: int, authority: Authority, tmp_path: Path) -> None:
    status, answer = classify(port, tmp_path, authority.path)
    assert (status, answer["classes"][0]["label"]) == (0, "seven")


def test_classify_sends_nothing_to_a_service_it_does_not_know(port: int, tmp_path: Path) -> None:
    status, answer = classify(port, tmp_path, Authority(tmp_path, "other").path)
    assert (status, answer["error"]) == (1, tls.UNTRUSTED)


def test_bench_says_what_to_do(port: int, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"https://127.0.0.1:{port}"
    assert not_ready(url) == f"{url}: {tls.UNTRUSTED}"
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    assert not_ready(url) is None


def content(port: int, pair: Pair, **options: Any) -> dict[str, Any]:
    http = {"host": "0.0.0.0", "port": port, **pair.options(), **options}
    return {"http_options": http, "applications": [{"route_prefix": "/"}]}


def test_run_asks_the_service_with_its_certificate_and_no_other(port: int, pair: Pair, authority: Authority) -> None:
    assert endpoint.get(content(port, pair), "/v2/health/ready") == {"ready": True}
    other = authority.signed("other", "photos.example", "127.0.0.1")
    assert endpoint.get(content(port, other), "/v2/health/ready") is None


def test_run_asks_no_proxy_of_the_environment(port: int, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert endpoint.get(content(port, pair), "/v2/health/ready") == {"ready": True}


def test_run_names_the_service_as_its_certificate_does(pair: Pair, authority: Authority) -> None:
    assert endpoint.origin(content(8443, pair)) == "https://photos.example:8443"
    wildcard = authority.signed("wildcard", "*.photos.example")
    assert endpoint.origin(content(8443, wildcard)) == "https://127.0.0.1:8443"
    assert endpoint.origin({"http_options": {"host": "192.0.2.1", "port": 80}}) == "http://192.0.2.1:80"
    assert endpoint.origin({"http_options": {"port": 80}}) == "http://127.0.0.1:80"
