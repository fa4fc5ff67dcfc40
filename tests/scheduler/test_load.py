"""What comes in, in device time: what an autoscaler decides by."""

import asyncio

import pytest

from serve_app.scheduler import Load, Policy
from serve_app.scheduler.load import LoadMeter
from tests.scheduler.fakes import SteppedDevice, TimedDevice, settle, submit
from tests.scheduler.virtual_clock import run

ANY_BATCH_TAKES_1_S = {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}


async def after(seconds: float, device: TimedDevice) -> Load:
    await asyncio.sleep(seconds)
    return device.scheduler.load()


def test_the_first_reading_and_one_without_time_between_say_nothing() -> None:
    meter = LoadMeter()
    meter.arrived()
    assert meter.read(10.0, 0.0, 0.1, 0.0, 1.0).demand == 0.0
    meter.arrived()
    assert meter.read(10.0, 0.0, 0.1, 0.0, 1.0).demand == 0.0


def test_each_reading_is_of_the_time_since_the_last() -> None:
    meter = LoadMeter()
    meter.read(10.0, 0.0, 0.1, 0.0, 1.0)
    for _ in range(20):
        meter.arrived()
    meter.executed_full(0.5)
    assert meter.read(12.0, 1.5, 0.1, 0.5, 2.0) == Load(demand=1.0, full=0.25, loop=0.75, delay=0.25)
    assert meter.read(14.0, 1.5, 0.1, 0.0, 2.0) == Load(0.0, 0.0, 0.0, 0.0)


def test_what_ran_before_the_first_reading_is_of_none() -> None:
    meter = LoadMeter()
    meter.executed_full(600.0)
    meter.read(10.0, 0.0, 0.1, 0.0, 1.0)
    assert meter.read(11.0, 0.0, 0.1, 0.0, 1.0).full == 0.0


def test_a_batch_that_takes_longer_than_from_one_reading_to_the_next_counts_whole() -> None:
    meter = LoadMeter()
    meter.read(0.0, 0.0, 0.1, 0.0, 1.0)
    full = []
    for reading in range(1, 31):
        if reading % 3 == 0:
            meter.executed_full(1.8)  # ends at each third reading, 0.6 s apart
        full.append(meter.read(0.6 * reading, 0.0, 0.1, 0.0, 1.0).full)
    assert full[2:] == pytest.approx([1.0] * 28)


def test_images_one_by_one_are_a_small_demand_however_busy_they_keep_the_device() -> None:
    async def test() -> None:
        device = TimedDevice(ANY_BATCH_TAKES_1_S)
        device.scheduler.load()
        for _ in range(20):
            await asyncio.gather(*submit(device.scheduler, 1))
        load = await after(0.0, device)
        assert load.demand == pytest.approx(0.25)
        assert load.full == 0.0

    run(test())


def test_full_batches_one_after_another_fill_the_device() -> None:
    async def test() -> None:
        device = TimedDevice(ANY_BATCH_TAKES_1_S)
        device.scheduler.load()
        tasks = submit(device.scheduler, *range(40))
        await asyncio.gather(*tasks)
        load = await after(0.0, device)
        assert load.demand == pytest.approx(1.0)
        assert load.full == pytest.approx(1.0)
        assert load.delay == 0.0

    run(test())


def test_where_decoding_is_slower_than_the_device_it_decides() -> None:
    async def test() -> None:
        device = TimedDevice(ANY_BATCH_TAKES_1_S)
        device.scheduler.admission.preparation.observe(0.6)  # by its only preparer
        device.scheduler.load()
        for _ in range(10):
            await asyncio.gather(*submit(device.scheduler, 1))
        assert (await after(0.0, device)).demand == pytest.approx(0.6)

    run(test())


def test_the_objective_makes_batches_smaller_and_the_same_traffic_a_larger_demand() -> None:
    async def test() -> None:
        # Two batches are to fit into nine tenths of 1 s: batches of two, of 0.4 s, it is.
        device = TimedDevice({1: 0.3, 2: 0.4, 4: 0.6}, Policy(4, latency_slo_s=1.0))
        device.scheduler.load()
        for _ in range(10):
            await asyncio.gather(*submit(device.scheduler, 1))
        assert (await after(7.0, device)).demand == pytest.approx(10 / 10 * 0.4 / 2)

    run(test())


def test_what_is_refused_is_demand_too_unless_no_device_could_be_in_time() -> None:
    async def test() -> None:
        device = TimedDevice({1: 1.0}, Policy(1, max_queue_size=2))
        device.scheduler.load()
        refused = submit(device.scheduler, *range(6))
        await asyncio.wait(refused)
        assert device.counts.of["queue_full"] == 4
        hopeless = submit(device.scheduler, 1, 2, 3, within_s=0.5)
        await asyncio.wait(hopeless)
        assert device.counts.of["overloaded"] == 3
        assert (await after(1.0, device)).demand == pytest.approx(6 / 3)

    run(test())


def test_delay_is_what_an_image_would_wait_over_what_the_objective_leaves() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.5}, Policy(1, latency_slo_s=4.0))
        assert device.scheduler.load().delay == 0.0
        tasks = submit(device.scheduler, *range(3))
        await settle()  # one is on the device, two wait: 1.5 s
        assert device.scheduler.load().delay == pytest.approx(1.5 / (0.9 * 4.0 - 0.5))
        await asyncio.gather(*tasks)

    run(test())


def test_without_an_objective_four_full_batches_are_a_tolerable_wait() -> None:
    async def test() -> None:
        device = TimedDevice({1: 0.5, 2: 0.5})
        tasks = submit(device.scheduler, *range(6))
        await settle()
        assert device.scheduler.load().delay == pytest.approx(1.5 / 2.0)
        await asyncio.gather(*tasks)

    run(test())


def test_a_device_that_hangs_is_a_delay_that_grows() -> None:
    async def test() -> None:
        device = SteppedDevice(Policy(1))
        device.scheduler.configure(Policy(1), [1], {1: 0.5})
        submit(device.scheduler, 1)
        await asyncio.sleep(2.0)
        early = device.scheduler.load().delay
        await asyncio.sleep(4.0)
        assert device.scheduler.load().delay > early > 0.5

    run(test())
