import pytest

from serve_app.bench.arrivals import Step
from serve_app.bench.autoscale.traffic import SHAPES, SPIKE_S, STEADY_S, Traffic, shaped


def of(name: str) -> Traffic:
    return shaped(name, low_per_s=60, times=5, high_s=90, after_s=120)


@pytest.mark.parametrize("name", SHAPES)
def test_each_begins_low_reaches_the_top_and_ends_low(name: str) -> None:
    traffic = of(name)
    assert (traffic.steps[0], traffic.steps[-1]) == (Step(60, STEADY_S), Step(60, 120))
    assert max(step.rate_per_s for step in traffic.steps) == 300
    assert traffic.rise_s == STEADY_S
    assert traffic.name == name


@pytest.mark.parametrize(("name", "high_s"), [("step", 90), ("spike", SPIKE_S)])
def test_a_step_and_a_spike_rise_and_fall_at_once(name: str, high_s: float) -> None:
    traffic = of(name)
    assert traffic.steps[1:-1] == (Step(300, high_s),)
    assert (traffic.fall_s, traffic.duration_s) == (STEADY_S + high_s, STEADY_S + high_s + 120)


def test_a_ramp_takes_stairs_up_and_the_same_down() -> None:
    traffic = of("ramp")
    stairs = traffic.steps[1:-1]
    rates = [step.rate_per_s for step in stairs]
    assert rates == rates[::-1]
    assert rates[:9] == sorted(set(rates))
    assert {step.duration_s for step in stairs} == {5}
    assert rates[0] == pytest.approx(60 + 240 / 9)
    # Two stairs of five seconds at the top.
    assert (traffic.fall_s, traffic.duration_s) == (STEADY_S + 50, STEADY_S + 90 + 120)


def test_a_short_ramp_has_a_stair_at_least() -> None:
    traffic = shaped("ramp", 10, 2, high_s=2, after_s=1)
    assert traffic.steps == (Step(10, STEADY_S), Step(20, 1), Step(20, 1), Step(10, 1))
    assert traffic.fall_s == STEADY_S + 2
