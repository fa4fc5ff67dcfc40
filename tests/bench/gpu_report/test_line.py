import pytest

from serve_app.bench.gpu_report.line import Bar, Line, of_repeats


@pytest.mark.parametrize(
    ("value", "bar", "verdict"),
    [
        (8000.0, Bar(">=", 8000), "met"),
        (7999.9, Bar(">=", 8000), "NOT met"),
        (4.5, Bar("<=", 4.5), "met"),
        (4.6, Bar("<=", 4.5), "NOT met"),
        (0.0, Bar(">=", 8000), "NOT met"),
        (1.0, None, "no bar"),
        (None, Bar(">=", 8000), "not measured: why"),
        (None, None, "not measured: why"),
    ],
)
def test_the_verdict_is_that_of_the_bar(value: float | None, bar: Bar | None, verdict: str) -> None:
    assert Line(1, "what", value, bar=bar, reason="why").verdict == verdict


@pytest.mark.parametrize(
    ("values", "middle", "spread"), [([3.0, 1.0, 2.0], 2, (1, 3)), ([1.0, 2.0], 1.5, (1, 2)), ([7.0], 7, None)]
)
def test_of_repeats_the_median_is_the_figure(
    values: list[float], middle: float, spread: tuple[float, float] | None
) -> None:
    line = of_repeats(Line(1, "what"), values)
    assert (line.value, line.spread) == (middle, spread)
