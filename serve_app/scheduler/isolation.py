"""A batch that fails is split until only its culprits fail; a size that fails is not tried again for a while."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import compress
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)

RECOVERY = 64
"""Batches that must succeed at the lowered limit before a larger one is tried; doubled each time that fails."""
MAX_RECOVERY = 1 << 14

NO_REASON = RuntimeError("no batch has failed")


class Isolation(Generic[Item, Result]):
    """Runs batches through `attempt(items)`, which returns a result or an exception for each, in order, or raises.

    Where all of a batch fail, it is run again in two halves, and so on. If in the end each one
    succeeded, the size was at fault (out of memory, say): `limit` is then the largest that worked,
    until RECOVERY batches of that size have succeeded, twice as many each time that a larger one fails again.
    """

    def __init__(
        self,
        attempt: Callable[[list[Item]], Awaitable[Sequence[Result | BaseException]]],
        is_wanted: Callable[[Item], bool],
        on_split: Callable[[], None],
    ) -> None:
        self._attempt = attempt
        self._is_wanted = is_wanted
        self._on_split = on_split
        self.limit: int | None = None
        self.is_failing = False
        """Whether nothing succeeded of what the device ran last."""
        self._failed_size = 0
        self._succeeded = 0
        self._recovery = RECOVERY
        self._reason: Exception = NO_REASON
        self._logged: set[int] = set()

    async def run(self, batch: list[Item]) -> list[Result | BaseException]:
        """One result or exception for each, in order."""
        self._largest = 0
        results = await self._run(batch)
        # Of those who left meanwhile nobody knows whether they were the culprits.
        if self._largest and self._largest < len(batch) and not any(isinstance(r, BaseException) for r in results):
            self._lower(len(batch), self._largest)
        elif self._largest == len(batch) >= (self.limit or self._failed_size):
            self._recover()
        self._reason = NO_REASON  # an exception holds the frames, and so the tensors, of what failed
        return results

    async def _run(self, batch: list[Item]) -> list[Result | BaseException]:
        results = await self._try(batch)
        failures = [result for result in results if isinstance(result, Exception)]
        if len(failures) < len(batch):
            self._largest = max(self._largest, len(batch))
            return results
        if len(batch) == 1:
            return results
        self._reason = failures[0]
        self._on_split()
        middle = (len(batch) + 1) // 2
        return [result for half in (batch[:middle], batch[middle:]) for result in await self._run_wanted(half)]

    async def _run_wanted(self, batch: list[Item]) -> list[Result | BaseException]:
        """Without those whose callers have gone meanwhile: they count as cancelled."""
        is_wanted = [self._is_wanted(item) for item in batch]
        wanted = list(compress(batch, is_wanted))
        results = iter(await self._run(wanted) if wanted else [])
        return [next(results) if each else asyncio.CancelledError() for each in is_wanted]

    async def _try(self, batch: list[Item]) -> list[Result | BaseException]:
        try:
            results = list(await self._attempt(batch))
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for a batch of {len(batch)}")
        except Exception as error:
            results = [error] * len(batch)
        self.is_failing = all(map(_is_failure, results))
        return results

    def _lower(self, failed: int, works: int) -> None:
        if self._failed_size:
            self._recovery = min(2 * self._recovery, MAX_RECOVERY)
        self.limit, self._failed_size, self._succeeded = works, failed, 0
        if failed not in self._logged:
            self._logged.add(failed)
            logger.error(
                *("A batch of %d failed, in parts it ran: batches have at most %d for a while.", failed, works),
                exc_info=self._reason,
            )

    def _recover(self) -> None:
        self._succeeded += 1
        if self._succeeded < self._recovery:
            return
        self._succeeded = 0
        if self.limit is None:  # what failed once has worked for long
            self._failed_size, self._recovery = 0, RECOVERY
        else:
            self.limit = self.limit * 2 if self.limit * 2 < self._failed_size else None


def _is_failure(result: object) -> bool:
    return isinstance(result, Exception)
