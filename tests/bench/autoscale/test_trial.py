from collections.abc import Callable, Sequence

import numpy as np
import pytest

from serve_app.bench.arrivals import Step
from serve_app.bench.autoscale import trial
from serve_app.bench.autoscale.bars import checks
from serve_app.bench.autoscale.history import History
from serve_app.bench.autoscale.traffic import Traffic
from serve_app.bench.autoscale.trial import BACK_WINDOW_S, Trial, back_s
from serve_app.bench.autoscale.watch import Watch
from serve_app.bench.generator import Generator, Run, arrivals
from serve_app.bench.samples import STAGES, Samples
from serve_app.bench.timeline import Second
from tests.bench.autoscale.made_up import history

RISE_S, FALL_S, END_S = 20.0, 110.0, 200.0
STEPS = (Step(10, 20), Step(50, 90), Step(10, 90))
OBJECTIVE_MS = 300.0
FOLLOWED = history([(25, 3), (170, 1)], {"second": (26.0, 45.0)}, gone_s={"second": 172.0})


class Simulated(Generator):
    """No processes: of a service that loses one request, and from the rise on until `back_s` refuses every other."""

    def __init__(self, back_s: float, lost: str = "503") -> None:
        self._back_s = back_s
        self._lost = lost

    def run(self, run: Run, on_progress: Callable[[float], None] = lambda _: None) -> tuple[Samples, float]:
        times = arrivals(run)
        on_progress(END_S)
        refused = (times >= RISE_S) & (times < self._back_s) & (np.arange(len(times)) % 2 == 0)
        status = np.where(refused, "503", "200").astype(np.dtypes.StrDType(16))
        status[-1] = self._lost
        nothing = np.full(len(times), np.nan)
        stages = np.full((len(times), len(STAGES)), np.nan)
        return Samples(times, times, times + 0.1, status, nothing, stages, nothing, refused), 0.25


class Watched(Watch):
    def __init__(self, found: History) -> None:
        self._found = found
        self.start: float | None = None

    def history(self, start: float) -> History:
        self.start = start
        return self._found


def tried(
    found: History = FOLLOWED, *, name: str = "step", lost: str = "503", objective_ms: float | None = OBJECTIVE_MS
) -> Trial:
    traffic = Traffic(name, STEPS, RISE_S, FALL_S)
    generator = Simulated(back_s=50.0, lost=lost)
    return trial.send(generator, Run("", 0.0), traffic, Watched(found), objective_ms, lambda _: None)


def test_the_phases_are_before_the_rise_up_and_after_the_fall() -> None:
    phases = {name: row.median for name, row in tried().phases.items()}
    assert {name: round(one.offered_per_s) for name, one in phases.items()} == {"before": 10, "up": 50, "after": 10}
    assert phases["before"].errors == {}
    refused = phases["up"].errors["503"]
    assert refused == pytest.approx(750, rel=0.1)
    assert phases["after"].errors == {"503": 1}
    assert phases["up"].goodput_per_s == pytest.approx(50 - refused / 90)


def test_figures_count_from_the_rise() -> None:
    found = tried().as_dict()
    expected = {"decided_s": 6, "start_up_s": 19, "ready_s": 25, "back_s": 30, "most_running": 2, "reversals": 0}
    assert {name: found[name] for name in expected} == expected
    assert found["replica_seconds"] == END_S + 172 - 26
    assert (len(found["timeline"]), len(found["replicas"])) == (END_S, len(FOLLOWED.looks))


def test_what_was_not_seen_is_none() -> None:
    found = tried(history(), objective_ms=None).as_dict()
    assert [found[name] for name in ("decided_s", "start_up_s", "ready_s", "back_s")] == [None] * 4


def verdicts(of: Trial) -> dict[str, bool | None]:
    return {check.name: check.ok for check in checks(of)}


def test_a_service_that_follows_the_load_holds_every_bar() -> None:
    assert list(verdicts(tried()).values()) == [True] * 3
    decision, _, lost = checks(tried())
    assert (decision.measured, decision.note) == (6, "ready after 25.0 s, start-up 19.0 s")
    assert lost.note == "1 replica stopped"


@pytest.mark.parametrize(
    ("of", "missed"),
    [
        (tried(history(added={"late": (31.0, 33.0)})), "new replica ready, less start-up"),
        (tried(history()), "new replica ready, less start-up"),
        (tried(history([(25, 3), (40, 1), (50, 2), (60, 1)], {"second": (26.0, 45.0)})), "reversals"),
        (tried(lost="connection lost"), "failed or lost"),
        (tried(lost="500"), "failed or lost"),
    ],
)
def test_what_is_missed_is_named(of: Trial, missed: str) -> None:
    assert [name for name, ok in verdicts(of).items() if ok is False] == [missed]


@pytest.mark.parametrize("name", ["ramp", "spike"])
def test_when_the_first_replica_came_is_a_bar_of_the_step_alone(name: str) -> None:
    assert list(verdicts(tried(history(), name=name))) == ["reversals", "failed or lost"]


def seconds(*good: int) -> list[Second]:
    """Of 100 requests each, after a bad one that came before the rise."""
    return [Second(at, 100, one, 0, None, None, None) for at, one in enumerate((0, *good))]


@pytest.mark.parametrize(
    ("good", "expected"),
    [
        ([100] * 9, 0),
        ([50] * 3 + [100] * 9, 3),
        # The first stairs of a ramp hold; one second that is a little worse is outweighed by the others.
        ([100] * 7 + [50] * 3 + [98, 100, 100, 100, 100], 10),
        ([50] * 3 + [100] * (BACK_WINDOW_S - 1), None),
        ([50] * 9, None),
        ([100] * 9 + [50], None),
    ],
)
def test_it_is_back_when_99_of_100_are_in_time_for_a_while(good: Sequence[int], expected: float | None) -> None:
    assert back_s(seconds(*good), rise_s=1.0) == expected
