"""Slot-first release: waiting items -> batches, formed only when the device is free to take them.

`@serve.batch` of Ray 2.48 to 2.60 cuts a batch when its wait is over, device free or not: with a
wait below the service time, 500 requests/s of Poisson traffic collapse into small sealed batches
that queue (156/s, p99 11 s). Here an idle device starts at once, a busy one collects a full batch.

Pure asyncio: no Ray, no threads. All methods run on one event loop.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Scheduled(Generic[Result]):
    """What became of an item, and how long it waited for its batch to be released."""

    result: Result
    queue_ms: float


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    since: float
    outcome: "asyncio.Future[Scheduled[Result]]"


@dataclass(frozen=True)
class _Finished(Generic[Item, Result]):
    batch: list[_Waiting[Item, Result]]
    results: Sequence[Result | BaseException]
    released: float

    def deliver(self) -> None:
        for waiting, result in zip(self.batch, self.results, strict=True):
            if waiting.outcome.done():  # its caller has gone meanwhile
                continue
            if isinstance(result, BaseException):
                waiting.outcome.set_exception(result)
            else:
                waiting.outcome.set_result(Scheduled(result, (self.released - waiting.since) * 1e3))


class Scheduler(Generic[Item, Result]):
    """Releases waiting items to `execute`, first come first served.

    `execute(items)` runs one batch and returns, in order, a result or an exception for each item.
    While it runs, the slot is taken and items wait. A free slot takes what waits: at once, or, with
    `batch_wait_timeout_s`, when `max_batch_size` items wait or the oldest has waited that long.

    Results are held back until the next batch has started (see `started`), or there is none.
    """

    def __init__(
        self,
        execute: Callable[[list[Item]], Awaitable[Sequence[Result | BaseException]]],
        max_batch_size: int,
        batch_wait_timeout_s: float = 0.0,
    ) -> None:
        self._execute = execute
        self._max_batch_size = max_batch_size
        self._batch_wait_timeout_s = batch_wait_timeout_s
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._running: asyncio.Task[None] | None = None
        self._finished: _Finished[Item, Result] | None = None
        self._wake: asyncio.Handle | None = None

    def __len__(self) -> int:
        """Items that wait; those in execution are not counted."""
        return len(self._queue)

    def configure(self, max_batch_size: int, batch_wait_timeout_s: float) -> None:
        """New settings for every batch released from now on; what waits is kept."""
        self._max_batch_size = max_batch_size
        self._batch_wait_timeout_s = batch_wait_timeout_s
        if self._queue:
            self._wake_at(asyncio.get_running_loop().time())

    async def submit(self, item: Item) -> Scheduled[Result]:
        """Wait for a batch, ride in it, return the item's own result or raise its own exception.

        Cancelled while waiting, the item leaves the queue and never reaches `execute`.
        """
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Item, Result] = _Waiting(item, loop.time(), loop.create_future())
        self._queue.append(waiting)
        if self._running is None:
            self._wake_at(self._release_time())
        try:
            return await waiting.outcome
        except asyncio.CancelledError:
            if waiting in self._queue:
                self._queue.remove(waiting)
            raise

    def _release_time(self) -> float:
        """When a free slot takes what waits, in loop time."""
        if len(self._queue) >= self._max_batch_size:
            return self._queue[0].since
        return self._queue[0].since + self._batch_wait_timeout_s

    def _wake_at(self, when: float) -> None:
        # Even an immediate release goes through the loop: items that arrive in the same turn of the
        # loop then share the batch.
        if self._wake is not None:
            self._wake.cancel()
        loop = asyncio.get_running_loop()
        delay = when - loop.time()
        self._wake = loop.call_later(delay, self._release) if delay > 0 else loop.call_soon(self._release)

    def _release(self) -> None:
        self._wake = None
        if self._running is not None or not self._queue:
            return
        if self._release_time() > asyncio.get_running_loop().time():
            self._wake_at(self._release_time())
            return
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._max_batch_size))]
        self._running = asyncio.create_task(self._run(batch))

    async def _run(self, batch: list[_Waiting[Item, Result]]) -> None:
        released = asyncio.get_running_loop().time()
        results: Sequence[Result | BaseException]
        try:
            results = await self._execute([waiting.item for waiting in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for a batch of {len(batch)}")
        except asyncio.CancelledError:  # the replica stops: nobody may wait for an answer any more
            results = [asyncio.CancelledError()] * len(batch)
        except Exception as error:
            results = [error] * len(batch)
        self._running = None
        self.started()  # a batch that never started must not keep the last one's answers
        self._finished = _Finished(batch, results, released)
        self._release()
        if self._running is None:
            self.started()

    def started(self) -> None:
        """`execute` calls this once the device works on its batch: now the last batch's callers wake.

        To write N answers keeps the event loop busy for about N ms. Done before the next batch is on
        its way, it left the device idle for as long as it worked (a cycle of 19 ms for 8.4 ms of work).
        """
        finished, self._finished = self._finished, None
        if finished is not None:
            finished.deliver()
