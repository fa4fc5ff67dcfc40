"""More than one batch on the device: what is released beside a running one, and what becomes of both."""

import asyncio
import math
from collections.abc import Sequence

import pytest

from serve_app.errors import DeadlineExceeded, DeviceStalled, Overloaded, UnreadableImage
from serve_app.scheduler import Policy, Priority, Terms
from serve_app.scheduler.isolation import RECOVERY, Isolation
from tests.scheduler.fakes import SteppedDevice, TimedDevice, outcomes, settle, submit
from tests.scheduler.virtual_clock import run

LONG_S = 3600.0


def now() -> float:
    return asyncio.get_running_loop().time()


# --- release -----------------------------------------------------------------------------------------


def test_beside_a_running_batch_only_a_full_one_is_released() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(3), max_in_flight=2)
        tasks = submit(device.scheduler, 0)
        await settle()
        tasks += submit(device.scheduler, 1, 2)
        await settle()
        assert device.in_flight == [[0]]
        tasks += submit(device.scheduler, 3, 4)
        await settle()
        assert device.in_flight == [[0], [1, 2, 3]]
        device.finish()
        await settle()
        assert device.in_flight == [[1, 2, 3]]
        device.finish()
        await settle()
        assert device.in_flight == [[4]]  # a free device starts at once
        device.finish()
        assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40]
        assert device.counts.of == {"queued": 5, "executed": 3}

    run(test())


@pytest.mark.parametrize("max_in_flight", [1, 2, 3])
def test_there_are_never_more_in_flight_than_allowed(max_in_flight: int) -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(2), max_in_flight=max_in_flight)
        tasks: list[asyncio.Task[int]] = []
        for first in range(0, 12, 2):
            tasks += submit(device.scheduler, first, first + 1)
            await settle()
            device.scheduler.configure(Policy(2), (1, 2), {})  # has it look again
            await settle()
        for done in range(6):
            assert len(device.in_flight) == min(max_in_flight, 6 - done)
            device.finish()
            await settle()
        assert await asyncio.gather(*tasks) == list(range(0, 120, 10))
        assert device.batches == [[n, n + 1] for n in range(0, 12, 2)]

    run(test())


def test_all_that_come_in_the_same_turn_fill_as_many_batches_as_may_be_in_flight() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(2), max_in_flight=3)
        submit(device.scheduler, *range(5))
        await settle()
        assert device.in_flight == [[0, 1], [2, 3]]
        submit(device.scheduler, *range(5, 9))
        await settle()
        assert device.in_flight == [[0, 1], [2, 3], [4, 5]]
        device.finish()
        await settle()
        assert device.in_flight == [[2, 3], [4, 5], [6, 7]]

    run(test())


def test_a_free_device_waits_for_company_a_busy_one_takes_what_is_full_at_once() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(2, batch_wait_timeout_s=LONG_S), max_in_flight=2)
        submit(device.scheduler, 1)
        await settle()
        assert device.in_flight == []
        submit(device.scheduler, 2, 3)
        await settle()
        assert device.in_flight == [[1, 2]]
        submit(device.scheduler, 4)
        await settle()
        assert device.in_flight == [[1, 2], [3, 4]]
        assert now() == 0.0

    run(test())


def test_who_is_still_prepared_or_has_gone_does_not_fill_a_batch() -> None:
    async def test() -> None:
        device = TimedDevice({2: 10.0}, max_in_flight=2)
        submit(device.scheduler, 0)
        [gone] = submit(device.scheduler, 1, prepare_s=1.0)
        submit(device.scheduler, 2, prepare_s=2.0)
        submit(device.scheduler, 3, prepare_s=3.0)
        await asyncio.sleep(1.5)
        gone.cancel()
        await asyncio.sleep(1.0)
        assert device.batches == [[0]]
        await asyncio.sleep(1.0)
        assert device.batches == [[0], [2, 3]]

    run(test())


def test_full_is_what_the_objective_allows() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1, 2: 0.2, 4: 0.3}, Policy(4, latency_slo_s=0.5), max_in_flight=2)
        tasks = submit(device.scheduler, 0)
        await settle()
        tasks += submit(device.scheduler, 1, 2, 3)
        await settle()
        assert device.batches == [[0], [1, 2]]
        assert await outcomes(tasks) == [0, 10, 20, 30]

    run(test())


