"""What is learned of the device."""

import pytest

from serve_app.scheduler.times import BatchTimes, Estimate

SEEDS = {1: 0.1, 4: 0.2, 8: 0.4}


def times(seeds: dict[int, float] = SEEDS) -> BatchTimes:
    made = BatchTimes()
    made.configure((1, 4, 8), seeds)
    return made


def test_before_anything_has_run_the_warm_up_counts() -> None:
    assert [times().predict(n, 0.0) for n in (1, 2, 4, 5, 8)] == [0.1, 0.2, 0.2, 0.4, 0.4]


def test_without_a_warm_up_nothing_is_predicted_until_a_batch_has_run() -> None:
    learned = times({})
    assert learned.predict(4, 0.0) == 0.0
    learned.observe(4, 0.3, 0.0)
    assert [learned.predict(n, 0.0) for n in (1, 2, 4, 8)] == [0.0, 0.3, 0.3, 0.0]
    assert learned.predict(4, 1000.0) == 0.3


def test_a_batch_counts_for_the_size_that_it_is_padded_to() -> None:
    learned = times()
    learned.observe(3, 0.3, 0.0)
    assert [learned.predict(n, 0.0) for n in (1, 2, 4)] == [pytest.approx(0.15), 0.3, 0.3]
    assert [learned.bucket(n) for n in (1, 2, 4, 7, 8, 9)] == [1, 4, 4, 8, 8, 8]


@pytest.mark.parametrize("outliers_at", [(0, 1), (3, 9), (14, 15)])
def test_two_outliers_of_sixteen_do_not_move_the_prediction(outliers_at: tuple[int, int]) -> None:
    learned = times()
    for step in range(16):
        learned.observe(1, 5.0 if step in outliers_at else 0.12, float(step))
    assert learned.predict(1, 16.0) == 0.12


def test_a_slow_down_is_learned_within_a_few_batches() -> None:
    learned = times()
    for step in range(50):
        learned.observe(1, 0.1, float(step))
    for step in range(4):
        learned.observe(1, 0.3, 50.0 + step)
    assert learned.predict(1, 54.0) == 0.3


def test_of_noise_the_upper_end_is_promised() -> None:
    estimate = Estimate()
    for milliseconds in range(16):
        estimate.observe(milliseconds / 1e3)
    assert 0.011 <= estimate.value <= 0.014


def test_what_is_over_is_forgotten() -> None:
    estimate = Estimate()
    for seconds in [9.0] * 16 + [0.1] * 16:
        estimate.observe(seconds)
    assert estimate.value == 0.1


def test_a_size_that_has_not_run_for_a_while_is_judged_by_the_others() -> None:
    learned = times()
    for step in range(16):
        learned.observe(8, 4.0, float(step))
    for step in range(28):
        learned.observe(1, 0.15, 16.0 + step / 10)
    assert learned.predict(8, 15.0 + 4.9) == 4.0
    assert learned.predict(8, 15.0 + 5.1) == pytest.approx(0.4 * 1.5)
    assert learned.predict(4, 20.2) == pytest.approx(0.2 * 1.5)
    assert learned.predict(1, 20.2) == pytest.approx(0.15)


def test_new_settings_keep_what_was_learned() -> None:
    learned = times()
    learned.observe(4, 0.3, 0.0)
    learned.configure((4, 16), {16: 1.0})
    assert learned.predict(1, 1.0) == 0.3
    assert learned.predict(5, 1.0) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("n", "seconds", "fits"),
    [(8, 0.4, 8), (7, 0.4, 7), (8, 0.39, 4), (3, 0.2, 3), (3, 0.19, 1), (8, 0.1, 1), (8, 0.0, 1), (8, -1.0, 1)],
)
def test_it_knows_how_many_the_device_can_run_in_a_given_time(n: int, seconds: float, fits: int) -> None:
    assert times().largest_within(n, seconds, 0.0) == fits
