"""How long the event loop takes to come round: what all that passes through it waits for, again and again."""

import asyncio
import math
from collections.abc import Callable

from serve_app.scheduler.times import Estimate

WAY_TURNS = 6
"""Turns that an image waits for besides its preparation and its batch: to be read, handed on, answered. A replica
bound by Python, objective 500 ms, at 2.2 times what it can answer (two noisy cores): with 0, 5 % of that in time and
answers of 2.9 s; with 6, 32 and 95 %, none over 1 s; with 12, 29 %."""
WINDOW = 4
"""Of so many turns the median: one long turn is chance, four are load."""
STALE_S = 1.0


class LoopTurn:
    """Measured when somebody looks: an idle loop is not woken for it. For the event loop's own thread."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._begun_at = self._observed_at = -math.inf
        self._is_measuring = False
        self._estimate = Estimate(0.5, WINDOW)

    def look(self) -> float:
        """Seconds that a turn takes now; 0 as long as nobody has looked for a while."""
        now = self._now()
        if not self._is_measuring:
            self._is_measuring, self._begun_at = True, now
            asyncio.get_running_loop().call_soon(self._turned)
        if now - self._observed_at > STALE_S:
            self._estimate = Estimate(0.5, WINDOW)
        return self._estimate.value

    def _turned(self) -> None:
        self._is_measuring, self._observed_at = False, self._now()
        self._estimate.observe(self._observed_at - self._begun_at)
