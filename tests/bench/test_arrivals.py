import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.bench.arrivals import Step, dealt, piecewise, poisson


@given(
    rate_per_s=st.floats(0.01, 500),
    warm_up_s=st.floats(0, 5),
    duration_s=st.floats(0.1, 10),
    seed=st.integers(0, 1 << 32),
)
def test_the_load_is_the_rate_exactly_ascending_with_the_warm_up_before_zero(
    rate_per_s: float, warm_up_s: float, duration_s: float, seed: int
) -> None:
    times = poisson(rate_per_s, warm_up_s, duration_s, seed)
    before, counted = times[times < 0], times[times >= 0]
    assert len(before) == round(rate_per_s * warm_up_s)
    assert len(counted) == max(1, round(rate_per_s * duration_s))
    assert (np.diff(times) >= 0).all()
    assert times[0] >= -warm_up_s
    assert times[-1] <= duration_s


def test_a_seed_is_a_schedule() -> None:
    assert np.array_equal(poisson(100, 1, 2, seed=7), poisson(100, 1, 2, seed=7))
    assert not np.array_equal(poisson(100, 1, 2, seed=7), poisson(100, 1, 2, seed=8))


@pytest.mark.parametrize("seed", range(3))
def test_gaps_are_those_of_a_poisson_process(seed: int) -> None:
    gaps = np.diff(poisson(1000, 5, 20, seed))
    # An exponential distribution: its standard deviation is its mean (a metronome's is 0), and a
    # share of 1/e of the gaps is longer than the mean.
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.05)
    assert (gaps > gaps.mean()).mean() == pytest.approx(np.exp(-1), abs=0.02)


# --- steps ---------------------------------------------------------------------------------------

STEPS = st.lists(st.builds(Step, st.floats(0.01, 500), st.floats(0.1, 10)), min_size=1, max_size=4)


@given(steps=STEPS, seed=st.integers(0, 1 << 32))
def test_each_step_has_its_rate_exactly_and_follows_the_one_before(steps: list[Step], seed: int) -> None:
    times = piecewise(steps, seed)
    counts = [round(step.rate_per_s * step.duration_s) for step in steps]
    assert len(times) == sum(counts)
    assert (np.diff(times) >= 0).all()
    ends_s = np.cumsum([step.duration_s for step in steps])
    for part, step, end_s in zip(np.split(times, np.cumsum(counts)[:-1]), steps, ends_s, strict=True):
        assert ((part >= end_s - step.duration_s - 1e-9) & (part <= end_s)).all()


def test_a_seed_is_a_schedule_of_steps_too() -> None:
    steps = (Step(100, 1), Step(300, 1))
    assert np.array_equal(piecewise(steps, 7), piecewise(steps, 7))
    assert not np.array_equal(piecewise(steps, 7), piecewise(steps, 8))


# --- deadlines -----------------------------------------------------------------------------------


@given(
    deadlines_ms=st.lists(st.sampled_from([50.0, 100.0, 2000.0]), unique=True, min_size=1),
    before=st.integers(0, 50),
    counted=st.integers(0, 200),
    seed=st.integers(0, 1 << 32),
)
def test_deadlines_have_equal_shares_of_the_warm_up_and_of_what_counts(
    deadlines_ms: list[float], before: int, counted: int, seed: int
) -> None:
    times = np.concatenate([np.linspace(-1, -0.1, before), np.linspace(0, 1, counted)])
    dealt_ms = dealt(deadlines_ms, times, seed)
    assert len(dealt_ms) == len(times)
    for part in (dealt_ms[:before], dealt_ms[before:]):
        counts = [(part == deadline_ms).sum() for deadline_ms in deadlines_ms]
        assert sum(counts) == len(part)
        assert max(counts) - min(counts) <= 1


def test_a_seed_deals_the_same_deadlines() -> None:
    times = poisson(100, 1, 2, seed=7)
    assert np.array_equal(dealt((100, 2000), times, 7), dealt((100, 2000), times, 7))
    assert not np.array_equal(dealt((100, 2000), times, 7), dealt((100, 2000), times, 8))


def test_without_deadlines_nobody_has_one() -> None:
    assert np.isnan(dealt((), poisson(100, 1, 2, seed=7), 7)).all()
