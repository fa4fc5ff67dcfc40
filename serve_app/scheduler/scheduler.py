"""From the door to the answer: admission by deadline, release to the device, expiry, stalls.

`@serve.batch` of Ray 2.48 to 2.60 cuts a batch when its wait is over, device free or not: 500 requests/s
collapse into small sealed batches (156/s, p99 11 s). Here a batch is formed when the device is free.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from time import thread_time
from typing import Any, Generic, TypeVar

from serve_app.errors import DeadlineExceeded, DeviceStalled, RequestError
from serve_app.scheduler.admission import MARGIN, Admission
from serve_app.scheduler.alarm import Alarm
from serve_app.scheduler.delivery import Delivery, Scheduled
from serve_app.scheduler.device import Device
from serve_app.scheduler.isolation import Isolation
from serve_app.scheduler.load import WAIT_BATCHES, Load, LoadMeter
from serve_app.scheduler.loop_turn import WAY_TURNS, LoopTurn
from serve_app.scheduler.observer import Observer
from serve_app.scheduler.policy import Policy
from serve_app.scheduler.queue import Place, Queue, Terms
from serve_app.scheduler.times import BatchTimes

Item = TypeVar("Item")
Result = TypeVar("Result")
T = TypeVar("T")

RETRY_AFTER_STALL_S = 10.0
EARLY_S = 0.005  # a timer that is to release an image before it expires must not be late itself


class Scheduler(Generic[Item, Result]):
    """Admits images by their deadlines and releases them to `execute(items)`.

    `execute` runs one batch and returns, in order, a result or an exception for each item. A device that is
    free takes what is ready at once (or after `batch_wait_timeout_s`): earliest deadline first, as many as
    fit so that the earliest deadline among them holds. A device that is busy takes one more beside, up to
    `max_in_flight`, only if it is full: it is prepared while the other runs, and could not have grown.

    Results are held back until the next batch has started (see `started`), or there is none.
    `clock` must agree with the event loop's, which is the default; uvloop's own counts whole milliseconds.
    """

    def __init__(
        self,
        execute: Callable[[list[Item]], Awaitable[Sequence[Result | BaseException]]],
        policy: Policy,
        observer: Observer | None = None,
        num_preparers: int = 1,
        on_stall: Callable[[], None] = lambda: None,
        clock: Callable[[], float] | None = None,
        max_in_flight: int = 1,
        on_failing: Callable[[], None] = lambda: None,
    ) -> None:
        self._policy = policy
        self._observer = observer or Observer()
        self._on_stall = on_stall
        self._now = clock or _loop_time
        self._queue: Queue[Item] = Queue()
        self._numbers = 0
        self._running: dict[asyncio.Task[Any], list[Place[Item]]] = {}  # each with what it runs, in however many parts
        self._max_in_flight = max_in_flight
        self._reserved = 0
        self._delivery: Delivery[Result] = Delivery(self._observer, self._now)
        self._alarm = Alarm(self._release, self._now)
        self.times = BatchTimes()
        self._load = LoadMeter()
        self._loop_turn = LoopTurn(self._now)
        self._device: Device[Item, Result] = Device(
            execute, self.times, self._observer, self._now, self._stall, self._load
        )
        self.isolation: Isolation[Place[Item], Result] = Isolation(
            self._device.run, self._is_wanted, self._observer.split, on_failing
        )
        self.admission = Admission(self._queue, self.times, num_preparers)

    @property
    def stalled(self) -> bool:
        """Whether the device does not come back from a batch."""
        return self._device.stalled

    def __len__(self) -> int:
        """Images inside that are not on the device yet."""
        return len(self._queue)

    def load(self) -> Load:
        """Since it was last asked for; see LoadMeter."""
        now = self._now()
        limit = self._batch_limit(now)
        full_batch_s = self.times.predict(limit, now)
        tolerable_s = WAIT_BATCHES * full_batch_s
        if self._policy.latency_slo_s is not None:
            # Two batches fit into it, where any do: one to wait for, one to ride in.
            tolerable_s = max((1 - MARGIN) * self._policy.latency_slo_s - full_batch_s, self.times.predict(1, now))
        wait_s = self.admission.wait_s(limit, self._device.busy_until if self._running else None, now)
        per_image_s = max(full_batch_s / limit, self.admission.preparation_share_s)
        return self._load.read(now, thread_time(), per_image_s, wait_s, tolerable_s)

    def configure(self, policy: Policy, buckets: Sequence[int], warm_up_s: Mapping[int, float]) -> None:
        """New settings for every batch released from now on; what waits is kept."""
        self._policy = policy
        self.times.configure(buckets, warm_up_s)
        self._alarm.set(self._now())

    # --- the door ------------------------------------------------------------------------------------

    def check(self, terms: Terms) -> bool:
        """Raise what `admitted` would: DeadlineExceeded, DeviceStalled, QueueFull or Overloaded.

        True if it would be let in only to try the prediction.
        """
        now = self._now()
        if terms.deadline <= now:  # it passed while the image came in
            self._observer.expired()
            raise _expired_error()
        try:
            if self.stalled:
                raise _stalled_error()
            busy_until = self._device.busy_until if self._running else None
            way_s = self._loop_turn.look() * WAY_TURNS
            return self.admission.check(
                terms, self._policy.max_queue_size, self._batch_limit(now), busy_until, now, way_s
            )
        except RequestError as error:
            self._observer.refused(error.code)
            if self.admission.is_possible(terms, now):
                self._load.arrived()
            raise

    @asynccontextmanager
    async def admitted(self, terms: Terms) -> AsyncIterator[Place[Item]]:
        """A place in the queue, for an image that is yet to be prepared; left when the block is.

        Raises what `check` says; and DeadlineExceeded as soon as the deadline cannot be met any more,
        wherever the block then is, unless the image is on the device.
        """
        place = self._place(terms, is_probe=self.check(terms))
        self._load.arrived()
        self._queue.add(place)
        try:
            async with place.timeout:
                place.timeout.reschedule(place.latest_start if math.isfinite(place.latest_start) else None)
                yield place
        except TimeoutError:
            if not place.timeout.expired():
                raise
            self._observer.expired()
            raise _expired_error() from None
        except asyncio.CancelledError:
            if place in self._queue:
                self._observer.departed() if self._now() < place.latest_start else self._observer.expired()
            raise
        finally:
            self._queue.remove(place)

    async def execute(self, place: Place[Item], item: Item) -> Scheduled[Result]:
        """Wait for a batch, ride in it, return the item's own result or raise its own exception."""
        if self.stalled:
            raise _stalled_error()
        self._queue.fill(place, item, self._now())
        if len(self._running) < self._max_in_flight:
            self._alarm.set(self._release_time(self._now()))
        result: Scheduled[Result] = await place.outcome
        return result

    def _place(self, terms: Terms, is_probe: bool) -> Place[Item]:
        now = self._now()
        self._numbers += 1
        if is_probe:
            self.admission.probed(now)
        shortest = self.times.best(1) if is_probe else self.times.predict(1, now)
        return Place(terms, self._numbers, terms.deadline - shortest, asyncio.get_running_loop().create_future())

    # --- release -------------------------------------------------------------------------------------

    def _batch_limit(self, now: float) -> int:
        """Images in a batch at most: as configured, as the objective allows, as has not failed lately."""
        limit = min(self._policy.max_batch_size, self.isolation.limit or self._policy.max_batch_size)
        if self._policy.latency_slo_s is None:
            return limit
        return self.times.largest_within(limit, (1 - MARGIN) * self._policy.latency_slo_s / 2, now)

    def _release_time(self, now: float) -> float:
        """When the device takes what is ready."""
        limit = self._batch_limit(now)
        if self._running and self._queue.prepared < limit:
            return math.inf
        ready = self._queue.ready(now)
        if not ready or (self._running and len(ready) < limit):
            return math.inf
        if len(ready) >= limit or not self._policy.batch_wait_timeout_s:
            return now
        longest = max(self.times.predict(limit, now), self.times.predict(1, now))
        latest = min(place.terms.deadline for place in ready) - longest - EARLY_S
        return min(latest, min(place.ready_at for place in ready) + self._policy.batch_wait_timeout_s)

    def _release(self) -> bool:
        """Whether a batch could be released."""
        now = self._now()
        if self._reserved or len(self._running) >= self._max_in_flight:
            return False
        if (when := self._release_time(now)) > now:
            self._alarm.set(when)
            return False
        limit = self._batch_limit(now)
        batch = self._queue.choose(limit, now)
        is_full = len(batch) >= limit
        left = min(place.terms.deadline for place in batch) - self._device.free_at(now)
        if self._running and self.times.predict(len(batch), now) > left:
            return False
        if (fitting := self.times.largest_within(len(batch), left, now)) < len(batch):
            batch, is_full = self._queue.choose(fitting, now), True
        self._queue.take(batch, now)
        self._device.expect(batch, is_full, now)
        for place in batch:
            place.timeout.reschedule(None)
            self._observer.queued(now - place.ready_at)
        self._running[asyncio.create_task(self._run(batch, now))] = batch
        if len(self._running) < self._max_in_flight:
            self._alarm.set(self._release_time(now))  # another one may be full already
        return True

    async def _run(self, batch: list[Place[Item]], released: float) -> None:
        results: Sequence[Result | BaseException]
        try:
            results = await self.isolation.run(batch)
        except asyncio.CancelledError:  # the replica stops: nobody may wait for an answer any more
            results = [asyncio.CancelledError()] * len(batch)
        except Exception as error:  # a bug of ours: the slot is to be free again
            results = [error] * len(batch)
        self._forget(asyncio.current_task())
        self._delivery.deliver()  # a batch that never started must not keep the last one's answers
        self._delivery.hold(batch, results, released)
        if not self._release():
            self._delivery.deliver()

    def _forget(self, task: "asyncio.Task[Any] | None") -> None:
        if task is not None:
            self._running.pop(task, None)

    async def alone(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `work` returns, which has the device for itself, between two batches: it counts for none of them."""
        self._reserved += 1
        task: asyncio.Task[T] | None = None
        try:
            while self._running:
                await asyncio.wait(self._running)
            task = asyncio.create_task(work())
            self._running[task] = []
            return await task
        finally:
            self._reserved -= 1
            self._forget(task)
            self._alarm.set(self._now())

    @property
    def has_results(self) -> bool:
        """Whether callers wait for `started`. May be asked in any thread by whoever executes a batch."""
        return self._delivery.is_holding

    def started(self) -> None:
        """`execute` calls this once the device works on its batch: now the last batch's callers wake."""
        self._delivery.deliver()

    def _stall(self) -> None:
        """Nobody waits for a device that hangs: neither what is on it, nor what waits for it."""
        self._delivery.deliver()
        for place in (*chain.from_iterable(self._running.values()), *self._queue.ready(self._now())):
            if not place.outcome.done():
                place.outcome.set_exception(_stalled_error())
        self._on_stall()

    def _is_wanted(self, place: Place[Item]) -> bool:
        """Whether somebody still waits for it, when its batch has failed and is run again."""
        if not place.outcome.done() and self._now() > place.terms.deadline:
            self._observer.expired()
            place.outcome.set_exception(_expired_error())
        return not place.outcome.done()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _expired_error() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the image could reach the device")


def _stalled_error() -> DeviceStalled:
    return DeviceStalled(
        "the device does not answer; this replica is being replaced: try again shortly", RETRY_AFTER_STALL_S
    )