def test_full_is_a_maximum_that_became_smaller() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4), max_in_flight=2)
        submit(device.scheduler, 0)
        await settle()
        submit(device.scheduler, 1, 2)
        await settle()
        assert device.in_flight == [[0]]
        device.scheduler.configure(Policy(2), (1, 2), {})
        await settle()
        assert device.in_flight == [[0], [1, 2]]

    run(test())


# --- deadlines ---------------------------------------------------------------------------------------


def test_what_could_not_wait_for_the_running_one_is_not_released_early() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1, 2: 0.5, 4: 1.0}, max_in_flight=2)
        tasks = submit(device.scheduler, 0, 1, 2, 3)
        await settle()
        # It is alone when it comes in: in time behind the running one, but not in a batch of four.
        tasks += submit(device.scheduler, 4, within_s=1.3)
        tasks += submit(device.scheduler, 5, 6, 7)
        await settle()
        assert device.batches == [[0, 1, 2, 3]]
        assert await outcomes(tasks) == list(range(0, 80, 10))
        assert device.batches == [[0, 1, 2, 3], [4], [5, 6, 7]]
        assert device.counts.of["missed"] == 0

    run(test())


def test_what_is_in_time_behind_the_running_one_is_released_early() -> None:
    async def test() -> None:
        device = TimedDevice({2: 1.0}, max_in_flight=2)
        tasks = submit(device.scheduler, 0, 1)
        await settle()
        tasks += submit(device.scheduler, 2, 3, within_s=2.5)
        await settle()
        assert device.batches == [[0, 1], [2, 3]]
        assert await outcomes(tasks) == [0, 10, 20, 30]
        assert now() == pytest.approx(2.0)

    run(test())


def test_a_single_image_is_a_full_batch_that_may_be_too_late_too() -> None:
    async def test() -> None:
        device = TimedDevice({1: 1.0}, max_in_flight=3)
        tasks = submit(device.scheduler, 0)
        await settle()
        late = submit(device.scheduler, 1, within_s=2.3, priority=Priority.BATCH, prepare_s=0.5)
        tasks += submit(device.scheduler, 2)
        assert await outcomes(late) == [DeadlineExceeded]  # the other one went first: no time for this
        assert now() == pytest.approx(1.3)
        assert await outcomes(tasks) == [0, 20]
        assert device.batches == [[0], [2]]

    run(test())


def test_what_is_released_in_the_same_turn_is_waited_for_too() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(2), max_in_flight=2)
        device.scheduler.configure(Policy(2), (1, 2), {1: 1.0, 2: 1.0})
        submit(device.scheduler, 0, 1)
        await asyncio.sleep(1.0)
        late = submit(device.scheduler, 2, 3, within_s=1.3, priority=Priority.BATCH)
        submit(device.scheduler, 4, 5)
        await asyncio.sleep(0)
        device.finish()
        await settle()
        assert device.in_flight == [[4, 5]]
        assert await outcomes(late) == [DeadlineExceeded, DeadlineExceeded]

    run(test())


# --- answers -----------------------------------------------------------------------------------------


def test_answers_are_held_back_while_a_further_batch_is_on_its_way_and_only_then() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(1), says_started=False, max_in_flight=2)
        tasks = submit(device.scheduler, 0, 1, 2)
        await settle()
        assert device.in_flight == [[0], [1]]
        device.finish()
        await settle()
        assert device.in_flight == [[1], [2]]
        assert not tasks[0].done()
        device.scheduler.started()
        assert await tasks[0] == 0
        device.finish()
        assert await tasks[1] == 10  # no further one was released: at once, though one is there still
        assert device.in_flight == [[2]]
        device.finish()
        assert await tasks[2] == 20

    run(test())


def test_answers_of_a_batch_are_delivered_at_the_latest_when_the_next_is_done() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(1), says_started=False, max_in_flight=2)
        tasks = submit(device.scheduler, 0, 1, 2, 3)
        await settle()
        device.finish()
        await settle()
        assert not tasks[0].done()
        device.finish()
        await settle()
        assert tasks[0].done()
        assert not tasks[1].done()
        device.finish()
        await settle()
        device.finish()
        assert await asyncio.gather(*tasks) == [0, 10, 20, 30]

    run(test())


