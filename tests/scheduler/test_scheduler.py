"""From the door to the answer, driven step by step or by a virtual clock."""

import asyncio
import math

import pytest

from serve_app.errors import DeadlineExceeded, DeviceStalled
from serve_app.scheduler import Policy, Priority, Terms
from tests.scheduler.fakes import SteppedDevice, TimedDevice, outcomes, settle, submit
from tests.scheduler.virtual_clock import run

LONG_S = 3600.0


def now() -> float:
    return asyncio.get_running_loop().time()


# --- release -----------------------------------------------------------------------------------------


def test_an_idle_device_starts_at_once() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4))
        [task] = submit(device.scheduler, 1)
        await settle()
        assert device.batches == [[1]]
        device.finish()
        assert await task == 10
        assert now() == 0.0

    run(test())


def test_what_arrives_in_the_same_turn_shares_a_batch() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4))
        submit(device.scheduler, 1, 2, 3)
        await settle()
        assert device.batches == [[1, 2, 3]]

    run(test())


def test_while_the_device_is_busy_items_collect_up_to_the_maximum_in_order() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4))
        tasks = submit(device.scheduler, 0)
        await settle()
        tasks += submit(device.scheduler, 1, 2, 3, 4, 5, 6)
        await settle()
        assert device.batches == [[0]]
        assert len(device.scheduler) == 6
        for _ in range(3):
            device.finish()
            await settle()
        assert device.batches == [[0], [1, 2, 3, 4], [5, 6]]
        assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40, 50, 60]
        assert len(device.scheduler) == 0
        assert device.counts.of == {"queued": 7, "executed": 3}

    run(test())


def test_a_free_device_waits_for_company_no_longer_than_it_takes_to_fill_the_batch() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(2, batch_wait_timeout_s=LONG_S))
        submit(device.scheduler, 1)
        await settle()
        assert device.batches == []
        submit(device.scheduler, 2)
        await settle()
        assert device.batches == [[1, 2]]

    run(test())


def test_the_wait_is_over_a_while_after_the_oldest_became_ready() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.01, 4: 0.02}, Policy(4, batch_wait_timeout_s=0.5))
        first = submit(device.scheduler, 1, prepare_s=0.2)
        await asyncio.sleep(0.4)
        await asyncio.gather(*first, *submit(device.scheduler, 2))
        assert device.batches == [[1, 2]]
        assert device.started_at == [pytest.approx(0.7)]

    run(test())


def test_what_waited_while_the_device_was_busy_does_not_wait_again() -> None:
    async def test() -> None:
        device = TimedDevice({4: 1.0}, Policy(4, batch_wait_timeout_s=0.5))
        tasks = submit(device.scheduler, 1, 2, 3, 4)
        await settle()
        await asyncio.gather(*tasks, *submit(device.scheduler, 5))
        assert device.started_at == [0.0, pytest.approx(1.0)]

    run(test())


def test_a_shorter_wait_applies_to_what_waits_already() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(2, batch_wait_timeout_s=LONG_S))
        submit(device.scheduler, 1)
        await settle()
        device.scheduler.configure(Policy(2), (1, 2), {})
        await settle()
        assert device.batches == [[1]]

    run(test())


def test_a_smaller_maximum_holds_from_the_next_batch_on_and_nothing_that_waits_is_lost() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1, 4: 0.2})
        tasks = submit(device.scheduler, 0)
        await settle()
        tasks += submit(device.scheduler, 1, 2, 3)
        await settle()
        device.scheduler.configure(Policy(2), (1, 2), {})
        assert await outcomes(tasks) == [0, 10, 20, 30]
        assert device.batches == [[0], [1, 2], [3]]

    run(test())


@pytest.mark.parametrize(
    ("slo_s", "largest"), [(2.0, 8), (1.1, 4), (0.67, 4), (0.66, 2), (0.3, 1), (0.01, 1), (None, 8)]
)
def test_of_an_objective_a_batch_takes_less_than_half(slo_s: float | None, largest: int) -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1, 2: 0.2, 4: 0.3, 8: 0.5}, Policy(8, latency_slo_s=slo_s))
        await outcomes(submit(device.scheduler, *range(20)))
        assert max(map(len, device.batches)) == len(device.batches[0]) == largest

    run(test())


# --- order -------------------------------------------------------------------------------------------


