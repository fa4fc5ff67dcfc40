"""One batch on the device: its time is learnt, a hang is noticed."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from serve_app.scheduler.observer import Observer
from serve_app.scheduler.queue import Place
from serve_app.scheduler.times import BatchTimes

Item = TypeVar("Item")
Result = TypeVar("Result")

STALL_FLOOR_S, STALL_FACTOR = 10.0, 20.0
"""It hangs when a batch has taken this long, and that many times longer than predicted."""


class Device(Generic[Item, Result]):
    """Runs batches by `execute(items)`, which returns a result or an exception for each, in order, or raises."""

    def __init__(
        self,
        execute: Callable[[list[Item]], Awaitable[Sequence[Result | BaseException]]],
        times: BatchTimes,
        observer: Observer,
        now: Callable[[], float],
        on_stall: Callable[[], None],
    ) -> None:
        self._execute = execute
        self._times = times
        self._observer = observer
        self._now = now
        self._on_stall = on_stall
        self.busy_until = -math.inf
        """When it is expected to be done with what it has."""
        self.stalled = False
        """Whether it does not come back from a batch."""

    async def run(self, batch: list[Place[Item]]) -> Sequence[Result | BaseException]:
        loop, started = asyncio.get_running_loop(), self._now()
        predicted = self._times.predict(len(batch), started)
        self.busy_until = started + predicted
        watchdog = loop.call_later(max(STALL_FLOOR_S, STALL_FACTOR * predicted), self._stall)
        try:
            results = await self._execute([place.item for place in batch if place.item is not None])
        finally:
            watchdog.cancel()
            self.stalled = False
        if not any(isinstance(result, BaseException) for result in results):
            taken = self._now() - started
            self._times.observe(len(batch), taken, self._now())
            self._observer.executed(self._times.bucket(len(batch)), predicted, taken)
        return results

    def _stall(self) -> None:
        self.stalled = True
        self._on_stall()
