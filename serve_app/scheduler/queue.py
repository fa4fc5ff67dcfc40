"""Places of admitted images: earliest deadline first, in two priorities."""

import asyncio
import math
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

LOWER_SHARE = 1 / 8
"""Of the places in batches, what belongs to the lower priority while it has images waiting: it never starves."""


class Priority(IntEnum):
    INTERACTIVE = 0
    BATCH = 1


@dataclass(frozen=True)
class Terms:
    """What a request asks for."""

    deadline: float = math.inf
    """When its answer is due, in the event loop's time."""
    priority: Priority = Priority.INTERACTIVE


@dataclass(eq=False)
class Place(Generic[Item]):
    """An admitted image, from the door to its answer. It can go to the device once it has its item."""

    terms: Terms
    number: int
    """In order of admission."""
    latest_start: float
    """After it the deadline cannot be met."""
    outcome: "asyncio.Future[Any]"
    item: Item | None = None
    ready_at: float = math.inf
    """When its item came: since then it waits for the device."""
    timeout: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))

    @property
    def order(self) -> tuple[float, int]:
        return self.terms.deadline, self.number

    def is_ready(self, now: float) -> bool:
        """It has its item, its caller still waits, and it can still be in time."""
        return self.item is not None and not self.outcome.done() and now <= self.latest_start


class Queue(Generic[Item]):
    """Every admitted image that is not on the device yet."""

    def __init__(self) -> None:
        self._places: tuple[list[Place[Item]], ...] = tuple([] for _ in Priority)
        self._credit = 0.0
        self._unprepared = [0 for _ in Priority]

    def __len__(self) -> int:
        return sum(map(len, self._places))

    def __iter__(self) -> Iterator[Place[Item]]:
        for places in self._places:
            yield from places

    def __contains__(self, place: Place[Item]) -> bool:
        return self._index(place) is not None

    def of(self, priority: Priority) -> list[Place[Item]]:
        """Its places, earliest deadline first; to be read only."""
        return self._places[priority]

    def ahead(self, terms: Terms) -> int:
        """Places of the same priority that would come before a new one of these terms."""
        return bisect_left(self._places[terms.priority], (terms.deadline, math.inf), key=lambda p: p.order)

    def unprepared(self, priority: Priority) -> int:
        """Places of this priority without their items."""
        return self._unprepared[priority]

    @property
    def prepared(self) -> int:
        """Places with their items: no fewer than are ready."""
        return len(self) - sum(self._unprepared)

    def ready(self, now: float) -> list[Place[Item]]:
        """What can go to the device."""
        return [place for place in self if place.is_ready(now)]

    def add(self, place: Place[Item]) -> None:
        insort(self._places[place.terms.priority], place, key=lambda p: p.order)
        self._unprepared[place.terms.priority] += place.item is None

    def fill(self, place: Place[Item], item: Item, now: float) -> None:
        """Its item has come."""
        place.item, place.ready_at = item, now
        self._unprepared[place.terms.priority] -= 1

    def remove(self, place: Place[Item]) -> None:
        """Nothing happens where it has left already."""
        index = self._index(place)
        if index is not None:
            del self._places[place.terms.priority][index]
            self._unprepared[place.terms.priority] -= place.item is None

    def choose(self, size: int, now: float) -> list[Place[Item]]:
        """The next `size` ready places, or as many as there are; they stay in the queue."""
        upper, lower = ([p for p in places if p.is_ready(now)] for places in self._places)
        reserved = min(int(self._credit + size * LOWER_SHARE), len(lower), size)
        upper = upper[: size - reserved]
        return upper + lower[: size - len(upper)]

    def take(self, chosen: list[Place[Item]], now: float) -> None:
        """Remove what was chosen, and settle the lower priority's account."""
        taken = sum(place.terms.priority is Priority.BATCH for place in chosen)
        waited = any(place.is_ready(now) for place in self._places[Priority.BATCH])
        self._credit = max(0.0, self._credit + len(chosen) * LOWER_SHARE - taken) if waited else 0.0
        for place in chosen:
            self.remove(place)

    def _index(self, place: Place[Item]) -> int | None:
        places = self._places[place.terms.priority]
        index = bisect_left(places, place.order, key=lambda p: p.order)
        return index if index < len(places) and places[index] is place else None