def test_the_earliest_deadline_goes_first_and_among_equals_the_first_to_come() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1})
        tasks = submit(device.scheduler, 0)
        await settle()
        tasks += submit(device.scheduler, 1, 2)
        tasks += submit(device.scheduler, 3, 4, within_s=9.0)
        tasks += submit(device.scheduler, 5, within_s=5.0)
        await asyncio.gather(*tasks)
        assert device.batches == [[0], [5], [3], [4], [1], [2]]

    run(test())


def test_it_is_the_admission_that_counts_not_when_an_image_is_prepared() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1})
        tasks = submit(device.scheduler, 0)
        tasks += submit(device.scheduler, 1, prepare_s=0.05)
        tasks += submit(device.scheduler, 2)
        await asyncio.gather(*tasks)
        assert device.batches == [[0], [1], [2]]

    run(test())


def test_interactive_images_go_first_also_where_others_have_earlier_deadlines() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1})
        tasks = submit(device.scheduler, 0)
        await settle()
        tasks += submit(device.scheduler, 1, priority=Priority.BATCH, within_s=9.0)
        tasks += submit(device.scheduler, 2, 3)
        await asyncio.gather(*tasks)
        assert device.batches == [[0], [2], [3], [1]]

    run(test())


@pytest.mark.parametrize("max_batch_size", [1, 3, 8, 16])
def test_images_of_low_priority_get_an_eighth_though_the_others_never_run_out(max_batch_size: int) -> None:
    async def test() -> None:
        device = TimedDevice({max_batch_size: 0.1})
        submit(device.scheduler, *[1] * 100, priority=Priority.BATCH)
        submit(device.scheduler, *[2] * 900)
        while sum(map(len, device.batches)) < 480:
            await asyncio.sleep(0.1)
        places = [item for batch in device.batches for item in batch]
        assert places.count(1) == pytest.approx(len(places) / 8, abs=2)

    run(test())


def test_a_batch_holds_no_more_than_its_earliest_deadline_allows() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1, 2: 0.2, 4: 0.4, 8: 0.8})
        tasks = submit(device.scheduler, 0)
        await settle()
        tasks += submit(device.scheduler, 1, within_s=0.59)
        tasks += submit(device.scheduler, *range(2, 9))
        await asyncio.gather(*tasks)
        assert device.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]
        assert device.counts.of["missed"] == 0

    run(test())


def test_where_nothing_fits_the_deadline_a_single_image_is_tried() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1, 4: 0.4}, Policy(4, batch_wait_timeout_s=LONG_S))
        tasks = submit(device.scheduler, 1, within_s=0.05)
        tasks += submit(device.scheduler, 2, within_s=LONG_S)
        assert await asyncio.gather(*tasks) == [10, 20]
        assert device.batches[0] == [1]
        assert device.counts.of["missed"] == 1

    run(test())


# --- deadlines ---------------------------------------------------------------------------------------


def test_an_image_that_waits_is_dropped_as_soon_as_its_deadline_cannot_be_met() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1, 2: 0.2})
        device.seconds = {1: 5.0}
        submit(device.scheduler, 0)
        await settle()
        [task] = submit(device.scheduler, 1, within_s=1.0)
        with pytest.raises(DeadlineExceeded):
            await task
        assert now() == pytest.approx(0.9)
        assert len(device.scheduler) == 0
        await asyncio.sleep(10.0)
        assert device.batches == [[0]]
        assert device.counts.of == {"queued": 1, "executed": 1, "expired": 1, "lingered": 1}

    run(test())


def test_an_image_that_is_still_prepared_is_dropped_too() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1})
        [task] = submit(device.scheduler, 1, within_s=1.0, prepare_s=5.0)
        with pytest.raises(DeadlineExceeded):
            await task
        assert now() == pytest.approx(0.9)
        assert device.counts.of == {"expired": 1}
        assert len(device.scheduler) == 0

    run(test())


def test_on_the_device_no_deadline_is_looked_at_and_a_late_answer_is_counted() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1})
        device.seconds = {1: 5.0}
        assert await outcomes(submit(device.scheduler, 1, within_s=1.0)) == [10]
        assert now() == pytest.approx(5.0)
        assert device.counts.of == {"queued": 1, "executed": 1, "missed": 1, "lingered": 1}

    run(test())


def test_after_the_device_the_callers_own_work_is_not_interrupted() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1})
        async with device.scheduler.admitted(Terms(1.0)) as place:
            await device.scheduler.execute(place, 1)
            await asyncio.sleep(5.0)
        assert device.counts.of == {"queued": 1, "executed": 1}

    run(test())


