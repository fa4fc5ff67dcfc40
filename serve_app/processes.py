"""Processes that a command leaves behind: found by an environment variable that all it starts inherits, and ended."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress

import psutil


def inheriting(name: str) -> list[psutil.Process]:
    """Those that run with this process's value of the variable, other than itself."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # gone meanwhile, or another user's
            if process.pid != os.getpid() and process.environ().get(name) == os.environ[name]:
                found.append(process)
    return found


def end(processes: Sequence[psutil.Process], timeout_s: float) -> None:
    """Asked to first, then killed; each is waited for as long."""
    stubborn = _told(processes, signal.SIGTERM, timeout_s)
    _told(stubborn, signal.SIGKILL, timeout_s)


def _told(processes: Sequence[psutil.Process], number: signal.Signals, timeout_s: float) -> list[psutil.Process]:
    """Who is still there after it."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)
    _, left = psutil.wait_procs(processes, timeout=timeout_s)
    return list(left)
