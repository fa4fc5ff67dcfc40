"""The order of places, and how two priorities share batches."""

import asyncio
import math
from collections import Counter

import pytest

from serve_app.scheduler import Place, Priority, Terms
from serve_app.scheduler.queue import Queue
from tests.scheduler.virtual_clock import run

NOW = 100.0


class Filled:
    """A queue of ready places, whose items are their numbers."""

    def __init__(self) -> None:
        self.queue: Queue[int] = Queue()
        self.places: list[Place[int]] = []

    def add(self, priority: Priority = Priority.INTERACTIVE, due: float = math.inf, ready: bool = True) -> Place[int]:
        number = len(self.places)
        outcome = asyncio.get_running_loop().create_future()
        place: Place[int] = Place(Terms(due, priority), number, due, outcome)
        self.places.append(place)
        self.queue.add(place)
        if ready:
            self.queue.fill(place, number, NOW)
        return place

    def chosen(self, size: int) -> list[int]:
        return [place.number for place in self.queue.choose(size, NOW)]

    def take(self, size: int) -> Counter[Priority]:
        """How many of each priority the next batch has."""
        batch = self.queue.choose(size, NOW)
        self.queue.take(batch, NOW)
        return Counter(place.terms.priority for place in batch)


def test_the_earliest_deadline_is_first_and_equals_keep_their_order() -> None:
    async def test() -> None:
        filled = Filled()
        for due in (math.inf, 300.0, 200.0, 300.0, math.inf, 200.0):
            filled.add(due=due)
        assert filled.chosen(6) == [2, 5, 1, 3, 0, 4]
        assert filled.chosen(3) == [2, 5, 1]
        assert len(filled.queue) == 6

    run(test())


def test_it_knows_how_many_are_ahead_of_a_newcomer() -> None:
    async def test() -> None:
        filled = Filled()
        for due in (math.inf, 300.0, 200.0, 300.0):
            filled.add(due=due)
        filled.add(Priority.BATCH, due=150.0)
        assert [filled.queue.ahead(Terms(due)) for due in (199.0, 200.0, 300.0, 301.0, math.inf)] == [0, 1, 3, 3, 4]
        assert filled.queue.ahead(Terms(200.0, Priority.BATCH)) == 1

    run(test())


def test_what_is_not_prepared_or_gone_or_too_late_is_passed_over() -> None:
    async def test() -> None:
        filled = Filled()
        filled.add(ready=False)
        filled.add().outcome.cancel()
        filled.add(due=NOW - 1.0)
        in_time = filled.add(due=NOW)
        assert filled.queue.ready(NOW) == [in_time]
        assert filled.chosen(9) == [3]
        assert filled.queue.unprepared(Priority.INTERACTIVE) == 1

    run(test())


def test_a_place_is_removed_once_and_only_that_one() -> None:
    async def test() -> None:
        filled = Filled()
        first, twin, unprepared = filled.add(due=200.0), filled.add(due=200.0), filled.add(ready=False)
        for _ in range(2):
            filled.queue.remove(twin)
            filled.queue.remove(unprepared)
        assert list(filled.queue) == [first]
        assert first in filled.queue
        assert twin not in filled.queue
        assert filled.queue.unprepared(Priority.INTERACTIVE) == 0

    run(test())


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 12, 16, 100])
def test_while_both_wait_an_eighth_of_the_places_is_the_lower_ones_and_no_more(size: int) -> None:
    async def test() -> None:
        filled = Filled()
        taken: Counter[Priority] = Counter()
        for _ in range(64):
            for _ in range(size):
                filled.add()
                filled.add(Priority.BATCH)
            taken += filled.take(size)
            assert taken[Priority.BATCH] <= taken.total() / 8
            assert taken[Priority.BATCH] > taken.total() / 8 - 1
        assert taken.total() == 64 * size

    run(test())


def test_the_share_holds_for_batches_of_all_sizes_together() -> None:
    async def test() -> None:
        filled = Filled()
        for _ in range(1000):
            filled.add()
            filled.add(Priority.BATCH)
        taken: Counter[Priority] = Counter()
        for step in range(100):
            taken += filled.take(step % 7 + 1)
        assert taken[Priority.BATCH] == taken.total() // 8

    run(test())


def test_a_single_image_of_low_priority_that_is_always_there_gets_its_eighth_too() -> None:
    async def test() -> None:
        filled = Filled()
        filled.add(Priority.BATCH)
        lower = 0
        for _ in range(80):
            for _ in range(4):
                filled.add()
            taken = filled.take(4)[Priority.BATCH]
            for _ in range(taken):
                filled.add(Priority.BATCH)
            lower += taken
        assert lower == 40

    run(test())


def test_places_that_one_priority_leaves_empty_are_the_other_ones() -> None:
    async def test() -> None:
        filled = Filled()
        for _ in range(20):
            filled.add(Priority.BATCH)
        filled.add()
        assert filled.take(8) == {Priority.INTERACTIVE: 1, Priority.BATCH: 7}
        assert filled.take(8) == {Priority.BATCH: 8}
        for _ in range(5):
            filled.add()
        assert filled.take(8) == {Priority.INTERACTIVE: 5, Priority.BATCH: 3}

    run(test())


def test_no_share_is_saved_up_while_nobody_wants_it() -> None:
    async def test() -> None:
        filled = Filled()
        for _ in range(200):
            filled.add()
        for _ in range(10):
            assert filled.take(8) == {Priority.INTERACTIVE: 8}
        for _ in range(20):
            filled.add(Priority.BATCH)
        assert filled.take(8) == {Priority.INTERACTIVE: 7, Priority.BATCH: 1}

    run(test())


def test_what_the_lower_one_got_beyond_its_share_is_no_debt() -> None:
    async def test() -> None:
        filled = Filled()
        for _ in range(40):
            filled.add(Priority.BATCH)
        for _ in range(3):
            filled.take(8)
        for _ in range(40):
            filled.add()
        assert filled.take(8)[Priority.BATCH] == 1

    run(test())
