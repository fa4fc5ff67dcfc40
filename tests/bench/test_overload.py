from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from serve_app.bench import overload
from serve_app.bench.generator import Generator, Run, arrivals
from serve_app.bench.load import LoadTest
from serve_app.bench.overload import QUIET_S, SETTLE_S, SETTLE_TRIES, Unmeasurable
from serve_app.bench.resident import MEBIBYTE, Resident
from serve_app.bench.samples import STAGES, Samples

CAPACITY_PER_S, LONE_S, OBJECTIVE_MS = 100.0, 0.02, 250.0
OVERLOAD_S = 10.0
TEMPLATE = Run("http://nowhere", duration_s=10, seed=3, timeout_s=7)


class Simulated(Generator):
    """No processes: of a service that answers `CAPACITY_PER_S` in `latency_s` and refuses the rest at once."""

    def __init__(self, latency_s: float = LONE_S, status: str = "200") -> None:
        self.runs: list[Run] = []
        self._latency_s = latency_s
        self._status = status

    def run(self, run: Run, on_progress: Callable[[float], None] = lambda _: None) -> tuple[Samples, float]:
        if run.duration_s != SETTLE_S:
            self.runs.append(run)
        times = np.arange(0, run.duration_s, self._latency_s) if run.concurrency else arrivals(run)
        on_progress(0.0)
        free_at, status = -np.inf, np.full(len(times), "503")
        for number, at in enumerate(times):
            if free_at <= at + 2 / CAPACITY_PER_S:
                free_at, status[number] = max(free_at, at) + 1 / CAPACITY_PER_S, self._status
            on_progress(float(at))
        done = times + np.where(status == "503", 0.001, self._latency_s)
        nothing = np.full(len(times), np.nan)
        stages = np.full((len(times), len(STAGES)), np.nan)
        return Samples(times, times, done, status, nothing, stages, nothing, status == "503"), 0.25


def load_test(generator: Generator) -> LoadTest:
    return LoadTest(generator, TEMPLATE, 1, OBJECTIVE_MS)


def test_before_the_overload_the_service_is_measured_alone_at_its_peak_and_in_quiet() -> None:
    generator = Simulated()
    normal = overload.normal(load_test(generator), OBJECTIVE_MS)
    assert normal.lone.run.concurrency == 1
    assert normal.climb[0].run.rate_per_s == pytest.approx(1 / LONE_S)
    assert 0.9 * CAPACITY_PER_S <= normal.peak_per_s <= 1.01 * CAPACITY_PER_S
    assert normal.peak_per_s == max(row.median.goodput_per_s or 0.0 for row in normal.climb)
    assert normal.quiet.run.rate_per_s == pytest.approx(0.3 * normal.peak_per_s)
    assert len(generator.runs) == len(normal.climb) + 2


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        (Simulated(status="500"), "not one lone request was answered: 500 x 500"),
        (Simulated(latency_s=0.3), "no request is answered within latency_slo_ms, 250: a lone one takes 300.0 ms"),
    ],
)
def test_a_service_that_answers_nothing_in_time_cannot_be_measured(generator: Generator, message: str) -> None:
    with pytest.raises(Unmeasurable, match=message):
        overload.normal(load_test(generator), OBJECTIVE_MS)


def test_the_overload_is_one_open_loop_and_what_is_counted_is_its_middle() -> None:
    generator = Simulated()
    test = load_test(generator)
    normal = overload.normal(test, OBJECTIVE_MS)
    memory = Resident(lambda: 100 * MEBIBYTE)
    flood = overload.flood(test, normal, 3.0, OVERLOAD_S, OBJECTIVE_MS, memory)
    run = generator.runs[-1]
    assert (run.duration_s, run.warm_up_s, run.seed, run.timeout_s) == (2 * QUIET_S + OVERLOAD_S, 0, 3, 7)
    assert flood.summary.offered_per_s == pytest.approx(3 * normal.peak_per_s, rel=0.01)
    assert flood.summary.goodput_per_s == pytest.approx(CAPACITY_PER_S, rel=0.05)
    assert flood.summary.refusals.retry_after_share == 1
    assert flood.recovery_s == 0
    assert flood.memory is not None
    assert flood.memory.share == 0
    assert len(flood.timeline) == run.duration_s
    refused = [second.at_s for second in flood.timeline if second.refused > second.offered / 2]
    assert refused == list(range(int(QUIET_S), int(QUIET_S + OVERLOAD_S)))


def answering(latencies_s: Sequence[float | None]) -> tuple[Simulated, list[Run]]:
    """Each run's requests take as long; None: they are refused. And the runs there were."""
    left = iter(latencies_s)
    runs: list[Run] = []

    class Answering(Simulated):
        def run(self, run: Run, on_progress: Callable[[float], None] = lambda _: None) -> tuple[Samples, float]:
            latency_s = next(left)
            runs.append(run)
            return Simulated(latency_s or 1.0, "200" if latency_s else "503").run(run)

    return Answering(), runs


@pytest.mark.parametrize(
    ("latencies_s", "count"),
    [([LONE_S], 1), ([9.0, None, 2 * LONE_S, LONE_S], 4), ([9.0] * SETTLE_TRIES, SETTLE_TRIES)],
)
def test_before_a_run_the_service_has_got_over_the_one_before(latencies_s: Sequence[float | None], count: int) -> None:
    normal = overload.normal(load_test(Simulated()), OBJECTIVE_MS)
    generator, runs = answering(latencies_s)
    overload.settle(load_test(generator), normal.lone)
    assert len(runs) == count
    assert [run.rate_per_s for run in runs] == pytest.approx([0.3 / LONE_S] * count)


def test_mixed_deadlines_are_untold_and_then_told_and_differ_in_nothing_else() -> None:
    generator = Simulated()
    test = load_test(generator)
    normal = overload.normal(test, OBJECTIVE_MS)
    overload.mixed(test, normal, (100.0, 2000.0))
    untold, told = generator.runs[-2:]
    assert not untold.deadlines_told
    assert replace(untold, deadlines_told=True) == told
    assert told.deadlines_ms == (100.0, 2000.0)
    assert told.rate_per_s == pytest.approx(0.95 * normal.peak_per_s)
