"""Batches that fail as a whole: the culprits, and sizes that are too large."""

import asyncio
import logging
from collections.abc import Sequence
from itertools import combinations, pairwise

import pytest

from serve_app.scheduler.isolation import EXAMINED_EVERY, RECOVERY, Isolation
from tests.scheduler.virtual_clock import run


class Machine:
    """Fails with a batch that holds poison, or more than it has memory for."""

    def __init__(self, poison: Sequence[int] = (), memory: int = 1 << 30) -> None:
        self.poison, self.memory = poison, memory
        self.sizes: list[int] = []
        self.splits = 0
        self.gone: set[int] = set()
        self.examinations = 0
        self.isolation: Isolation[int, int] = Isolation(
            self._attempt, lambda item: item not in self.gone, self._split, self._examine
        )

    def _examine(self) -> None:
        self.examinations += 1

    def _split(self) -> None:
        self.splits += 1

    async def _attempt(self, items: list[int]) -> list[int | BaseException]:
        self.sizes.append(len(items))
        if len(items) > self.memory:
            raise MemoryError("out of memory")
        if any(item in self.poison for item in items):
            raise ValueError("poison")
        return [item * 10 for item in items]

    def run(self, size: int) -> list[int | None]:
        """Results of items 0, 1, ...; None for those that failed."""
        try:
            self.isolation.run(list(range(size))).send(None)  # nothing in it waits: it needs no event loop
        except StopIteration as done:
            return [None if isinstance(result, Exception) else result for result in done.value]
        raise AssertionError("it waits")

    def succeed(self, times: int, size: int) -> None:
        for _ in range(times):
            assert None not in self.run(size)

    def first_attempt(self, size: int) -> int:
        """What a scheduler would try with so many images waiting, after it has kept to the limit."""
        tried = min(size, self.isolation.limit or size)
        self.run(tried)
        return tried


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 16])
@pytest.mark.parametrize("culprits", [1, 2, 3])
def test_exactly_the_culprits_fail(size: int, culprits: int) -> None:
    for poison in combinations(range(size), min(culprits, size)):
        machine = Machine(poison)
        assert machine.run(size) == [None if item in poison else item * 10 for item in range(size)]
        assert machine.isolation.limit is None


def test_one_culprit_costs_two_batches_for_each_halving() -> None:
    machine = Machine(poison=[5])
    machine.run(16)
    assert machine.sizes == [16, 8, 4, 4, 2, 1, 1, 2, 8]
    assert machine.splits == 4


def test_a_batch_that_fails_in_part_is_not_run_again() -> None:
    async def attempt(items: list[int]) -> list[int | BaseException]:
        return [ValueError("own"), 2, 3]

    async def test() -> None:
        isolation: Isolation[int, int] = Isolation(attempt, lambda _: True, lambda: pytest.fail("it was split"))
        first, *others = await isolation.run([1, 2, 3])
        assert isinstance(first, ValueError)
        assert others == [2, 3]

    run(test())


def test_where_every_part_succeeds_the_size_is_at_fault_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(memory=5)
    with caplog.at_level(logging.ERROR):
        assert machine.run(16) == list(range(0, 160, 10))
        assert machine.isolation.limit == 4
        machine.run(16)
        machine.run(16)
    [record] = caplog.records
    assert "16" in record.getMessage()
    assert record.exc_info is not None
    with caplog.at_level(logging.ERROR):
        machine.run(8)
    assert len(caplog.records) == 2


def test_where_an_image_is_at_fault_the_size_is_not() -> None:
    machine = Machine(poison=[3], memory=4)
    machine.run(8)
    assert machine.isolation.limit is None


def test_after_enough_batches_at_the_limit_a_larger_one_is_tried() -> None:
    machine = Machine(memory=4)
    machine.run(16)
    assert machine.isolation.limit == 4
    machine.memory = 1 << 30
    machine.succeed(RECOVERY - 1, 4)
    assert machine.isolation.limit == 4
    machine.succeed(1, 4)
    assert machine.isolation.limit == 8
    machine.succeed(RECOVERY, 8)
    assert machine.isolation.limit is None


def test_smaller_batches_than_the_limit_say_nothing_about_it() -> None:
    machine = Machine(memory=4)
    machine.run(8)
    machine.succeed(10 * RECOVERY, 3)
    assert machine.isolation.limit == 4


@pytest.mark.parametrize(("size", "memory"), [(8, 4), (2, 1), (16, 4), (16, 2), (16, 5), (12, 4)])
def test_each_time_a_larger_one_fails_again_it_takes_twice_as_long(size: int, memory: int) -> None:
    machine = Machine(memory=memory)
    machine.run(size)
    failures = [batch for batch in range(40 * RECOVERY) if machine.first_attempt(size) > memory]
    waits = [later - earlier for earlier, later in pairwise(failures)]
    assert failures[0] == RECOVERY
    assert len(failures) <= 7  # 64 + 128 + ... fill 40 x 64 batches after five, two more for sizes in between
    assert waits == sorted(waits)


def test_the_limit_holds_while_batches_of_many_sizes_are_too_large() -> None:
    machine = Machine(memory=4)
    failures = 0
    for batch in range(40 * RECOVERY):
        failures += machine.first_attempt(5 + batch % 12) > 4
    assert failures <= 14


def test_whoever_is_gone_is_not_run_again() -> None:
    machine = Machine(memory=2)
    machine.gone = {0, 1, 3}
    results = machine.run(4)
    assert results[2] == 20
    assert machine.sizes == [4, 1]


def test_it_says_whether_anything_works() -> None:
    machine = Machine(poison=[0, 1])
    machine.run(2)
    assert machine.isolation.is_failing
    machine.run(3)
    assert not machine.isolation.is_failing


def test_a_cancelled_batch_is_not_split() -> None:
    async def attempt(items: list[int]) -> list[int | BaseException]:
        raise asyncio.CancelledError

    async def test() -> None:
        isolation: Isolation[int, int] = Isolation(attempt, lambda _: True, lambda: pytest.fail("it was split"))
        with pytest.raises(asyncio.CancelledError):
            await isolation.run([1, 2])

    run(test())


def test_a_device_on_which_all_fails_is_examined_now_and_then() -> None:
    machine = Machine(poison=range(16))
    for _ in range(EXAMINED_EVERY - 1):
        machine.run(1)
    assert machine.examinations == 0
    machine.run(1)
    assert machine.examinations == 1
    for _ in range(EXAMINED_EVERY):
        machine.run(1)
    assert machine.examinations == 2


def test_a_device_on_which_something_works_is_not_examined() -> None:
    machine = Machine(poison=[0])
    for _ in range(3 * EXAMINED_EVERY):
        machine.run(1)  # poison alone
        machine.run(2)
    assert machine.examinations == 0
