"""What a row leaves running, found by an environment variable that all it starts inherits, and ended."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import psutil

MARK = "SERVE_APP_GPU_REPORT"
END_TIMEOUT_S = 2.0
KEPT = "multiprocessing.resource_tracker"
"""Our own helper, which lives as long as we do."""


@contextmanager
def marked() -> Iterator[None]:
    """What is started meanwhile is found by `end`."""
    os.environ[MARK] = uuid4().hex
    try:
        yield
    finally:
        end()
        del os.environ[MARK]


def end() -> None:
    """End every process started since `marked` that still runs."""
    left = [process for process in psutil.process_iter() if _is_ours(process)]
    for process in left:
        _send(process, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(left, timeout=END_TIMEOUT_S)
    for process in stubborn:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(stubborn, timeout=END_TIMEOUT_S)


def _is_ours(process: psutil.Process) -> bool:
    try:
        is_marked = process.pid != os.getpid() and process.environ().get(MARK) == os.environ[MARK]
        return is_marked and KEPT not in " ".join(process.cmdline())
    except (psutil.Error, OSError):  # gone meanwhile, or another user's
        return False


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.Error):
        process.send_signal(number)
