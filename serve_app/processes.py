"""Processes that a command leaves behind: found by an environment variable that all it starts inherits, and ended."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

import psutil


@contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """SIGTERM and SIGHUP end this process by an exception, as Ctrl-C does. Python would leave what it started."""

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    # A signal that is ignored stays so: nohup.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def inheriting(name: str) -> list[psutil.Process]:
    """Those that run with this process's value of the variable, other than itself."""
    return [process for process in with_environment(name, os.environ[name]) if process.pid != os.getpid()]


def with_environment(name: str, value: str) -> list[psutil.Process]:
    """Those that run with this value of the variable."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # gone meanwhile, or another user's
            if process.environ().get(name) == value:
                found.append(process)
    return found


def end(processes: Sequence[psutil.Process], timeout_s: float) -> None:
    """Asked to first, then killed; each is waited for as long."""
    kill(_told(processes, signal.SIGTERM, timeout_s), timeout_s)


def kill(processes: Sequence[psutil.Process], timeout_s: float) -> None:
    """Without being asked; each is waited for: a large one listens for a moment after the signal."""
    _told(processes, signal.SIGKILL, timeout_s)


def _told(processes: Sequence[psutil.Process], number: signal.Signals, timeout_s: float) -> list[psutil.Process]:
    """Who is still there after it."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)
    _, left = psutil.wait_procs(processes, timeout=timeout_s)
    return list(left)
