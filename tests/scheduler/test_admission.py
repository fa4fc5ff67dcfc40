"""Who comes in: a full queue, and deadlines that cannot be met."""

import asyncio
import math

import pytest

from serve_app.errors import DeadlineExceeded, Overloaded, QueueFull
from serve_app.scheduler import Policy, Priority, Terms
from tests.scheduler.fakes import SteppedDevice, TimedDevice, outcomes, settle, submit
from tests.scheduler.virtual_clock import run

UNIT_S = 0.1
MARGIN = 0.9
"""Of its time, what an image may be predicted to take."""


def device_of(*sizes: int, max_queue_size: int = 1 << 30) -> TimedDevice:
    """A device that takes a unit for a batch of any of these sizes."""
    return TimedDevice(dict.fromkeys(sizes, UNIT_S), Policy(max(sizes), max_queue_size=max_queue_size))


def terms(within_s: float, priority: Priority = Priority.INTERACTIVE) -> Terms:
    return Terms(asyncio.get_running_loop().time() + within_s, priority)


def shortest_accepted(device: TimedDevice, priority: Priority = Priority.INTERACTIVE) -> float:
    """The least time, in units, that is enough for one more image."""
    for tenths in range(1, 1000):
        try:
            device.scheduler.check(terms(tenths * UNIT_S / 10, priority))
        except Overloaded:
            continue
        return tenths / 10
    return math.inf


# --- a full queue ------------------------------------------------------------------------------------


def test_a_full_queue_takes_nobody_until_an_image_is_on_the_device() -> None:
    async def test() -> None:
        device = device_of(1, max_queue_size=2)
        tasks = submit(device.scheduler, 0)
        await settle()
        tasks += submit(device.scheduler, 1, 2, 3)
        await settle()
        assert len(device.scheduler) == 2
        with pytest.raises(QueueFull) as refusal:
            device.scheduler.check(Terms())
        assert refusal.value.retry_after_s == pytest.approx(0.4)
        await asyncio.sleep(0.11)
        device.scheduler.check(Terms())
        assert await outcomes(tasks) == [0, 10, 20, QueueFull]
        assert device.counts.of["queue_full"] == 2

    run(test())


def test_images_that_are_still_prepared_are_inside() -> None:
    async def test() -> None:
        device = device_of(1, max_queue_size=2)
        submit(device.scheduler, 1, 2, prepare_s=1.0)
        await settle()
        with pytest.raises(QueueFull):
            device.scheduler.check(Terms())

    run(test())


@pytest.mark.parametrize(("max_queue_size", "half"), [(6, 3), (7, 3), (2, 1), (1, 1)])
def test_half_of_the_queue_is_open_to_the_low_priority(max_queue_size: int, half: int) -> None:
    async def test() -> None:
        device = device_of(1, max_queue_size=max_queue_size)
        tasks = submit(device.scheduler, 0)
        await settle()
        tasks += submit(device.scheduler, *[1] * 9, priority=Priority.BATCH)
        await settle()
        assert len(device.scheduler) == half
        tasks += submit(device.scheduler, *[2] * 9)
        await settle()
        assert len(device.scheduler) == max_queue_size

    run(test())


def test_a_queue_full_of_interactive_images_is_full_for_the_others_too() -> None:
    async def test() -> None:
        device = device_of(1, max_queue_size=4)
        submit(device.scheduler, 0)
        await settle()
        submit(device.scheduler, 1, 2, 3, 4)
        await settle()
        with pytest.raises(QueueFull):
            device.scheduler.check(Terms(priority=Priority.BATCH))

    run(test())


def test_a_larger_queue_is_open_at_once() -> None:
    async def test() -> None:
        device = device_of(1, max_queue_size=1)
        submit(device.scheduler, 0)
        await settle()
        submit(device.scheduler, 1)
        await settle()
        with pytest.raises(QueueFull):
            device.scheduler.check(Terms())
        device.scheduler.configure(Policy(1, max_queue_size=2), (1,), {})
        device.scheduler.check(Terms())

    run(test())


# --- deadlines ---------------------------------------------------------------------------------------


def test_every_batch_ahead_counts_and_a_tenth_of_the_time_is_kept() -> None:
    async def test() -> None:
        device = device_of(1)
        for batches in range(1, 6):  # the first is on the device at once
            if batches > 1:
                with pytest.raises(Overloaded):
                    device.scheduler.check(terms((batches / MARGIN - 0.01) * UNIT_S))
            submit(device.scheduler, 1, within_s=(batches / MARGIN + 0.01) * UNIT_S)
            await settle()
        assert len(device.scheduler) == 4

    run(test())