def test_two_that_are_done_in_the_same_turn_answer_their_own_callers() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(2), says_started=False, max_in_flight=2)
        tasks = submit(device.scheduler, 0, 1, 2, 3)
        await settle()
        tasks += submit(device.scheduler, 4, 5, 6, 7, 8)
        await settle()
        for _ in range(2):
            assert len(device.in_flight) == 2
            device.finish()
            device.finish(which=1)
            await settle()
        device.finish()
        assert await asyncio.gather(*tasks) == list(range(0, 90, 10))

    run(test())


# --- times -------------------------------------------------------------------------------------------


def test_a_batch_s_own_time_is_learnt_not_its_wait_for_the_running_one() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.5, 2: 1.0}, max_in_flight=3)
        tasks = submit(device.scheduler, 0, 1)
        await asyncio.sleep(0.25)
        tasks += submit(device.scheduler, 2, 3, 4, 5)
        await settle()
        assert len(device.batches) == 3
        assert await outcomes(tasks) == list(range(0, 60, 10))
        assert now() == pytest.approx(3.0)
        tasks = submit(device.scheduler, 6)
        await asyncio.sleep(0.2)
        assert await outcomes(tasks) == [60]
        assert device.counts.actual_s == pytest.approx([1.0, 1.0, 1.0, 0.5])
        assert device.scheduler.times.predict(2, now()) == pytest.approx(1.0)

    run(test())


def test_the_time_after_a_failed_batch_is_learnt_from_its_end() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.5, 2: 1.0}, max_in_flight=2)
        tasks = submit(device.scheduler, -1, 1, 2, 3)
        assert await outcomes(tasks) == [ValueError, 10, 20, 30]
        assert device.batches == [[-1, 1], [2, 3], [-1], [1]]
        assert device.counts.actual_s == pytest.approx([1.0, 0.5])

    run(test())


def test_one_that_fails_before_the_device_begins_with_it_shortens_no_time() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(1), max_in_flight=2)
        tasks = submit(device.scheduler, 0, 1)
        await asyncio.sleep(0.7)
        device.fail(ValueError("could not be launched"), which=1)
        await asyncio.sleep(0.3)
        device.finish()
        assert await outcomes(tasks) == [0, ValueError]
        assert device.counts.actual_s == pytest.approx([1.0])

    run(test())


def test_no_time_is_learnt_where_a_result_was_cancelled() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(2))
        tasks = submit(device.scheduler, 0, 1)
        await settle()
        device.finish([asyncio.CancelledError(), 10])
        assert await outcomes(tasks) == [asyncio.CancelledError, 10]
        assert device.counts.of["executed"] == 0

    run(test())


# --- admission ---------------------------------------------------------------------------------------


def test_admission_counts_both_that_are_on_the_device() -> None:
    async def test() -> None:
        device = TimedDevice({1: 1.0}, max_in_flight=2)
        submit(device.scheduler, 0, 1)
        await settle()
        assert device.batches == [[0], [1]]
        with pytest.raises(Overloaded):
            device.scheduler.check(Terms(3.2))
        assert not device.scheduler.check(Terms(3.4))  # of which a tenth is kept back

    run(test())


def test_admission_knows_when_the_first_was_done_early() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1}, told={1: 1.0}, max_in_flight=2)
        [first, _] = submit(device.scheduler, 0, 1)
        await settle()
        device.seconds = {1: 1.0}
        await first
        assert now() == pytest.approx(0.1)
        with pytest.raises(Overloaded):
            device.scheduler.check(Terms(now() + 1.2))
        assert not device.scheduler.check(Terms(now() + 1.3))  # 1 s of the second, 0.1 s of its own

    run(test())


def test_admission_knows_when_the_first_was_done_late() -> None:
    async def test() -> None:
        device = TimedDevice({1: 5.0}, told={1: 1.0}, max_in_flight=2)
        [first, _] = submit(device.scheduler, 0, 1)
        await first
        with pytest.raises(Overloaded):
            device.scheduler.check(Terms(now() + 6.5))
        assert not device.scheduler.check(Terms(now() + 6.8))  # 1 s of the second, 5 s of its own

    run(test())


# --- a device that hangs -----------------------------------------------------------------------------


