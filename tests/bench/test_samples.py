import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.bench.samples import PERCENTS, STAGES, Samples, Summary, median_of, summarise

DURATION_S = 10.0
FAILURES = ("503", "timeout", "no connection")
LATENCIES = st.lists(st.floats(0.001, 5), min_size=1, max_size=60)


def samples(
    latencies_s: Sequence[float],
    status: str = "200",
    *,
    intended_s: float = 1.0,
    lag_s: float = 0.0,
    batch_sizes: Sequence[float] | None = None,
    stages_ms: Sequence[float] = (np.nan,) * len(STAGES),
    deadline_ms: float = np.nan,
    retry_after: bool = False,
) -> Samples:
    """Requests that should all have been sent at `intended_s`, and were `lag_s` later."""
    count = len(latencies_s)
    return Samples(
        intended_s=np.full(count, intended_s),
        sent_s=np.full(count, intended_s + lag_s),
        done_s=intended_s + np.array(latencies_s, np.float64),
        status=np.full(count, status),
        batch_size=np.full(count, np.nan) if batch_sizes is None else np.array(batch_sizes, np.float64),
        stages_ms=np.tile(np.array(stages_ms, np.float64), (count, 1)),
        deadline_ms=np.full(count, deadline_ms),
        retry_after=np.full(count, retry_after),
    )


def summary(*parts: Samples, bound_ms: float | None = None) -> Summary:
    return summarise(Samples.concatenated(parts), DURATION_S, bound_ms, generator_cores=0.5)


def latencies(figures: Summary) -> dict[str, float | None]:
    return {name: getattr(figures, name) for name in PERCENTS}


# --- latency -------------------------------------------------------------------------------------


@given(answered=LATENCIES, failed=LATENCIES, status=st.sampled_from(FAILURES))
def test_failures_are_counted_and_change_no_latency(answered: list[float], failed: list[float], status: str) -> None:
    alone = summary(samples(answered))
    with_failures = summary(samples(failed, status), samples(answered), samples(failed[:1], "500"))
    assert latencies(with_failures) == latencies(alone)
    assert with_failures.errors == {status: len(failed), "500": 1}
    assert with_failures.requests == len(answered) + len(failed) + 1


def test_percentiles_are_those_of_all_answers_from_the_fastest_to_the_slowest() -> None:
    figures = summary(samples([ms / 1e3 for ms in range(1001)]))
    expected = {"p50_ms": 500, "p90_ms": 900, "p99_ms": 990, "p999_ms": 999, "max_ms": 1000}
    assert latencies(figures) == pytest.approx(expected)


def test_a_latency_counts_from_when_the_request_should_have_been_sent() -> None:
    figures = summary(samples([0.5], lag_s=0.4))
    assert figures.p50_ms == pytest.approx(500)
    assert figures.lag_p50_ms == figures.lag_p99_ms == pytest.approx(400)
    assert figures.lagged


@pytest.mark.parametrize(
    ("latency_s", "lag_s", "lagged"), [(1, 0.05, False), (0.01, 0.001, False), (0.01, 0.003, True)]
)
def test_a_generator_lags_when_that_is_a_visible_part_of_the_tail(latency_s: float, lag_s: float, lagged: bool) -> None:
    assert summary(samples([latency_s], lag_s=lag_s)).lagged == lagged


@given(answered=LATENCIES, warm_up=LATENCIES, status=st.sampled_from(("200", *FAILURES)))
def test_of_the_warm_up_only_late_answers_count(answered: list[float], warm_up: list[float], status: str) -> None:
    counted = samples(answered, batch_sizes=[2.0] * len(answered), stages_ms=(1, 2, 3))
    before = samples(warm_up, status, intended_s=-1e-6, lag_s=9, batch_sizes=[64.0] * len(warm_up), stages_ms=(7, 8, 9))
    both, alone = summary(before, counted, bound_ms=100), summary(counted, bound_ms=100)
    assert replace(both, completed_per_s=alone.completed_per_s) == alone


def test_without_an_answer_there_are_no_latencies() -> None:
    figures = summary(samples([0.1, 0.2], "503"), bound_ms=100)
    assert set(latencies(figures).values()) == {None}
    assert (figures.offered_per_s, figures.completed_per_s, figures.goodput_per_s) == (0.2, 0, 0)
    assert (figures.mean_batch, figures.stages_ms, figures.goodput_share) == (None, {}, 0)
    assert not figures.lagged


def test_without_a_request_every_figure_is_none_or_nought() -> None:
    figures = summary(samples([0.1], intended_s=-1), bound_ms=100)
    assert (figures.requests, figures.offered_per_s, figures.goodput_share, figures.errors) == (0, 0, 0, {})
    assert set(latencies(figures).values()) == {None}


# --- rates ---------------------------------------------------------------------------------------


def test_goodput_is_what_was_answered_within_the_bound_of_everything_offered() -> None:
    figures = summary(samples([0.1] * 50), samples([0.101] * 30), samples([0.001] * 20, "503"), bound_ms=100 + 1e-6)
    assert figures.offered_per_s == figures.requests / DURATION_S == 10
    assert figures.completed_per_s == 8
    assert figures.goodput_per_s == 5
    assert figures.goodput_share == 0.5


def test_without_a_bound_there_is_no_goodput() -> None:
    assert summary(samples([0.1])).goodput_per_s is None