def test_what_shares_a_batch_does_not_wait_for_each_other() -> None:
    async def test() -> None:
        device = device_of(4)
        submit(device.scheduler, 0)
        await settle()
        for _ in range(4):
            assert shortest_accepted(device) == pytest.approx(2.3)
            submit(device.scheduler, 1, within_s=2.3 * UNIT_S)
            await settle()
        assert shortest_accepted(device) == pytest.approx(3.4)

    run(test())


def test_only_what_is_due_earlier_is_ahead() -> None:
    async def test() -> None:
        device = device_of(1)
        submit(device.scheduler, *range(9))
        await settle()
        assert shortest_accepted(device) == pytest.approx(2.3)
        submit(device.scheduler, 10, within_s=2.5 * UNIT_S)
        await settle()
        with pytest.raises(Overloaded):
            device.scheduler.check(terms(3.3 * UNIT_S))
        device.scheduler.check(terms(3.4 * UNIT_S))

    run(test())


@pytest.mark.parametrize(("size", "ahead"), [(1, 0), (4, 0), (4, 3), (8, 3), (8, 7)])
def test_an_image_that_would_make_one_late_that_is_inside_is_refused(size: int, ahead: int) -> None:
    async def test() -> None:
        device = device_of(size)
        submit(device.scheduler, 0)
        await settle()
        submit(device.scheduler, *[1] * ahead, within_s=2.3 * UNIT_S)
        submit(device.scheduler, *[1] * (size - ahead), within_s=2.5 * UNIT_S)
        await settle()
        assert len(device.scheduler) == size
        with pytest.raises(Overloaded) as refusal:
            device.scheduler.check(terms(2.4 * UNIT_S))
        assert refusal.value.retry_after_s is not None
        assert refusal.value.retry_after_s > 0
        device.scheduler.check(terms(3.4 * UNIT_S))

    run(test())


def test_images_of_low_priority_stand_in_nobodys_way_but_for_an_eighth() -> None:
    async def test() -> None:
        device = device_of(8)
        submit(device.scheduler, 0)
        await settle()
        submit(device.scheduler, *range(100), priority=Priority.BATCH)
        await settle()
        assert shortest_accepted(device) == pytest.approx(2.3)
        submit(device.scheduler, *range(7), within_s=2.3 * UNIT_S)
        await settle()
        assert shortest_accepted(device) == pytest.approx(3.4)

    run(test())


def test_images_of_low_priority_wait_for_the_others_but_an_eighth_is_theirs() -> None:
    async def test() -> None:
        device = device_of(8)
        submit(device.scheduler, 0)
        await settle()
        submit(device.scheduler, *range(24))
        await settle()
        assert shortest_accepted(device, Priority.BATCH) == pytest.approx(2.3)  # the first place of the next batch
        submit(device.scheduler, 1, priority=Priority.BATCH, within_s=2.3 * UNIT_S)
        await settle()
        assert shortest_accepted(device, Priority.BATCH) == pytest.approx(3.4)

    run(test())


def test_the_time_to_prepare_an_image_counts_too() -> None:
    async def test() -> None:
        device = device_of(1)
        device.scheduler.admission.preparation.observe(3 * UNIT_S)
        assert await outcomes(submit(device.scheduler, 0)) == [0]
        submit(device.scheduler, 1, prepare_s=3 * UNIT_S)
        await settle()
        assert shortest_accepted(device) == pytest.approx(7.8)  # two that are prepared one after the other, and t(1)

    run(test())


def test_as_long_as_no_time_is_known_everybody_comes_in() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(1))
        submit(device.scheduler, *range(100))
        await settle()
        device.scheduler.check(terms(0.001))

    run(test())


def test_whoever_has_no_deadline_is_never_refused_for_one() -> None:
    async def test() -> None:
        device = TimedDevice({1: 1e6})
        submit(device.scheduler, *range(50))
        submit(device.scheduler, *range(50), within_s=1e9)
        await settle()
        device.scheduler.check(Terms())
        device.scheduler.check(Terms(priority=Priority.BATCH))

    run(test())


