import itertools
import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from serve_app.bench import machine
from serve_app.bench.generator import Generator, Run
from serve_app.bench.load import CONFIRMATIONS, LoadTest, Row
from serve_app.bench.samples import STAGES, Samples

BOUND_MS = 100.0
FAST_S, SLOW_S = 0.01, 1.0
SEED = 40
TEMPLATE = Run("http://nowhere", duration_s=10, warm_up_s=2, seed=SEED)


class Scripted(Generator):
    """No processes: every run's answers take as long as `latency_s` says of it."""

    def __init__(self, latency_s: Callable[[Run], float | Sequence[float]]) -> None:
        self.runs: list[Run] = []
        self._latency_s = latency_s

    def run(self, run: Run, on_progress: Callable[[float], None] = lambda _: None) -> tuple[Samples, float]:
        self.runs.append(run)
        on_progress(-run.warm_up_s)
        latencies = np.atleast_1d(np.array(self._latency_s(run), np.float64))
        if len(latencies) == 1:
            latencies = np.repeat(latencies, round((run.rate_per_s or 10) * run.duration_s))
        intended = np.zeros(len(latencies))
        return Samples(
            intended,
            intended,
            latencies,
            np.full(len(latencies), "200"),
            np.full(len(latencies), 4.0),
            np.full((len(latencies), len(STAGES)), 1.0),
            np.full(len(latencies), np.nan),
            np.zeros(len(latencies), np.bool_),
        ), 0.25


def load_test(generator: Generator, repeats: int = 3, run: Run = TEMPLATE) -> LoadTest:
    return LoadTest(generator, run, repeats, BOUND_MS)


def holding(up_to_per_s: Callable[[Run], float]) -> Scripted:
    """A service that is fast up to that rate and slow above it."""
    return Scripted(lambda run: FAST_S if (run.rate_per_s or 0.0) <= up_to_per_s(run) else SLOW_S)


def rates(rows: Sequence[Row]) -> list[float]:
    return [row.run.rate_per_s or 0.0 for row in rows]


# --- rows ----------------------------------------------------------------------------------------


def test_repeats_differ_in_their_seeds_and_nothing_else() -> None:
    generator = Scripted(lambda _: FAST_S)
    load_test(generator).at_rate(50)
    assert [run.seed for run in generator.runs] == [SEED, SEED + 1, SEED + 2]
    assert {(run.url, run.rate_per_s, run.concurrency, run.duration_s, run.warm_up_s) for run in generator.runs} == {
        ("http://nowhere", 50, None, 10, 2)
    }


def test_a_closed_loop_has_a_concurrency_and_no_rate() -> None:
    generator = Scripted(lambda _: FAST_S)
    row = load_test(generator, repeats=1).at_concurrency(8)
    assert (row.run.concurrency, row.run.rate_per_s) == (8, None)
    assert generator.runs == [row.run]


def test_a_row_is_the_median_of_its_repeats_and_keeps_their_spread() -> None:
    latencies_s = {SEED: 0.03, SEED + 1: 0.9, SEED + 2: 0.02}
    row = load_test(Scripted(lambda run: latencies_s[run.seed])).at_rate(50)
    assert row.median.p50_ms == pytest.approx(30)
    assert row.as_dict()["spread"]["p50_ms"] == [20, 900]
    assert [repeat["p50_ms"] for repeat in row.as_dict()["repeats"]] == [30, 900, 20]
    assert row.holds


def test_a_row_is_json() -> None:
    row = load_test(Scripted(lambda _: FAST_S)).at_rate(50).as_dict()
    assert json.loads(json.dumps(row)) == row
    assert (row["rate_per_s"], row["concurrency"], row["lagged"]) == (50, None, False)
    assert (row["offered_per_s"], row["goodput_per_s"], row["mean_batch"], row["generator_cores"]) == (50, 50, 4, 0.25)


def test_a_row_of_nothing_but_failures_is_json_too() -> None:
    class Failing(Scripted):
        def run(self, run: Run, on_progress: Callable[[float], None] = lambda _: None) -> tuple[Samples, float]:
            samples, cores = super().run(run, on_progress)
            samples.status[:] = "503"
            return samples, cores

    row = load_test(Failing(lambda _: FAST_S)).at_rate(50)
    assert not row.holds
    assert json.loads(json.dumps(row.as_dict()))["spread"] == {
        "completed_per_s": [0, 0],
        "p50_ms": None,
        "p99_ms": None,
    }


@pytest.mark.parametrize(("duration_s", "requests"), [(10, 100), (3, 100), (10, 1300)])
def test_a_bound_holds_at_99_of_100_exactly(duration_s: float, requests: int) -> None:
    late = requests // 100

    def with_late(number: int) -> Row:
        latencies = [FAST_S] * (requests - number) + [SLOW_S] * number
        return load_test(Scripted(lambda _: latencies), 1, Run("", duration_s)).at_rate(requests / duration_s)

    assert not with_late(late + 1).holds
    assert with_late(late).holds


