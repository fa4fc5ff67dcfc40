from collections.abc import Callable

import pytest

from serve_app.bench.capacity import FINE, MAX_STEPS, peak_per_s


def service(capacity_per_s: float, collapse: float = 0.0) -> tuple[Callable[[float], float], list[float]]:
    """Goodput of one that answers what it can, less `collapse` of what is offered beyond; and the rates tried."""
    tried: list[float] = []

    def goodput(rate_per_s: float) -> float:
        tried.append(rate_per_s)
        return max(0.0, min(rate_per_s, capacity_per_s) - collapse * max(0.0, rate_per_s - capacity_per_s))

    return goodput, tried


@pytest.mark.parametrize("capacity_per_s", [3.0, 10.0, 17.0, 330.0, 5000.0])
@pytest.mark.parametrize("collapse", [0.0, 0.1, 1.0, 10.0])
def test_the_peak_is_found_whatever_the_service_does_beyond_it(capacity_per_s: float, collapse: float) -> None:
    goodput, tried = service(capacity_per_s, collapse)
    assert capacity_per_s / FINE <= peak_per_s(goodput, start_per_s=2.5) <= capacity_per_s
    assert len(tried) <= MAX_STEPS


def test_it_is_the_highest_goodput_and_not_a_rate_that_was_offered() -> None:
    goodput, tried = service(100.0)
    assert peak_per_s(goodput, start_per_s=30.0) == 100.0
    assert 100.0 not in tried


def test_a_start_above_the_peak_finds_what_is_left_there() -> None:
    goodput, _ = service(10.0)
    assert peak_per_s(goodput, start_per_s=50.0) == 10.0


def test_where_nothing_is_good_the_peak_is_nought() -> None:
    goodput, tried = service(0.0)
    assert peak_per_s(goodput, start_per_s=50.0) == 0.0
    assert tried == [50.0]


def test_goodput_that_never_ends_growing_is_left() -> None:
    goodput, tried = service(float("inf"))
    peak_per_s(goodput, start_per_s=1.0)
    assert len(tried) <= MAX_STEPS + 1
