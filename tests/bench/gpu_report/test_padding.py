import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.bench.gpu_report import padding
from serve_app.config import default_buckets


def test_of_a_device_that_takes_a_time_per_image_every_row_of_padding_costs_its_share() -> None:
    linear = {1: 1.0, 64: 64.0}
    # To powers of two: 1, 2, 4, 4, 8 x 4, ... in the mean 43.7 instead of 32.5.
    assert padding.mean_ms(linear, [1, 2, 4, 8, 16, 32, 64], 64) == pytest.approx(2731 / 64)
    assert padding.mean_ms(linear, range(1, 65), 64) == pytest.approx(32.5)


def test_of_a_device_whose_time_is_flat_padding_is_free() -> None:
    coarse, fine = padding.lines({1: 5.0, 8: 5.0, 64: 5.0})
    assert (coarse.value, fine.value) == (0, 0)


def test_a_larger_batch_is_never_held_to_be_faster_than_a_smaller_one() -> None:
    assert padding.mean_ms({1: 5.0, 2: 1.0}, [1, 2], 2) == 5.0


def test_what_is_not_known_is_not_computed() -> None:
    assert [line.verdict.partition(":")[0] for line in padding.lines({})] == ["not measured"] * 2


@given(st.integers(2, 64), st.floats(0, 20), st.floats(0.01, 1))
def test_default_buckets_cost_no_more_than_powers_of_two(most: int, base_ms: float, per_image_ms: float) -> None:
    bucket_ms = {size: base_ms + per_image_ms * size for size in default_buckets(most)}
    coarse, fine = padding.lines(bucket_ms)
    assert coarse.value is not None
    assert fine.value is not None
    assert -1e-6 <= fine.value <= coarse.value + 1e-6
    assert fine.value < 13