def test_completed_is_what_was_answered_in_the_time_whenever_it_was_sent() -> None:
    before = samples([2.0] * 10, intended_s=-1.0)
    late = samples([2 * DURATION_S] * 40)
    figures = summary(before, samples([0.1] * 30), late)
    assert (figures.offered_per_s, figures.completed_per_s) == (7, 4)
    assert figures.max_ms == pytest.approx(2e3 * DURATION_S)


# --- what the service tells ----------------------------------------------------------------------


@given(st.lists(st.integers(1, 64), min_size=1, max_size=20))
def test_mean_batch_is_images_per_execution(executions: list[int]) -> None:
    told = [float(size) for size in executions for _ in range(size)]
    figures = summary(samples([0.1] * len(told), batch_sizes=told), samples([0.1]))
    assert figures.mean_batch == pytest.approx(sum(executions) / len(executions))


def test_http_is_what_the_stages_leave_of_the_latency() -> None:
    told = samples([0.1, 0.3], stages_ms=(10, 20, 30))
    silent = samples([5.0])
    failed = samples([5.0], "503", stages_ms=(1000, 1000, 1000))
    assert summary(told, silent, failed).stages_ms == pytest.approx(
        {"decode": 10, "queue": 20, "device": 30, "http": 140}
    )


# --- refusals and deadlines ----------------------------------------------------------------------


@given(answered=LATENCIES, refused=LATENCIES)
def test_refusals_have_latencies_of_their_own(answered: list[float], refused: list[float]) -> None:
    figures = summary(samples(answered), samples(refused, "503", retry_after=True), samples([9.0], "504"))
    assert (figures.refusals.count, figures.refusals.with_retry_after) == (len(refused), len(refused))
    assert figures.refusals.max_ms == pytest.approx(1e3 * max(refused))
    assert latencies(figures) == latencies(summary(samples(answered)))


def test_each_deadline_is_judged_for_itself() -> None:
    figures = summary(
        samples([0.05, 0.15], deadline_ms=100),
        samples([0.01], "503", deadline_ms=100),
        samples([0.05, 0.15], deadline_ms=2000),
        samples([0.1], "504", deadline_ms=2000),
        samples([0.01], "504", intended_s=-1, deadline_ms=2000),
    )
    assert list(figures.deadlines) == ["100", "2000"]
    tight, loose = figures.deadlines.values()
    assert (tight.requests, tight.missed, tight.refused, tight.expired) == (3, 2, 1, 0)
    assert (loose.requests, loose.missed, loose.refused, loose.expired) == (3, 1, 0, 1)
    assert figures.as_dict()["deadlines"]["2000"]["missed_percent"] == 33.333


def test_what_lies_between_two_times_counts_from_the_first() -> None:
    parts = [samples([0.5], intended_s=at, lag_s=0.25) for at in (1.0, 2.0, 3.0)]
    between = Samples.concatenated(parts).between(2.0, 3.0)
    assert (between.intended_s.tolist(), between.sent_s.tolist(), between.done_s.tolist()) == ([0], [0.25], [0.5])


# --- several runs --------------------------------------------------------------------------------


def test_of_repeats_every_figure_is_the_median_and_counts_are_sums() -> None:
    runs = [
        summary(samples([ms / 1e3], batch_sizes=[size], stages_ms=(ms / 10, 0, 0)), samples([1.0] * failed, "503"))
        for ms, size, failed in ((10, 8, 1), (30, 2, 5), (20, 4, 0))
    ]
    middle = median_of(runs)
    assert middle.p50_ms == pytest.approx(20)
    assert middle.mean_batch == 4
    assert middle.stages_ms == pytest.approx({"decode": 2, "queue": 0, "device": 0, "http": 18})
    assert middle.offered_per_s == 0.2
    assert (middle.requests, middle.errors) == (9, {"503": 6})


def test_of_repeats_refusals_and_deadlines_are_added_up_and_their_latencies_medians() -> None:
    runs = [
        summary(samples([ms / 1e3], deadline_ms=50), samples([ms / 1e3], "503", deadline_ms=50)) for ms in (10, 90, 20)
    ]
    middle = median_of(runs)
    assert middle.refusals.count == 3
    assert middle.refusals.p99_ms == pytest.approx(20)
    deadline = middle.deadlines["50"]
    assert (deadline.requests, deadline.missed, deadline.refused) == (6, 4, 3)
    assert deadline.p50_ms == pytest.approx(20)


def test_the_median_of_one_run_is_that_run() -> None:
    run = summary(samples([0.1, 0.2], batch_sizes=[1, 2], stages_ms=(1, 2, 3)), samples([1], "503"), bound_ms=150)
    assert median_of([run]) == run


def test_a_repeat_without_answers_has_no_latency_to_give_but_its_zeroes_count() -> None:
    dead = summary(samples([0.1], "timeout"))
    alive = summary(samples([0.1], stages_ms=(1, 2, 3)))
    middle = median_of([dead, alive, dead])
    assert (middle.p50_ms, middle.completed_per_s) == (alive.p50_ms, 0)
    assert middle.stages_ms == alive.stages_ms
    assert median_of([dead, dead]) == replace(dead, requests=2, errors={"timeout": 2})


def test_a_summary_is_json_with_rounded_figures() -> None:
    figures = summary(samples([1 / 3], stages_ms=(1 / 3, 0, 0)), samples([1], "503")).as_dict()
    assert json.loads(json.dumps(figures)) == figures
    assert (figures["p50_ms"], figures["stages_ms"]["decode"]) == (333.333, 0.333)
    assert figures["errors"] == {"503": 1}
