"""A disk that can be full, a clock that can be put forward: for those who are given them, and nobody else."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from serve_app.bench.faults import clock, disk
from serve_app.bench.faults.unavailable import Unavailable
from tests.conftest import REPOSITORY
from tests.waiting import eventually

HOUR_S = 3600


def test_on_a_full_disk_no_log_grows_until_there_is_room_again(tmp_path: Path) -> None:
    try:
        with disk.mounted(tmp_path), (tmp_path / "log").open("wb", buffering=0) as log:
            assert not disk.is_full(tmp_path)
            filling = disk.fill(tmp_path)
            assert disk.is_full(tmp_path)
            with pytest.raises(OSError, match="No space left"):
                log.write(b"line\n" * 10_000)
            filling.unlink()
            assert not disk.is_full(tmp_path)
            assert log.write(b"line\n") == 5
    except Unavailable as error:
        pytest.skip(str(error))
    assert list(tmp_path.iterdir()) == []


def test_a_clock_is_put_forward_under_a_running_process(tmp_path: Path) -> None:
    killed = 0
    try:
        with clock.followed(tmp_path) as variables:
            assert ahead(variables) == pytest.approx(0, abs=60)
            clock.put(tmp_path, HOUR_S)
            assert ahead(variables) == pytest.approx(HOUR_S, abs=60)
            killed = steps_while_running(variables, tmp_path)
            assert left_by(killed)
    except Unavailable as error:
        pytest.skip(str(error))
    assert not left_by(killed)


def test_without_a_library_it_says_where_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(clock, "NAME", "no.such.library")
    with pytest.raises(Unavailable, match=re.escape(clock.INSTALL)), clock.followed(tmp_path):
        pass


def test_a_library_under_which_python_spins_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = tmp_path / clock.NAME
    library.write_bytes(b"\0pthread_cond_timedwait\0")
    monkeypatch.setattr(clock, "_library", lambda: library)
    with pytest.raises(Unavailable, match=re.escape(clock.INSTALL)), clock.followed(tmp_path):
        pass
    library.write_bytes(b"\0clock_gettime\0")
    with clock.followed(tmp_path) as variables:
        assert variables["LD_PRELOAD"] == str(library)


def test_the_makefile_installs_it_so() -> None:
    command = clock.INSTALL.replace("pip install", "$(BIN)/python -m pip install")
    assert f"\t-{command}\n" in (REPOSITORY / "Makefile").read_text()


def test_whoever_answers_tells_his_time() -> None:
    told: list[str] = [formatdate(time.time() + HOUR_S, usegmt=True)]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(b"HTTP/1.0 200 OK\r\n" + b"".join(f"Date: {each}\r\n".encode() for each in told) + b"\r\n")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            assert clock.ahead_s(url) == pytest.approx(HOUR_S, abs=60)
            told.clear()
            with pytest.raises(OSError, match="without the time"):
                clock.ahead_s(url)
        finally:
            server.shutdown()
            thread.join()


def ahead(variables: Mapping[str, str]) -> float:
    """Seconds by which a new process is ahead of this one."""
    said = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env={**os.environ, **variables},
        capture_output=True,
        check=True,
        timeout=60,
    )
    return float(said.stdout) - time.time()


def left_by(pid: int) -> set[Path]:
    """In shared memory, which other clusters of this machine use too."""
    return {path for path in clock._shared() if path.name.endswith(f"_{pid}")}


def steps_while_running(variables: Mapping[str, str], folder: Path) -> int:
    """The id of the process, which is killed."""
    script = "import time\nwhile True: print(time.time() - time.monotonic(), flush=True); time.sleep(0.1)"
    with subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            lines = process.stdout
            before = float(next(lines))
            clock.put(folder, 0)
            eventually(lambda: float(next(lines)) - before == pytest.approx(-HOUR_S, abs=60))
        finally:
            process.kill()
    return process.pid