def test_a_stall_answers_all_on_the_device_and_all_who_wait() -> None:
    async def test() -> None:
        device = TimedDevice({2: 0.1}, max_in_flight=2)
        device.seconds = {2: LONG_S}
        tasks = submit(device.scheduler, 0, 1, 2, 3, 4)
        await settle()
        assert device.batches == [[0, 1], [2, 3]]
        assert await outcomes(tasks) == [DeviceStalled] * 5
        assert now() == pytest.approx(10.0)
        assert device.scheduler.stalled
        assert await outcomes(submit(device.scheduler, 5)) == [DeviceStalled]

    run(test())


def test_the_second_has_its_own_patience_after_what_is_predicted_for_the_first() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.4}, max_in_flight=2)
        tasks = submit(device.scheduler, 0, 1)
        await settle()
        device.seconds = {1: LONG_S}
        assert await tasks[0] == 0
        assert await outcomes(tasks[1:]) == [DeviceStalled]
        assert now() == pytest.approx(10.4)

    run(test())


def test_a_device_that_is_slow_twice_does_not_hang() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1}, max_in_flight=2)
        device.seconds = {1: 9.0}
        assert await outcomes(submit(device.scheduler, 0, 1)) == [0, 10]
        assert now() == pytest.approx(18.0)

    run(test())


def test_it_may_hang_in_the_second_when_it_is_back_from_the_first() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1}, max_in_flight=2)
        device.seconds = {1: 15.0}
        tasks = submit(device.scheduler, 0, 1)
        await settle()
        device.seconds = {1: LONG_S}
        assert await outcomes(tasks) == [DeviceStalled, DeviceStalled]
        await asyncio.sleep(6.0)
        assert now() == pytest.approx(16.0)
        assert not device.scheduler.stalled
        assert await outcomes(submit(device.scheduler, 2)) == [DeviceStalled]
        assert now() == pytest.approx(25.0)

    run(test())


def test_it_hangs_though_one_behind_comes_back() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(1), max_in_flight=2)
        assert await outcomes(submit(device.scheduler, 0, 1)) == [DeviceStalled, DeviceStalled]
        device.fail(ValueError("could not be launched"), which=1)
        await settle()
        assert device.in_flight == [[0]]
        assert device.scheduler.stalled
        device.finish()
        await settle()
        assert not device.scheduler.stalled

    run(test())


# --- the device for itself ---------------------------------------------------------------------------


def test_who_wants_the_device_alone_waits_for_all_that_run_and_nothing_starts_meanwhile() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(2), max_in_flight=2)
        tasks = submit(device.scheduler, 0, 1, 2, 3)
        await settle()
        worked_at: list[int] = []

        async def work() -> None:
            assert device.in_flight == []
            worked_at.append(len(device.batches))
            await asyncio.sleep(LONG_S)
            assert device.in_flight == []

        alone = [asyncio.create_task(device.scheduler.alone(work)) for _ in range(2)]
        await settle()
        tasks += submit(device.scheduler, 4, 5, 6, 7)
        for left in ([[2, 3]], []):
            device.finish()
            await settle()
            assert device.in_flight == left
        assert tasks[3].done()
        await asyncio.gather(*alone)
        assert worked_at == [2, 2]
        await settle()
        assert device.in_flight == [[4, 5], [6, 7]]
        device.finish()
        device.finish(which=1)
        assert await asyncio.gather(*tasks) == list(range(0, 80, 10))

    run(test())


# --- failures ----------------------------------------------------------------------------------------


def test_a_failed_batch_is_run_in_parts_while_another_one_is_in_flight() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.1, 4: 0.2}, max_in_flight=2)
        tasks = submit(device.scheduler, 1, 2, -1, 3, 4, 5, 6, 7)
        await settle()
        tasks += submit(device.scheduler, 8, -2, 9, 11)
        assert await outcomes(tasks) == [10, 20, ValueError, 30, 40, 50, 60, 70, 80, ValueError, 90, 110]
        assert device.batches[:3] == [[1, 2, -1, 3], [4, 5, 6, 7], [1, 2]]
        assert device.counts.of == {"queued": 12, "executed": 5, "split": 4}

    run(test())


@pytest.mark.parametrize("which_first", [0, 1])
def test_both_may_fail_at_once(which_first: int) -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(2), max_in_flight=2)
        tasks = submit(device.scheduler, 0, 1, 2, 3)
        await settle()
        device.fail(MemoryError(), which=which_first)
        device.fail(MemoryError(), which=1 - which_first)
        await settle()
        assert sorted(device.in_flight) == [[0], [2]]
        for _ in range(4):
            device.finish()
            await settle()
        assert await asyncio.gather(*tasks) == [0, 10, 20, 30]
        assert device.scheduler.isolation.limit == 1

    run(test())


