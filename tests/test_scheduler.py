"""Slot-first release, driven step by step: a fake device that finishes when the test says so."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from serve_app.scheduler import Scheduler

LONG_S = 3600.0


class Device:
    """Executes batches of numbers; each runs until `finish`."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self._running: list[asyncio.Future[list[int | BaseException]]] = []

    async def execute(self, items: list[int]) -> list[int | BaseException]:
        self.batches.append(items)
        self._running.append(asyncio.get_running_loop().create_future())
        return await self._running[-1]

    def finish(self, results: list[int | BaseException] | None = None) -> None:
        self._running[-1].set_result([item * 10 for item in self.batches[-1]] if results is None else results)

    def cancel(self) -> None:
        self._running[-1].cancel()

    def fail(self, error: Exception) -> None:
        self._running[-1].set_exception(error)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def submit(scheduler: Scheduler[int, int], *items: int) -> list[asyncio.Task[int]]:
    async def result(item: int) -> int:
        return (await scheduler.submit(item)).result

    return [asyncio.create_task(result(item)) for item in items]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, timeout=30))


def test_an_idle_device_starts_at_once() -> None:
    async def test() -> None:
        device = Device()
        [task] = submit(Scheduler(device.execute, 4), 1)
        await settle()
        assert device.batches == [[1]]
        device.finish()
        assert await task == 10

    run(test())


def test_what_arrives_in_the_same_turn_shares_a_batch() -> None:
    async def test() -> None:
        device = Device()
        submit(Scheduler(device.execute, 4), 1, 2, 3)
        await settle()
        assert device.batches == [[1, 2, 3]]

    run(test())


def test_while_the_device_is_busy_items_collect_up_to_the_maximum_in_order() -> None:
    async def test() -> None:
        device = Device()
        scheduler: Scheduler[int, int] = Scheduler(device.execute, 4)
        tasks = submit(scheduler, 0)
        await settle()
        tasks += submit(scheduler, 1, 2, 3, 4, 5, 6)
        await settle()
        assert device.batches == [[0]]
        assert len(scheduler) == 6
        for _ in range(3):
            device.finish()
            await settle()
        assert device.batches == [[0], [1, 2, 3, 4], [5, 6]]
        assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40, 50, 60]

    run(test())


def test_a_free_device_waits_for_company_no_longer_than_it_takes_to_fill_the_batch() -> None:
    async def test() -> None:
        device = Device()
        scheduler: Scheduler[int, int] = Scheduler(device.execute, 2, batch_wait_timeout_s=LONG_S)
        submit(scheduler, 1)
        await settle()
        assert device.batches == []
        submit(scheduler, 2)
        await settle()
        assert device.batches == [[1, 2]]

    run(test())


def test_a_lone_item_is_released_when_its_wait_is_over() -> None:
    async def test() -> None:
        device = Device()
        [task] = submit(Scheduler(device.execute, 2, batch_wait_timeout_s=0.01), 1)
        while not device.batches:
            await asyncio.sleep(0.001)
        device.finish()
        assert await task == 10

    run(test())


def test_a_shorter_wait_applies_to_what_waits_already() -> None:
    async def test() -> None:
        device = Device()
        scheduler: Scheduler[int, int] = Scheduler(device.execute, 2, batch_wait_timeout_s=LONG_S)
        submit(scheduler, 1)
        await settle()
        scheduler.configure(max_batch_size=2, batch_wait_timeout_s=0)
        await settle()
        assert device.batches == [[1]]

    run(test())


def test_an_item_whose_caller_left_never_reaches_the_device() -> None:
    async def test() -> None:
        device = Device()
        scheduler: Scheduler[int, int] = Scheduler(device.execute, 4)
        tasks = submit(scheduler, 0)
        await settle()
        tasks += submit(scheduler, 1, 2, 3)
        await settle()
        tasks[2].cancel()
        await settle()
        device.finish()
        await settle()
        assert device.batches == [[0], [1, 3]]

    run(test())


def test_a_caller_that_leaves_during_execution_harms_nobody() -> None:
    async def test() -> None:
        device = Device()
        tasks = submit(Scheduler(device.execute, 4), 1, 2)
        await settle()
        tasks[0].cancel()
        await settle()
        device.finish()
        assert await tasks[1] == 20

    run(test())


def test_an_item_may_fail_alone() -> None:
    async def test() -> None:
        device = Device()
        tasks = submit(Scheduler(device.execute, 4), 1, 2)
        await settle()
        device.finish([ValueError("one"), 20])
        assert await tasks[1] == 20
        with pytest.raises(ValueError, match="one"):
            await tasks[0]

    run(test())


def test_after_a_failed_batch_the_next_one_runs() -> None:
    async def test() -> None:
        device = Device()
        scheduler: Scheduler[int, int] = Scheduler(device.execute, 4)
        [first] = submit(scheduler, 1)
        await settle()
        [second] = submit(scheduler, 2)
        await settle()
        device.fail(RuntimeError("device"))
        await settle()
        device.finish()
        assert await second == 20
        with pytest.raises(RuntimeError, match="device"):
            await first

    run(test())


def test_too_few_results_are_an_error_for_every_caller_not_a_hang() -> None:
    async def test() -> None:
        device = Device()
        tasks = submit(Scheduler(device.execute, 4), 1, 2)
        await settle()
        device.finish([10])
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [RuntimeError, RuntimeError]

    run(test())


def test_results_are_held_back_until_the_next_batch_has_started() -> None:
    async def test() -> None:
        device = Device()
        scheduler: Scheduler[int, int] = Scheduler(device.execute, 4)
        [first] = submit(scheduler, 1)
        await settle()
        submit(scheduler, 2)
        await settle()
        device.finish()
        await settle()
        assert device.batches == [[1], [2]]
        assert not first.done()
        scheduler.started()
        assert await first == 10

    run(test())


def test_results_held_back_are_delivered_at_the_latest_when_the_next_batch_ends() -> None:
    async def test() -> None:
        device = Device()
        scheduler: Scheduler[int, int] = Scheduler(device.execute, 4)
        tasks = submit(scheduler, 1)
        await settle()
        tasks += submit(scheduler, 2)
        await settle()
        device.finish()
        await settle()
        device.finish()
        assert await asyncio.gather(*tasks) == [10, 20]

    run(test())


def test_cancelling_an_execution_leaves_no_caller_waiting() -> None:
    async def test() -> None:
        cancelled = asyncio.Event()

        async def execute(items: list[int]) -> list[int | BaseException]:
            cancelled.set()
            raise asyncio.CancelledError

        tasks = submit(Scheduler(execute, 4), 1, 2)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert cancelled.is_set()
        assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError, asyncio.CancelledError]

    run(test())


def test_after_a_cancelled_execution_what_waited_behind_it_runs() -> None:
    async def test() -> None:
        device = Device()
        scheduler: Scheduler[int, int] = Scheduler(device.execute, 4)
        submit(scheduler, 1)
        await settle()
        [second] = submit(scheduler, 2)
        await settle()
        device.cancel()
        await settle()
        device.finish()
        assert await second == 20

    run(test())
