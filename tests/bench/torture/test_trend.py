"""A slope is found under noise, and none is found in noise alone."""

from collections.abc import Sequence

import numpy as np
import pytest

from serve_app.bench.torture.trend import MIN_POINTS, Trend, trend

SECONDS = [5.0 * i for i in range(300)]
LEVEL = 400.0
RUNS = range(100)


def noise(seed: int, alike: float = 0.0) -> list[float]:
    """Of a standard deviation of 2; each value has so much of the one before it."""
    generator = np.random.default_rng(seed)
    values = [float(generator.normal(0, 2))]
    for step in generator.normal(0, 2 * (1 - alike**2) ** 0.5, len(SECONDS) - 1):
        values.append(alike * values[-1] + step)
    return values


def found(values: Sequence[float]) -> Trend:
    result = trend(SECONDS, values)
    assert result is not None
    return result


def leaking(per_hour: float, around: Sequence[float]) -> list[float]:
    return [LEVEL + per_hour * at_s / 3600 + rest for at_s, rest in zip(SECONDS, around, strict=True)]


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.8])
def test_of_noise_alone_most_slopes_are_within_their_noise(alike: float) -> None:
    results = [found(leaking(0.0, noise(seed, alike))) for seed in RUNS]
    assert sum(abs(one.per_hour) <= one.noise_per_hour for one in results) >= 88


@pytest.mark.parametrize(("alike", "per_hour"), [(0.0, 5.0), (0.8, 15.0), (0.0, -5.0)])
def test_a_leak_is_found_in_nearly_every_run(alike: float, per_hour: float) -> None:
    results = [found(leaking(per_hour, noise(seed, alike))) for seed in RUNS]
    assert sum(abs(one.per_hour) > one.noise_per_hour for one in results) >= 88
    assert sum(abs(one.per_hour - per_hour) <= one.noise_per_hour for one in results) >= 88


def test_a_line_without_noise_is_exact() -> None:
    result = found(leaking(10.0, [0.0] * len(SECONDS)))
    assert result.per_hour == pytest.approx(10)
    assert result.noise_per_hour == pytest.approx(0, abs=1e-6)
    assert result.percent(result.per_hour) == pytest.approx(10 / result.level * 100)
    assert found([LEVEL] * len(SECONDS)) == Trend(LEVEL, 0.0, 0.0)


def test_single_peaks_do_not_sway_it() -> None:
    values = leaking(0.0, noise(5))
    peaked = [value + (300 if i > 250 and i % 10 == 0 else 0) for i, value in enumerate(values)]
    assert abs(found(peaked).per_hour) < 20
    assert abs(np.polyfit(np.array(SECONDS) / 3600, peaked, 1)[0]) > 40


def test_too_few_values_give_nothing() -> None:
    values = leaking(5.0, noise(7))
    assert trend(SECONDS[: MIN_POINTS - 1], values[: MIN_POINTS - 1]) is None
    assert trend(SECONDS[:MIN_POINTS], values[:MIN_POINTS]) is not None