def test_a_callers_own_timeout_is_not_taken_for_the_deadline() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1})
        with pytest.raises(TimeoutError, match="mine"):
            async with device.scheduler.admitted(Terms(1.0)):
                raise TimeoutError("mine")
        assert device.counts.of == {}
        assert len(device.scheduler) == 0

    run(test())


def test_a_free_device_that_waits_for_company_still_meets_the_deadline() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1, 4: 0.4}, Policy(4, batch_wait_timeout_s=LONG_S))
        assert await outcomes(submit(device.scheduler, 1, within_s=1.0)) == [10]
        assert device.started_at[0] <= 0.9
        assert device.counts.of["missed"] == 0

    run(test())


@pytest.mark.parametrize("told", [{1: 0.1, 4: 0.1}, {1: 0.3, 4: 0.1}, {1: 0.1}])
def test_a_free_device_lets_no_image_expire_for_company_whatever_the_times_are(told: dict[int, float]) -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1, 4: 0.1}, Policy(4, batch_wait_timeout_s=LONG_S), told)
        assert await outcomes(submit(device.scheduler, 1, within_s=1.0)) == [10]
        assert device.counts.of["expired"] == 0

    run(test())


# --- callers that leave ------------------------------------------------------------------------------


def test_an_item_whose_caller_left_never_reaches_the_device() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4))
        tasks = submit(device.scheduler, 0)
        await settle()
        tasks += submit(device.scheduler, 1, 2, 3)
        await settle()
        tasks[2].cancel()
        await settle()
        device.finish()
        await settle()
        assert device.batches == [[0], [1, 3]]
        assert device.counts.of["departed"] == 1

    run(test())


@pytest.mark.parametrize("turns", range(6))
def test_a_caller_may_leave_in_the_very_turn_in_which_the_device_becomes_free(turns: int) -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4))
        tasks = submit(device.scheduler, 0)
        await settle()
        tasks += submit(device.scheduler, 1, 2)
        await settle()
        device.finish()
        for _ in range(turns):
            await asyncio.sleep(0)
        released = len(device.scheduler) == 0
        tasks[1].cancel()
        await settle()
        assert device.batches == ([[0], [1, 2]] if released else [[0], [2]])
        assert device.counts.of["departed"] == (not released)
        device.finish()
        assert await tasks[2] == 20

    run(test())


def test_a_caller_who_leaves_while_its_image_is_prepared_gives_up_its_place() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1})
        [task] = submit(device.scheduler, 1, prepare_s=1.0)
        await asyncio.sleep(0.5)
        assert len(device.scheduler) == 1
        task.cancel()
        await settle()
        assert len(device.scheduler) == 0
        assert device.counts.of == {"departed": 1}

    run(test())


def test_an_image_that_cannot_be_prepared_leaves_with_its_own_error() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1})
        with pytest.raises(ValueError, match="damaged"):
            async with device.scheduler.admitted(Terms()):
                raise ValueError("damaged")
        assert len(device.scheduler) == 0
        assert device.counts.of == {}

    run(test())


def test_a_caller_that_leaves_during_execution_harms_nobody() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4))
        tasks = submit(device.scheduler, 1, 2)
        await settle()
        tasks[0].cancel()
        await settle()
        device.finish()
        assert await tasks[1] == 20
        assert device.counts.of["departed"] == 0

    run(test())


# --- failures ----------------------------------------------------------------------------------------


def test_an_item_may_fail_alone() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4))
        tasks = submit(device.scheduler, 1, 2)
        await settle()
        device.finish([ValueError("one"), 20])
        assert await tasks[1] == 20
        with pytest.raises(ValueError, match="one"):
            await tasks[0]
        assert device.batches == [[1, 2]]

    run(test())


def test_after_a_failed_batch_the_next_one_runs() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4))
        [first] = submit(device.scheduler, 1)
        await settle()
        [second] = submit(device.scheduler, 2)
        await settle()
        device.fail(RuntimeError("device"))
        await settle()
        device.finish()
        assert await second == 20
        with pytest.raises(RuntimeError, match="device"):
            await first

    run(test())


def test_of_a_failed_batch_only_the_culprit_fails() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1, 4: 0.2})
        assert await outcomes(submit(device.scheduler, 1, 2, -1, 3)) == [10, 20, ValueError, 30]
        assert device.counts.of == {"queued": 4, "executed": 2, "split": 2}

    run(test())


