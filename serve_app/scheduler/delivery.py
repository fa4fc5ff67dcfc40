"""Results of a batch -> its callers, held back until the device works on the next one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from serve_app.scheduler.observer import Observer
from serve_app.scheduler.queue import Place

Result = TypeVar("Result")


@dataclass(frozen=True)
class Scheduled(Generic[Result]):
    """What became of an item, and how long it waited for its batch to be released."""

    result: Result
    queue_ms: float


class Delivery(Generic[Result]):
    """To write N answers keeps the event loop busy for about N ms. Done before the next batch is on its way,
    it left the device idle for as long as it worked (a cycle of 19 ms for 8.4 ms of work)."""

    def __init__(self, observer: Observer, now: Callable[[], float]) -> None:
        self._observer = observer
        self._now = now
        self._held: tuple[Sequence[Place[Any]], Sequence[Result | BaseException], float] | None = None

    @property
    def is_holding(self) -> bool:
        return self._held is not None

    def hold(self, batch: Sequence[Place[Any]], results: Sequence[Result | BaseException], released_at: float) -> None:
        """One result or exception for each, in order, of a batch released then."""
        self._held = batch, results, released_at

    def deliver(self) -> None:
        """What is held back, if anything, to those who still wait."""
        if self._held is None:
            return
        (batch, results, released_at), self._held = self._held, None
        for place, result in zip(batch, results, strict=True):
            if place.outcome.done():  # its caller has gone meanwhile
                continue
            if isinstance(result, BaseException):
                place.outcome.set_exception(result)
            else:
                if self._now() > place.terms.deadline:
                    self._observer.missed()
                place.outcome.set_result(Scheduled(result, (released_at - place.ready_at) * 1e3))
