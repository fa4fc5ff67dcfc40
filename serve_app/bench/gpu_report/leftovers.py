"""What a row leaves running, found by an environment variable that all it starts inherits, and ended."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psutil

from serve_app import processes

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
    left = [process for process in processes.inheriting(MARK) if not _is_kept(process)]
    processes.end(left, END_TIMEOUT_S)


def _is_kept(process: psutil.Process) -> bool:
    try:
        return KEPT in " ".join(process.cmdline())
    except psutil.Error:  # gone meanwhile
        return True
