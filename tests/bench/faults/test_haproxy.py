"""The admin socket of a node's HAProxy, played by a socket that says what a real one (3.2) does."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.bench.faults import haproxy

NODE = "0a1b"
ANSWERS = {
    "show info": "Name: HAProxy\nVersion: 3.2.0\nPid: 4711\nUptime_sec: 5\n\n",
    "show stat": (
        "# pxname,svname,qcur,qmax,scur,smax,\n"
        "http_frontend,FRONTEND,,,9,9,\n"
        "http-serve-app,SERVE_REPLICA_serve-app-Classifier-abc,0,0,3,5,\n"
        "http-serve-app,SERVE_REPLICA_serve-app-Classifier-def,0,0,0,5,\n"
        "http-serve-app,BACKEND,0,0,3,10,\n\n"
    ),
}


@pytest.fixture
def _admin_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(haproxy, "FOLDER", tmp_path)
    (tmp_path / NODE).mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / NODE / "admin.sock"))
        server.listen()

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.sendall(ANSWERS[connection.recv(100).decode().strip()].encode())

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


@pytest.mark.usefixtures("_admin_socket")
def test_requests_in_flight_are_told_by_server() -> None:
    assert haproxy.in_flight(NODE) == {
        "SERVE_REPLICA_serve-app-Classifier-abc": 3,
        "SERVE_REPLICA_serve-app-Classifier-def": 0,
    }


@pytest.mark.usefixtures("_admin_socket")
def test_the_process_that_answers_is_told() -> None:
    assert haproxy.pid(NODE) == 4711


def test_a_node_without_haproxy_has_nothing_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy, "FOLDER", tmp_path)
    assert haproxy.in_flight(NODE) == {}
    assert haproxy.pid(NODE) is None
