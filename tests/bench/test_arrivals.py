import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.bench.arrivals import poisson


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