def test_a_run_of_which_the_host_took_much_is_repeated_whatever_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    stolen_s = itertools.accumulate(itertools.chain([0.0], *zip([50.0, 20.0, 90.0], [0.0] * 3, strict=True)))
    monkeypatch.setattr(machine, "stolen_s", lambda: next(stolen_s))
    monkeypatch.setattr(machine, "num_cores", lambda: 2)
    monkeypatch.setattr("serve_app.bench.load.time.monotonic", itertools.count().__next__)  # each run takes a second
    latencies_s = iter([0.01, 0.03, 0.02])
    generator = Scripted(lambda _: next(latencies_s))
    row = LoadTest(generator, TEMPLATE, 1, BOUND_MS, retries=2).at_rate(50)
    assert len(generator.runs) == 3
    assert len({run.seed for run in generator.runs}) == 1
    assert row.median.p50_ms == pytest.approx(30.0)  # of the second run, which lost least


def test_a_quiet_run_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "stolen_s", lambda: 7.0)
    generator = Scripted(lambda _: FAST_S)
    LoadTest(generator, TEMPLATE, 1, BOUND_MS, retries=2).at_rate(50)
    assert len(generator.runs) == 1


def test_progress_says_what_runs_in_seconds_since_the_warm_up_began() -> None:
    told: list[tuple[str, float]] = []
    test = LoadTest(Scripted(lambda _: FAST_S), TEMPLATE, 2, None, lambda what, seconds: told.append((what, seconds)))
    test.at_rate(50)
    LoadTest(test.generator, TEMPLATE, 1, None, test.on_progress).at_concurrency(8)
    assert told == [("50/s, 1 of 2", 0), ("50/s, 2 of 2", 0), ("8 at once", 0)]


# --- sweep ---------------------------------------------------------------------------------------


def test_a_sweep_tries_once_and_confirms_what_it_found_with_every_repeat() -> None:
    generator = holding(lambda _: 100)
    best, trials = load_test(generator).sweep(start_per_s=10, tolerance=0.05)
    assert best is not None
    assert 100 / 1.05 < rates([best])[0] <= 100
    assert len(best.summaries) == 3
    assert {len(trial.summaries) for trial in trials} == {1}
    assert {run.seed for run in generator.runs[: len(trials)]} == {SEED}
    assert [run.rate_per_s for run in generator.runs[len(trials) :]] == [best.run.rate_per_s] * 3
    assert rates(trials)[:2] == [10, 20]


def test_a_rate_that_one_lucky_run_held_is_lowered_until_the_repeats_hold() -> None:
    best, trials = load_test(holding(lambda run: 100 if run.seed == SEED else 90)).sweep(10, tolerance=0.05)
    assert best is not None
    assert best.holds
    assert rates([best])[0] <= 90
    refused = [trial for trial in trials if len(trial.summaries) == 3]
    assert {trial.holds for trial in refused} == {False}
    lowered = [*rates(refused), *rates([best])]
    assert lowered == sorted(lowered, reverse=True)
    assert [high / low for high, low in itertools.pairwise(lowered)] == pytest.approx(
        [1.05**step for step in range(1, len(refused) + 1)]
    )


def test_a_run_that_nearly_held_has_a_second_one_before_it_counts() -> None:
    """Two late requests of 100 fail a run at 10/s, and one stall makes them."""

    def stalls_once(run: Run) -> list[float]:
        rate = run.rate_per_s or 0.0
        late = 2 if (rate, run.seed) == (10, SEED) else 0
        latency = FAST_S if rate <= 40 else SLOW_S
        return [SLOW_S] * late + [latency] * (round(rate * run.duration_s) - late)

    generator = Scripted(stalls_once)
    best, trials = load_test(generator).sweep(10, tolerance=0.05)
    assert best is not None
    assert 40 / 1.05 < rates([best])[0] <= 40
    assert rates(trials)[:3] == [10, 10, 20]
    assert [run.seed for run in generator.runs[:2]] == [SEED, SEED + 1]
    assert [run.rate_per_s for run in generator.runs].count(80) == 1  # of that there was no doubt


def test_a_sweep_that_no_repeats_confirm_finds_nothing() -> None:
    best, trials = load_test(holding(lambda run: 100 if run.seed == SEED else 1)).sweep(10, tolerance=0.05)
    assert best is None
    assert [len(trial.summaries) for trial in trials[-CONFIRMATIONS:]] == [3] * CONFIRMATIONS


def test_a_sweep_that_not_even_the_lowest_rate_holds_confirms_nothing() -> None:
    generator = holding(lambda _: 0)
    best, trials = load_test(generator).sweep(10, tolerance=0.05)
    assert best is None
    assert [trial.holds for trial in trials] == [False] * len(trials)
    assert len(generator.runs) == len(trials)
