"""Devices that are none, and callers for them."""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from serve_app.scheduler import Observer, Policy, Priority, Scheduler, Terms


class Counts(Observer):
    """Counts each event by its name; refusals by their reason."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()
        self.actual_s: list[float] = []
        """Of each batch that was executed."""

    def queued(self, seconds: float) -> None:
        self.of["queued"] += 1

    def executed(self, bucket: int, predicted_s: float, actual_s: float) -> None:
        self.of["executed"] += 1
        self.actual_s.append(actual_s)

    def refused(self, reason: str) -> None:
        self.of[reason] += 1

    def expired(self) -> None:
        self.of["expired"] += 1

    def departed(self) -> None:
        self.of["departed"] += 1

    def missed(self) -> None:
        self.of["missed"] += 1

    def split(self) -> None:
        self.of["split"] += 1

    def lingered(self) -> None:
        self.of["lingered"] += 1


class SteppedDevice:
    """Executes batches of numbers; each runs until `finish`, the one that came first unless another is named."""

    def __init__(self, policy: Policy, says_started: bool = True, max_in_flight: int = 1) -> None:
        self.batches: list[list[int]] = []
        self.counts = Counts()
        self.scheduler: Scheduler[int, int] = Scheduler(self._execute, policy, self.counts, max_in_flight=max_in_flight)
        self._says_started = says_started
        self._running: list[tuple[list[int], asyncio.Future[list[int | BaseException]]]] = []

    @property
    def in_flight(self) -> list[list[int]]:
        """What is there, first come first."""
        return [items for items, _ in self._running]

    async def _execute(self, items: list[int]) -> list[int | BaseException]:
        self.batches.append(items)
        if self._says_started:
            self.scheduler.started()
        done: asyncio.Future[list[int | BaseException]] = asyncio.get_running_loop().create_future()
        entry = items, done
        self._running.append(entry)
        try:
            return await done
        finally:
            self._running.remove(entry)

    def finish(self, results: list[int | BaseException] | None = None, which: int = 0) -> None:
        items, future = self._running[which]
        future.set_result([item * 10 for item in items] if results is None else results)

    def cancel(self, which: int = 0) -> None:
        self._running[which][1].cancel()

    def fail(self, error: Exception, which: int = 0) -> None:
        self._running[which][1].set_exception(error)


class TimedDevice:
    """Takes `seconds[n]` for a batch of n, one after another; a negative item is poison.

    The scheduler knows that from the warm-up, or something else that is `told` to it.
    """

    def __init__(
        self,
        seconds: Mapping[int, float],
        policy: Policy | None = None,
        told: Mapping[int, float] | None = None,
        max_in_flight: int = 1,
    ) -> None:
        self.seconds = dict(seconds)
        self.batches: list[list[int]] = []
        self.released_at: list[float] = []
        self.started_at: list[float] = []
        """When each began, after those that came before it."""
        self.counts = Counts()
        self.policy = policy or Policy(max(seconds))
        self.scheduler: Scheduler[int, int] = Scheduler(
            self._execute, self.policy, self.counts, max_in_flight=max_in_flight
        )
        self.scheduler.configure(self.policy, sorted(seconds), seconds if told is None else told)
        self._works = asyncio.Lock()

    async def _execute(self, items: list[int]) -> Sequence[int | BaseException]:
        self.scheduler.started()
        self.batches.append(items)
        self.released_at.append(asyncio.get_running_loop().time())
        async with self._works:
            self.started_at.append(asyncio.get_running_loop().time())
            await asyncio.sleep(next(s for n, s in sorted(self.seconds.items()) if n >= len(items)))
        if min(items) < 0:
            raise ValueError("poison")
        return [item * 10 for item in items]


def submit(
    scheduler: Scheduler[int, int],
    *items: int,
    within_s: float = math.inf,
    priority: Priority = Priority.INTERACTIVE,
    prepare_s: float = 0.0,
) -> list[asyncio.Task[int]]:
    """A caller for each item, who comes in the loop's next turn."""
    terms = Terms(asyncio.get_running_loop().time() + within_s, priority)

    async def result(item: int) -> int:
        async with scheduler.admitted(terms) as place:
            if prepare_s:
                await asyncio.sleep(prepare_s)
            return (await scheduler.execute(place, item)).result

    return [asyncio.create_task(result(item)) for item in items]


async def settle() -> None:
    """All that happens without the clock moving."""
    for _ in range(30):
        await asyncio.sleep(0)


async def outcomes(tasks: Sequence[asyncio.Task[int]]) -> list[int | type[BaseException]]:
    """What each caller got: a result, or an error's type."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [type(result) if isinstance(result, BaseException) else result for result in results]
