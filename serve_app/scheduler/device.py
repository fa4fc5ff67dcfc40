"""Batches on the device, one after another: their times are learnt, a hang is noticed."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve_app.scheduler.isolation import is_unknown
from serve_app.scheduler.load import LoadMeter
from serve_app.scheduler.observer import Observer
from serve_app.scheduler.queue import Place
from serve_app.scheduler.times import BatchTimes

Item = TypeVar("Item")
Result = TypeVar("Result")

STALL_FLOOR_S, STALL_FACTOR = 10.0, 20.0
"""It hangs when a batch has taken this long, and that many times longer than predicted."""
LINGERING = 0.1
"""Of that time, after which the observer is told: of the hang itself it may be too late to tell, for the process
ends then, and Ray collects metrics every ten seconds."""


@dataclass(eq=False)
class _Flight:
    """A batch that is on the device, or on its way to it."""

    batch: object
    predicted: float
    is_full: bool
    """It could not have been larger."""
    begun: float
    """When it came, or the one before it was done: its own time begins with the later of these."""


class Device(Generic[Item, Result]):
    """Runs batches by `execute(items)`, which returns a result or an exception for each, in order, or raises.

    It works on them in the order in which they come; one that fails may be back before those ahead of it.
    """

    def __init__(
        self,
        execute: Callable[[list[Item]], Awaitable[Sequence[Result | BaseException]]],
        times: BatchTimes,
        observer: Observer,
        now: Callable[[], float],
        on_stall: Callable[[], None],
        load: LoadMeter,
    ) -> None:
        self._execute = execute
        self._times = times
        self._observer = observer
        self._now = now
        self._on_stall = on_stall
        self._load = load
        self._flights: list[_Flight] = []  # in order: it works on the first
        self._watched: _Flight | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self.busy_until = -math.inf
        """When it is expected to be done with what it has, as it began with the first of it."""
        self.stalled = False
        """Whether it does not come back from a batch."""

    def free_at(self, now: float) -> float:
        """When it is expected to begin with a batch that comes now."""
        if not self._flights:
            return now
        first, *others = self._flights
        return max(now, first.begun + first.predicted) + sum(flight.predicted for flight in others)

    def expect(self, batch: list[Place[Item]], is_full: bool, now: float) -> _Flight:
        """This batch is on its way: `run` is called with it in the loop's next turn."""
        flight = _Flight(batch, self._times.predict(len(batch), now), is_full, now)
        self._flights.append(flight)
        self._count()
        return flight

    def _count(self) -> None:
        if self._flights:
            self.busy_until = self._flights[0].begun + sum(flight.predicted for flight in self._flights)

    async def run(self, batch: list[Place[Item]]) -> Sequence[Result | BaseException]:
        expected = next((flight for flight in self._flights if flight.batch is batch), None)
        if expected is not None:
            self._flights.remove(expected)
        flight = self.expect(batch, expected is not None and expected.is_full, self._now())
        self._watch()
        try:
            results = await self._execute([place.item for place in batch if place.item is not None])
        finally:
            self._end(flight)
        if not any(map(is_unknown, results)):
            now = self._now()
            self._times.observe(len(batch), now - flight.begun, now)
            if flight.is_full:
                self._load.executed_full(now - flight.begun)
            self._observer.executed(self._times.bucket(len(batch)), flight.predicted, now - flight.begun)
        return results

    def _end(self, ended: _Flight) -> None:
        position = self._flights.index(ended)
        del self._flights[position]
        for flight in self._flights[position:]:
            flight.begun = self._now()
        self._count()
        self._watch()

    def _watch(self) -> None:
        """The watchdog is set for the first, once it is that: those behind it wait for it."""
        first = self._flights[0] if self._flights else None
        if first is self._watched:
            return
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watched, self._watchdog, self.stalled = first, None, False
        if first is not None:
            patience = max(STALL_FLOOR_S, STALL_FACTOR * first.predicted)
            self._set_watchdog(LINGERING * patience, lambda: self._linger((1 - LINGERING) * patience))

    def _set_watchdog(self, seconds: float, action: Callable[[], None]) -> None:
        self._watchdog = asyncio.get_running_loop().call_later(seconds, action)

    def _linger(self, left_s: float) -> None:
        self._observer.lingered()
        self._set_watchdog(left_s, self._stall)

    def _stall(self) -> None:
        self.stalled = True
        self._on_stall()
