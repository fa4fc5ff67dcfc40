import math
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from serve_app.bench.sweep import MAX_RATE_PER_S, MIN_RATE_PER_S, highest_rate

STARTS = st.floats(MIN_RATE_PER_S, MAX_RATE_PER_S)
TOLERANCES = st.floats(0.02, 1)


def up_to(threshold: float, budget: int = 100) -> tuple[Callable[[float], bool], list[float]]:
    """A service that holds every rate up to `threshold`, and the rates it is asked for: `budget` of them at most."""
    tried: list[float] = []

    def holds(rate_per_s: float) -> bool:
        assert len(tried) < budget, f"still asking: {tried[-3:]}"
        tried.append(rate_per_s)
        return rate_per_s <= threshold

    return holds, tried


@given(threshold=st.floats(MIN_RATE_PER_S, MAX_RATE_PER_S, exclude_max=True), start=STARTS, tolerance=TOLERANCES)
def test_what_is_found_holds_and_a_rate_higher_by_the_tolerance_does_not(
    threshold: float, start: float, tolerance: float
) -> None:
    holds, tried = up_to(threshold)
    found = highest_rate(holds, start, tolerance)
    assert found is not None
    assert found in tried
    assert found <= threshold < found * (1 + tolerance) * (1 + 1e-12)
    # Doublings from start to threshold, halvings (in the logarithm) of the doubling that is left, and
    # one more where a middle was rounded to three digits.
    doublings = abs(math.log2(threshold / start)) + 2
    halvings = math.log2(1 / math.log2(1 + tolerance)) + 2
    assert len(tried) <= doublings + halvings


@given(start=STARTS)
def test_none_if_not_even_the_lowest_holds(start: float) -> None:
    holds, tried = up_to(MIN_RATE_PER_S * 0.999)
    assert highest_rate(holds, start) is None
    assert min(tried) == MIN_RATE_PER_S


@given(start=STARTS)
def test_the_highest_rate_there_is_if_all_hold(start: float) -> None:
    holds, tried = up_to(math.inf)
    assert highest_rate(holds, start) == MAX_RATE_PER_S
    assert max(tried) == MAX_RATE_PER_S


def test_the_finest_tolerance_ends_at_rates_of_three_digits() -> None:
    holds, tried = up_to(847.3)
    found = highest_rate(holds, 10, tolerance=0.01)
    assert found is not None
    assert found <= 847.3 < found * 1.01
    assert all(float(f"{rate:.3g}") == rate for rate in tried)


def test_the_finest_tolerance_ends_from_a_start_of_many_digits() -> None:
    holds, _ = up_to(1.005)
    assert highest_rate(holds, 1.01001, tolerance=0.01) is not None