def test_a_refusal_says_when_to_try_again_and_then_it_is_no_longer_true() -> None:
    async def test() -> None:
        device = device_of(1)
        submit(device.scheduler, *range(20), within_s=22.5 * UNIT_S)
        await settle()
        assert len(device.scheduler) == 19
        with pytest.raises(Overloaded, match="queue") as refusal:
            device.scheduler.check(terms(22.5 * UNIT_S))
        retry_after_s = refusal.value.retry_after_s
        assert retry_after_s is not None
        assert retry_after_s == pytest.approx(0.75 * UNIT_S)  # 21 batches, in 9/10 of 22.5
        await asyncio.sleep(retry_after_s + 1e-6)
        device.scheduler.check(terms(22.5 * UNIT_S))

    run(test())


def test_a_check_reserves_nothing_however_often_it_is_made() -> None:
    async def test() -> None:
        device = device_of(1, max_queue_size=2)
        for _ in range(100):
            device.scheduler.check(terms(3 * UNIT_S))
            device.scheduler.check(terms(UNIT_S / 2))  # by an idle device it would be tried
        assert len(device.scheduler) == 0
        assert device.counts.of == {}
        assert await outcomes(submit(device.scheduler, 1, within_s=UNIT_S / 2)) == [10]

    run(test())


def test_whoever_is_refused_never_comes_in() -> None:
    async def test() -> None:
        device = device_of(1)
        submit(device.scheduler, 1, 2, 3)
        await settle()
        refused = submit(device.scheduler, 4, within_s=2 * UNIT_S)
        await settle()
        assert len(device.scheduler) == 2
        assert await outcomes(refused) == [Overloaded]
        await asyncio.sleep(9.0)
        assert device.batches == [[1], [2], [3]]
        assert device.counts.of == {"queued": 3, "executed": 3, "overloaded": 1}

    run(test())


# --- a prediction is tried from time to time ---------------------------------------------------------


@pytest.mark.parametrize("within_s", [0.05, 0.105])  # too short, and longer than t(1) but for the margin
def test_an_idle_device_tries_an_image_now_and_then_whose_deadline_it_seems_to_miss(within_s: float) -> None:
    async def test() -> None:
        device = TimedDevice({1: UNIT_S}, told={1: UNIT_S / 10})
        assert await outcomes(submit(device.scheduler, 1)) == [10]
        tasks = []
        for _ in range(100):
            tasks += submit(device.scheduler, 1, within_s=within_s)
            await asyncio.sleep(0.01)
        answers = await outcomes(tasks)
        accepted_at = [step * 10 for step, answer in enumerate(answers) if answer == 10]
        assert accepted_at == [pytest.approx(ms, abs=11) for ms in (0, 250, 500, 750)]

    run(test())


def test_a_device_that_was_slow_for_a_while_is_found_out_to_be_fast_again() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.01}, told={1: 1.0})
        results = []
        for _ in range(500):
            results += await outcomes(submit(device.scheduler, 1, within_s=0.1))
            await asyncio.sleep(0.05)
        assert results[0] == 10
        assert results[-100:] == [10] * 100

    run(test())


def test_what_was_never_seen_to_be_fast_enough_is_not_tried() -> None:
    async def test() -> None:
        device = device_of(1)
        assert await outcomes(submit(device.scheduler, 1)) == [10]
        assert await outcomes(submit(device.scheduler, 1, within_s=0.9 * UNIT_S)) == [Overloaded]

    run(test())


def test_a_busy_device_tries_nothing() -> None:
    async def test() -> None:
        device = device_of(1)
        submit(device.scheduler, 1)
        await settle()
        with pytest.raises(Overloaded):
            device.scheduler.check(terms(UNIT_S / 2))

    run(test())


def test_a_device_that_takes_longer_than_predicted_is_still_busy() -> None:
    async def test() -> None:
        device = device_of(1)
        device.seconds = {1: 1.0}
        submit(device.scheduler, 1)
        await asyncio.sleep(0.5)
        with pytest.raises(Overloaded):
            device.scheduler.check(terms(UNIT_S / 2))

    run(test())


def test_a_device_whose_batch_was_released_in_this_turn_is_busy() -> None:
    async def test() -> None:
        device = device_of(1)
        async with device.scheduler.admitted(Terms()) as place:
            waiting = asyncio.create_task(device.scheduler.execute(place, 1))
            while len(device.scheduler):
                await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                device.scheduler.check(terms(UNIT_S / 2))
            await waiting

    run(test())


def test_what_is_tried_is_dropped_when_its_deadline_passes() -> None:
    async def test() -> None:
        device = device_of(1)
        [task] = submit(device.scheduler, 1, within_s=UNIT_S / 2, prepare_s=1.0)
        with pytest.raises(DeadlineExceeded):
            await task
        assert asyncio.get_running_loop().time() == pytest.approx(UNIT_S / 2)

    run(test())