def test_a_failed_batch_is_not_run_again_for_those_who_left() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1, 4: 0.2})
        tasks = submit(device.scheduler, 1, 2, 3, -1)
        await asyncio.sleep(0.1)
        tasks[0].cancel()
        assert await outcomes(tasks) == [asyncio.CancelledError, 20, 30, ValueError]
        assert device.batches == [[1, 2, 3, -1], [2], [3, -1], [3], [-1]]

    run(test())


def test_too_few_results_are_an_error_for_every_caller_not_a_hang() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4))
        tasks = submit(device.scheduler, 1, 2)
        for _ in range(3):  # the whole, and each half
            await settle()
            device.finish([])
        assert await outcomes(tasks) == [RuntimeError, RuntimeError]

    run(test())


def test_cancelling_an_execution_leaves_no_caller_waiting() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4))
        tasks = submit(device.scheduler, 1, 2)
        await settle()
        device.cancel()
        assert await outcomes(tasks) == [asyncio.CancelledError, asyncio.CancelledError]

    run(test())


def test_after_a_cancelled_execution_what_waited_behind_it_runs() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4))
        submit(device.scheduler, 1)
        await settle()
        [second] = submit(device.scheduler, 2)
        await settle()
        device.cancel()
        await settle()
        device.finish()
        assert await second == 20

    run(test())


# --- answers -----------------------------------------------------------------------------------------


def test_results_are_held_back_until_the_next_batch_has_started() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4), says_started=False)
        [first] = submit(device.scheduler, 1)
        await settle()
        submit(device.scheduler, 2)
        await settle()
        device.finish()
        await settle()
        assert device.batches == [[1], [2]]
        assert not first.done()
        device.scheduler.started()
        assert await first == 10

    run(test())


def test_results_held_back_are_delivered_at_the_latest_when_the_next_batch_ends() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4), says_started=False)
        tasks = submit(device.scheduler, 1)
        await settle()
        tasks += submit(device.scheduler, 2)
        await settle()
        device.finish()
        await settle()
        device.finish()
        assert await asyncio.gather(*tasks) == [10, 20]

    run(test())


def test_results_are_not_held_back_while_a_free_device_waits_for_company() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(2, batch_wait_timeout_s=LONG_S), says_started=False)
        tasks = submit(device.scheduler, 1, 2)
        await settle()
        submit(device.scheduler, 3)
        await settle()
        device.finish()
        assert await asyncio.gather(*tasks) == [10, 20]
        assert now() == 0.0

    run(test())


def test_it_says_how_long_an_item_waited_for_its_batch() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1})
        submit(device.scheduler, 0)
        await asyncio.sleep(0.04)
        async with device.scheduler.admitted(Terms()) as place:
            answer = await device.scheduler.execute(place, 1)
        assert answer.queue_ms == pytest.approx(60.0)

    run(test())


# --- a device that hangs -----------------------------------------------------------------------------


@pytest.mark.parametrize(("predicted_s", "stalled_at"), [(0.1, 10.0), (2.0, 40.0)])
def test_nobody_waits_for_a_device_that_hangs(predicted_s: float, stalled_at: float) -> None:
    async def test() -> None:
        device = TimedDevice({1: predicted_s})
        device.seconds = {1: LONG_S}
        tasks = submit(device.scheduler, 1)
        await settle()
        tasks += submit(device.scheduler, 2)
        tasks += submit(device.scheduler, 3, prepare_s=stalled_at + 1.0)
        await asyncio.sleep(stalled_at - 0.01)
        assert not device.scheduler.stalled
        assert await outcomes(tasks[:2]) == [DeviceStalled, DeviceStalled]
        assert now() == pytest.approx(stalled_at)
        assert device.scheduler.stalled
        assert await outcomes(submit(device.scheduler, 4)) == [DeviceStalled]
        with pytest.raises(DeviceStalled):
            device.scheduler.check(Terms())
        assert device.counts.of == {"queued": 1, "lingered": 1, "device_stalled": 2}
        assert now() == pytest.approx(stalled_at)
        assert await outcomes(tasks[2:]) == [DeviceStalled]
        assert len(device.scheduler) == 0

    run(test())


@pytest.mark.parametrize(("predicted_s", "told_at"), [(0.1, 1.0), (2.0, 4.0)])
def test_there_is_word_of_a_hang_long_before_it_counts_as_one(predicted_s: float, told_at: float) -> None:
    async def test() -> None:
        device = TimedDevice({1: predicted_s})
        device.seconds = {1: LONG_S}
        submit(device.scheduler, 1)
        await settle()
        await asyncio.sleep(told_at - 0.01)
        assert device.counts.of["lingered"] == 0
        await asyncio.sleep(0.02)
        assert device.counts.of["lingered"] == 1
        assert not device.scheduler.stalled

    run(test())


