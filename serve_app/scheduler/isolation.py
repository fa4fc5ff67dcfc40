"""A batch that fails is split until only its culprits fail; a size that fails is not tried again for a while."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Generic, TypeVar

from serve_app.errors import RequestError

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)

RECOVERY = 64
"""Batches that must succeed at the lowered limit before a larger one is tried; doubled each time that fails."""
MAX_RECOVERY = 1 << 14
EXAMINED_EVERY = 8
"""Executions that failed, one after another: a device that is broken is to be found out, for it fails fast, and so gets
more than its share of requests."""


class Isolation(Generic[Item, Result]):
    """Runs batches through `attempt(items)`, which returns a result or an exception for each, in order, or raises.

    Where all of a batch fail, it is run again in two halves, and so on. If in the end each one
    succeeded, the size was at fault (out of memory, say): `limit` is then the largest that worked,
    until RECOVERY batches of that size have succeeded, twice as many each time that a larger one fails again.
    `on_failing` is called for every EXAMINED_EVERY executions in a row of which nothing succeeded.
    """

    def __init__(
        self,
        attempt: Callable[[list[Item]], Awaitable[Sequence[Result | BaseException]]],
        is_wanted: Callable[[Item], bool],
        on_split: Callable[[], None],
        on_failing: Callable[[], None] = lambda: None,
    ) -> None:
        self._attempt = attempt
        self._is_wanted = is_wanted
        self._on_split = on_split
        self._on_failing = on_failing
        self.limit: int | None = None
        self._num_failed = 0
        """Executions since the last of which anything succeeded."""
        self._failed_size = 0
        self._succeeded = 0
        self._recovery = RECOVERY
        self._lowered = 0  # how often
        self._logged: set[int] = set()

    @property
    def is_failing(self) -> bool:
        """Whether nothing succeeded of what the device ran last."""
        return self._num_failed > 0

    async def run(self, batch: list[Item]) -> list[Result | BaseException]:
        """One result or exception for each, in order."""
        parts = _Parts(self._lowered)
        results = await self._run(batch, parts)
        # Of those who left meanwhile nobody knows whether they were the culprits.
        if parts.largest and parts.largest < len(batch) and not any(map(is_unknown, results)):
            self._lower(len(batch), parts)
        elif parts.largest == len(batch) >= (self.limit or self._failed_size):
            self._recover()
        return results

    async def _run(self, batch: list[Item], parts: "_Parts") -> list[Result | BaseException]:
        results = await self._try(batch)
        failures = [r for r in results if isinstance(r, Exception) and is_failure(r)]
        if len(failures) < len(batch):
            parts.largest = max(parts.largest, len(batch))
            return results
        if len(batch) == 1:
            return results
        parts.reason = failures[0]
        self._on_split()
        middle = (len(batch) + 1) // 2
        return [r for half in (batch[:middle], batch[middle:]) for r in await self._run_wanted(half, parts)]

    async def _run_wanted(self, batch: list[Item], parts: "_Parts") -> list[Result | BaseException]:
        """Without those whose callers have gone meanwhile: they count as cancelled."""
        is_wanted = [self._is_wanted(item) for item in batch]
        wanted = list(compress(batch, is_wanted))
        results = iter(await self._run(wanted, parts) if wanted else [])
        return [next(results) if each else asyncio.CancelledError() for each in is_wanted]

    async def _try(self, batch: list[Item]) -> list[Result | BaseException]:
        try:
            results = list(await self._attempt(batch))
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for a batch of {len(batch)}")
        except Exception as error:
            results = [error] * len(batch)
        self._num_failed = self._num_failed + 1 if all(map(is_failure, results)) else 0
        if self._num_failed and self._num_failed % EXAMINED_EVERY == 0:
            self._on_failing()
        return results

    def _lower(self, failed: int, parts: "_Parts") -> None:
        # Not for one that was on its way already when the limit was lowered.
        if self._failed_size and parts.lowered == self._lowered:
            self._recovery = min(2 * self._recovery, MAX_RECOVERY)
        self._lowered += 1
        self.limit, self._failed_size, self._succeeded = parts.largest, failed, 0
        if failed not in self._logged:
            self._logged.add(failed)
            logger.error(
                *("A batch of %d failed, in parts it ran: batches have at most %d for a while.", failed, parts.largest),
                exc_info=parts.reason,
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


@dataclass
class _Parts:
    """What became of a batch's parts. With the exception go the frames, and so the tensors, of what failed."""

    lowered: int
    """How often the limit had been lowered when the batch began."""
    largest: int = 0
    """The largest of them that ran."""
    reason: BaseException | None = None


def is_failure(result: object) -> bool:
    """Whether the device failed on it. A RequestError is an answer: that image cannot be read, the others could."""
    return isinstance(result, Exception) and not isinstance(result, RequestError)


def is_unknown(result: object) -> bool:
    """Neither a result nor an answer: the device failed, or the caller has gone."""
    return isinstance(result, BaseException) and not isinstance(result, RequestError)
