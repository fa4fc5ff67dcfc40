"""A full event loop is part of an image's way: measured where images come in, and counted at the door."""

import asyncio
import math

import pytest

from serve_app.errors import Overloaded
from serve_app.scheduler import Policy, Priority, Terms
from serve_app.scheduler.loop_turn import STALE_S, WAY_TURNS, LoopTurn
from tests.scheduler.fakes import TimedDevice
from tests.scheduler.virtual_clock import run


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def looked(turn: LoopTurn, clock: Clock, *seconds: float) -> float:
    """What it says after turns that took so long."""
    for each in seconds:
        turn.look()
        clock.now += each
        await asyncio.sleep(0)
    return turn.look()


@pytest.mark.parametrize(
    ("seconds", "found"),
    [((), 0.0), ((0.2,), 0.2), ((0.01, 0.01, 0.01, 5.0), 0.01), ((0.01, 0.01, 0.3, 0.2, 0.3, 0.4), 0.3)],
    ids=["nothing seen", "the first", "one long turn is chance", "several are load"],
)
def test_it_is_the_median_of_the_last_turns(seconds: tuple[float, ...], found: float) -> None:
    async def test() -> None:
        clock = Clock()
        assert await looked(LoopTurn(clock), clock, *seconds) == pytest.approx(found)

    asyncio.run(test())


def test_all_who_look_in_one_turn_are_one_measurement() -> None:
    async def test() -> None:
        clock = Clock()
        turn = LoopTurn(clock)
        turn.look()
        clock.now += 0.1
        turn.look()
        clock.now += 0.1
        await asyncio.sleep(0)
        assert turn.look() == pytest.approx(0.2)

    asyncio.run(test())


def test_what_was_long_ago_is_forgotten() -> None:
    async def test() -> None:
        clock = Clock()
        turn = LoopTurn(clock)
        assert await looked(turn, clock, 0.3, 0.3) == pytest.approx(0.3)
        await asyncio.sleep(0)
        clock.now += STALE_S + 0.1
        assert turn.look() == 0.0

    asyncio.run(test())


TURN_S = 0.05


def comes_in(within_s: float, priority: Priority = Priority.INTERACTIVE) -> bool:
    """Whether an idle device that takes 0.1 s for an image takes one, behind a loop that takes TURN_S to come round."""

    async def test() -> bool:
        scheduler = TimedDevice({1: 0.1}, Policy(1, max_queue_size=9)).scheduler
        now = asyncio.get_running_loop().time()
        scheduler.admission.probed(now)
        try:
            scheduler.check(Terms(now + within_s, priority))
        except Overloaded:
            return False
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoopTurn, "look", lambda _: TURN_S)
        return run(test())


NEEDED_S = (0.1 + WAY_TURNS * TURN_S) / 0.9


@pytest.mark.parametrize("priority", Priority)
def test_a_deadline_that_the_loop_would_miss_is_refused(priority: Priority) -> None:
    assert comes_in(1.01 * NEEDED_S, priority)
    assert not comes_in(0.99 * NEEDED_S, priority)


def test_who_has_time_comes_in_whatever_the_loop_does() -> None:
    assert comes_in(math.inf)
