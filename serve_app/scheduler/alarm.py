"""One timer, set anew each time, which never rings inside the call that sets it."""

import asyncio
import math
from collections.abc import Callable


class Alarm:
    """Even an immediate ring goes through the loop: items that arrive in the same turn then share the batch."""

    def __init__(self, ring: Callable[[], object], now: Callable[[], float]) -> None:
        self._ring = ring
        self._now = now
        self._handle: asyncio.Handle | None = None
        self._when = math.inf

    def set(self, when: float) -> None:
        """Ring at that time (infinite: not at all), instead of at the one set before."""
        if self._handle is not None:
            if self._when <= self._now():
                return  # it is due: put off each time an image comes, it might never be
            self._handle.cancel()
            self._handle = None
        loop, self._when = asyncio.get_running_loop(), when
        if when <= self._now():
            self._handle = loop.call_soon(self._rung)
        elif when < math.inf:
            self._handle = loop.call_at(when, self._rung)

    def _rung(self) -> None:
        self._handle = None
        self._ring()
