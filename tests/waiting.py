"""What comes true by itself, some time after what caused it."""

import time
from collections.abc import Callable

TIMEOUT_S = 120.0


def eventually(holds: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Returns once it holds; fails if it does not in that time, generous, which is no measure of speed."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.3)
