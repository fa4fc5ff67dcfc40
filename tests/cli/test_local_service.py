import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from serve_app.cli.bench import local_service
from serve_app.cli.bench.local_service import Service, StartError, on_device, running

TIMEOUT_S = 60.0


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        ("cpu", None, {}),
        ("stub", "0,1", {}),
        ("cuda:1", None, {"CUDA_VISIBLE_DEVICES": "1"}),
        ("cuda:0", "3", {"CUDA_VISIBLE_DEVICES": "3"}),
        ("cuda:1", "GPU-5a, MIG-7b", {"CUDA_VISIBLE_DEVICES": "MIG-7b"}),
    ],
)
def test_a_service_finds_the_gpu_that_torch_found_here(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str | None, expected: dict[str, str]
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert on_device(device) == expected


def test_one_that_does_not_start_says_why() -> None:
    with pytest.raises(StartError, match="applications"), running({"nonsense": 1}):
        pass


def test_one_that_is_not_ready_in_time_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def asleep(_: object, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start(["sleep", "60"], **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", asleep)
    with pytest.raises(StartError, match="no service at"), running({}, start_timeout_s=0.5):
        pass
    assert started[0].poll() is not None


def test_its_dashboard_is_where_it_says_a_moment_after_it_is_ready(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service = Service("http://127.0.0.1:8000", tmp_path / "output.txt", 1)
    service.log.write_text("ready http://127.0.0.1:8000 through HAProxy\n")

    def announce(_: float) -> None:
        with service.log.open("a") as log:
            log.write("live  RAY_AUTH_MODE=token .venv/bin/serve deploy -a http://127.0.0.1:8266 CONFIG\n")

    monkeypatch.setattr("time.sleep", announce)
    assert service.dashboard_url() == "http://127.0.0.1:8266"


def test_one_that_does_not_say_where_its_dashboard_is_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local_service, "ANNOUNCE_TIMEOUT_S", 0.1)
    log = tmp_path / "output.txt"
    log.touch()
    with pytest.raises(StartError, match="dashboard"):
        Service("http://127.0.0.1:8000", log, 1).dashboard_url()


# A process that measures a service: one that only sleeps.
MEASURING = """
import signal, subprocess, sys
from serve_app.cli.bench import local_service
start = subprocess.Popen
def asleep(command, **options):
    service = start(["sleep", "60"], **options)
    print(service.pid, flush=True)
    return service
subprocess.Popen = asleep
local_service._wait_until_ready = lambda *_: None
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1] == "nohup" else signal.SIG_DFL)
with local_service.running({}):
    print("measuring", flush=True)
    print(sys.stdin.readline(), end="", flush=True)
"""


@contextmanager
def measuring(how: str) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """The measuring process, and the service that it has started."""
    with subprocess.Popen(
        [sys.executable, "-c", MEASURING, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        service = psutil.Process(int(process.stdout.readline()))
        assert process.stdout.readline() == "measuring\n"
        try:
            yield process, service
        finally:
            process.kill()
            with suppress(psutil.NoSuchProcess):
                service.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_whatever_ends_the_measuring_ends_the_service(number: signal.Signals) -> None:
    with measuring("in a terminal") as (process, service):
        process.send_signal(number)
        assert process.wait(TIMEOUT_S) != 0
        assert not service.is_running()


def test_under_nohup_it_survives_the_terminal() -> None:
    with measuring("nohup") as (process, service):
        process.send_signal(signal.SIGHUP)
        answer, _ = process.communicate("still here\n", TIMEOUT_S)
        assert answer == "still here\n"
        assert process.returncode == 0
        assert not service.is_running()