def test_the_limit_is_lowered_while_another_one_is_in_flight_and_then_is_what_full_means() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4), max_in_flight=2)
        tasks = submit(device.scheduler, *range(8))
        await settle()
        tasks += submit(device.scheduler, *range(8, 11))
        device.fail(MemoryError())
        await settle()
        assert device.in_flight == [[4, 5, 6, 7], [0, 1]]
        device.finish(which=1)
        await settle()
        assert device.in_flight == [[4, 5, 6, 7], [2, 3]]
        device.finish(which=1)
        await settle()
        assert device.scheduler.isolation.limit == 2
        assert device.in_flight == [[4, 5, 6, 7], [8, 9]]
        for _ in range(3):
            device.finish()
            await settle()
        assert await asyncio.gather(*tasks) == list(range(0, 110, 10))

    run(test())


def test_two_that_failed_for_the_same_reason_lower_the_limit_as_one_does() -> None:
    async def attempt(items: list[int]) -> Sequence[int | BaseException]:
        await asyncio.sleep(0)
        if len(items) > 2:
            raise MemoryError
        return items

    async def test() -> None:
        isolation: Isolation[int, int] = Isolation(attempt, lambda _: True, lambda: None)
        await asyncio.gather(isolation.run([1, 2, 3, 4]), isolation.run([5, 6, 7, 8]))
        assert isolation.limit == 2
        for _ in range(RECOVERY):
            assert isolation.limit == 2
            await isolation.run([1, 2])
        assert isolation.limit is None
        await isolation.run([1, 2, 3, 4])
        for _ in range(2 * RECOVERY):  # it was tried again, and failed again
            assert isolation.limit == 2
            await isolation.run([1, 2])
        assert isolation.limit is None

    run(test())


def test_after_a_cancelled_batch_the_other_one_and_what_waits_go_on() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(1), max_in_flight=2)
        tasks = submit(device.scheduler, 0, 1, 2)
        await settle()
        device.cancel()
        await settle()
        assert device.in_flight == [[1], [2]]
        device.finish()
        device.finish(which=1)
        assert await outcomes(tasks) == [asyncio.CancelledError, 10, 20]

    run(test())


# --- images that the device cannot read --------------------------------------------------------------


@pytest.mark.parametrize("unreadable", [[0], [1, 2], [0, 1, 2, 3]])
def test_a_request_error_is_an_answer_for_that_image_alone(unreadable: list[int]) -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4), max_in_flight=2)
        tasks = submit(device.scheduler, 0, 1, 2, 3)
        await asyncio.sleep(0.5)
        device.finish([UnreadableImage("unreadable") if n in unreadable else n * 10 for n in range(4)])
        assert await outcomes(tasks) == [UnreadableImage if n in unreadable else n * 10 for n in range(4)]
        assert device.batches == [[0, 1, 2, 3]]
        assert not device.scheduler.isolation.is_failing
        assert device.scheduler.isolation.limit is None
        assert device.counts.of == {"queued": 4, "executed": 1}
        assert device.counts.actual_s == pytest.approx([0.5])
        assert device.scheduler.times.predict(4, now()) == pytest.approx(0.5)

    run(test())


def test_unreadable_images_do_not_hide_that_a_size_is_too_large() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(4))
        tasks = submit(device.scheduler, 0, 1, 2, 3)
        await settle()
        device.fail(MemoryError())
        await settle()
        device.finish([UnreadableImage("unreadable"), 10])
        await settle()
        device.finish()
        assert await outcomes(tasks) == [UnreadableImage, 10, 20, 30]
        assert device.scheduler.isolation.limit == 2

    run(test())


def test_images_without_deadline_wait_for_as_long_as_it_takes() -> None:
    async def test() -> None:
        device = TimedDevice({1: 9.0, 4: 9.0}, max_in_flight=2)
        tasks = submit(device.scheduler, *range(501), within_s=math.inf)
        assert await outcomes(tasks) == list(range(0, 5010, 10))
        assert now() == pytest.approx(126 * 9.0)
        assert device.counts.actual_s == pytest.approx([9.0] * 126)

    run(test())