def test_a_batch_that_takes_its_time_is_not_said_to_linger() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1})
        device.seconds = {1: 0.9}
        assert await outcomes(submit(device.scheduler, 1)) == [10]
        await asyncio.sleep(10.0)
        assert device.counts.of == {"queued": 1, "executed": 1}

    run(test())


def test_a_device_that_comes_back_works_again() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1})
        device.seconds = {1: 15.0}
        assert await outcomes(submit(device.scheduler, 1)) == [DeviceStalled]
        device.seconds = {1: 0.1}
        await asyncio.sleep(10.0)
        assert not device.scheduler.stalled
        assert await outcomes(submit(device.scheduler, 3)) == [30]
        assert device.batches == [[1], [3]]

    run(test())


def test_when_the_device_hangs_the_answers_of_the_last_batch_are_not_lost() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(1), says_started=False)
        tasks = submit(device.scheduler, 1, 2)
        await settle()
        device.finish()
        assert await outcomes(tasks) == [10, DeviceStalled]

    run(test())


def test_a_device_may_hang_while_a_failed_batch_is_run_again_in_parts() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4))
        tasks = submit(device.scheduler, 1, 2, 3, 4)
        await settle()
        device.fail(RuntimeError("out of memory"))
        await settle()
        device.finish()
        assert device.batches == [[1, 2, 3, 4], [1, 2]]
        await settle()
        assert device.batches[2:] == [[3, 4]]
        await asyncio.wait(tasks, timeout=LONG_S)
        assert all(task.done() for task in tasks)
        assert (await outcomes(tasks))[2:] == [DeviceStalled, DeviceStalled]

    run(test())


def test_a_device_may_hang_in_the_first_part_of_a_failed_batch() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4))
        tasks = submit(device.scheduler, 1, 2)
        await settle()
        device.fail(RuntimeError("out of memory"))
        await settle()
        await asyncio.wait(tasks, timeout=LONG_S)
        assert all(task.done() for task in tasks)
        assert await outcomes(tasks) == [DeviceStalled, DeviceStalled]

    run(test())


def test_images_without_deadline_wait_for_as_long_as_it_takes() -> None:
    async def test() -> None:
        device = TimedDevice({1: 9.0})
        assert await outcomes(submit(device.scheduler, *range(500), within_s=math.inf)) == list(range(0, 5000, 10))

    run(test())


# --- the device for itself ---------------------------------------------------------------------------


def test_what_has_the_device_alone_runs_between_two_batches_and_counts_for_none() -> None:
    async def test() -> None:
        device = TimedDevice({4: 0.1})
        first = submit(device.scheduler, 1)
        await settle()
        second = submit(device.scheduler, 2)
        before = device.scheduler.times.predict(1, now())

        async def work() -> str:
            assert len(device.batches) == 1
            await asyncio.sleep(1000.0)
            assert len(device.batches) == 1
            return "done"

        assert await device.scheduler.alone(work) == "done"
        assert await outcomes(first + second) == [10, 20]
        assert not device.scheduler.stalled
        assert device.scheduler.times.predict(1, now()) == pytest.approx(before)

    run(test())


def test_the_device_is_free_again_where_what_has_it_alone_fails() -> None:
    async def test() -> None:
        device = TimedDevice({4: 0.1})

        async def work() -> None:
            raise MemoryError

        with pytest.raises(MemoryError):
            await device.scheduler.alone(work)
        assert await outcomes(submit(device.scheduler, 1)) == [10]

    run(test())


def test_a_deadline_that_passed_while_the_image_came_in_is_no_overload() -> None:
    async def test() -> None:
        device = TimedDevice({4: 0.1})
        with pytest.raises(DeadlineExceeded):
            device.scheduler.check(Terms(now()))

    run(test())


def test_who_gives_up_waiting_to_have_the_device_alone_leaves_the_batch_on_it() -> None:
    async def test() -> None:
        device = TimedDevice({4: 0.1})
        first = submit(device.scheduler, 1)
        await settle()

        async def work() -> None:
            raise AssertionError("never")

        waiting = asyncio.create_task(device.scheduler.alone(work))
        await settle()
        waiting.cancel()
        second = submit(device.scheduler, 2)
        await settle()
        assert device.batches == [[1]]
        assert await outcomes(first + second) == [10, 20]
        assert device.started_at == pytest.approx([0.0, 0.1])

    run(test())
