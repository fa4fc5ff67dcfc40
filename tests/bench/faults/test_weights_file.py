"""Whose weights answer while their file is not what it was: told by the service, or by nobody."""

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import cast

import pytest

from serve_app.bench.faults import kills, updates, weights_file
from serve_app.bench.faults.event import Done, Stage
from serve_app.bench.faults.layout import WEIGHTS

Told = Callable[[bytes], None]


@pytest.fixture
def told() -> Iterator[tuple[str, Told]]:
    """A service's address, and how to have it answer with that from now on."""
    body = b'{"weights_sha256": "mine"}'

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + body if body else b"")

        def log_message(self, *_: object) -> None:
            pass

    def tell(new: bytes) -> None:
        nonlocal body
        body = new

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", tell
        server.shutdown()
        thread.join()


@pytest.fixture
def stage(told: tuple[str, Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Of which a replica was killed, with two requests on it."""
    monkeypatch.setattr(kills, "replica", lambda _: Done(1.0, lambda _: True, 2, ended=1.5))
    weights_file.put(tmp_path)
    return cast(Stage, SimpleNamespace(cluster=SimpleNamespace(url=told[0], folder=tmp_path)))


@pytest.mark.parametrize("change", [weights_file.gone, weights_file.others, weights_file.garbage])
def test_others_than_before_are_wrong_and_the_file_comes_back(
    change: Callable[[Stage], Done], stage: Stage, told: tuple[str, Told]
) -> None:
    path = stage.cluster.folder / WEIGHTS
    done = change(stage)
    assert not path.exists() or path.read_bytes() != updates.BUNDLED.read_bytes()
    assert (done.began, done.in_flight, done.ended) == (1.0, 2, 1.5)
    assert done.wrong_weights() == set()
    told[1](b'{"weights_sha256": "others"}')
    assert done.wrong_weights() == {"others"}
    assert done.mend is not None
    done.mend()
    assert path.read_bytes() == updates.BUNDLED.read_bytes()


@pytest.mark.parametrize("answer", [b"", b"<html>"], ids=["nothing", "no JSON"])
def test_whatever_is_wrong_with_an_answer_is_an_oserror(answer: bytes, stage: Stage, told: tuple[str, Told]) -> None:
    told[1](answer)
    with pytest.raises(OSError):
        updates.metadata(stage)
