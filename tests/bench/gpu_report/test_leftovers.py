import os
import subprocess
import sys

import psutil
import pytest

from serve_app.bench.gpu_report import caches, leftovers

STUBBORN = (
    'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print("deaf", flush=True); time.sleep(60)'
)
# Its child outlives it, as Ray's agents do.
PARENT = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]).pid, flush=True)"


def has_ended(process: psutil.Process) -> bool:
    """An orphan stays a zombie where nobody is there to bury it: containers without init."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_what_was_started_meanwhile_is_ended_however_stubborn_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leftovers, "END_TIMEOUT_S", 0.5)
    with subprocess.Popen(["sleep", "60"]) as before:
        with (
            leftovers.marked(),
            subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent,
        ):
            assert parent.stdout is not None
            orphan = psutil.Process(int(parent.stdout.readline()))
            assert parent.stdout.readline() == "deaf\n"
            parent.wait()
            assert orphan.is_running()
            leftovers.end()
            assert has_ended(orphan)
        assert before.poll() is None
        before.kill()
    assert leftovers.MARK not in os.environ


def test_compiled_code_goes_to_an_empty_folder_and_the_environment_is_as_before() -> None:
    before = dict(os.environ)
    with caches.empty():
        first = [os.environ[name] for name in caches.VARIABLES]
        assert not any(os.path.exists(folder) for folder in first)
    assert dict(os.environ) == before
    with caches.empty():
        assert [os.environ[name] for name in caches.VARIABLES] != first
