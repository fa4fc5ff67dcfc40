"""Traffic that rises and falls: the shapes that show whether replicas follow it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from serve_app.bench.arrivals import Step

STEADY_S = 20.0
"""At the low rate, before it rises."""
SPIKE_S = 10.0
STAIR_S = 5.0


@dataclass(frozen=True)
class Traffic:
    name: str
    steps: tuple[Step, ...]
    rise_s: float
    """When the rate rises for the first time, from the start."""
    fall_s: float
    """When it falls for the first time."""

    @property
    def duration_s(self) -> float:
        return sum(step.duration_s for step in self.steps)


def shaped(name: str, low_per_s: float, times: float, high_s: float, after_s: float) -> Traffic:
    """One of SHAPES: `low_per_s` requests/s, up to `times` that, and for `after_s` back at it.

    `high_s` is how long a step stays up, or a ramp takes up and down again; a spike has SPIKE_S.
    """
    up, num_up = SHAPES[name](low_per_s, times * low_per_s, high_s)
    rise_s = STEADY_S
    fall_s = rise_s + sum(step.duration_s for step in up[:num_up])
    return Traffic(name, (Step(low_per_s, STEADY_S), *up, Step(low_per_s, after_s)), rise_s, fall_s)


_Up = tuple[list[Step], int]
"""What lies between the low rates, and how many of its steps come before the rate falls."""


def _step(_: float, high_per_s: float, high_s: float) -> _Up:
    return [Step(high_per_s, high_s)], 1


def _spike(_: float, high_per_s: float, __: float) -> _Up:
    return [Step(high_per_s, SPIKE_S)], 1


def _ramp(low_per_s: float, high_per_s: float, high_s: float) -> _Up:
    """Stairs of STAIR_S, or a little more or less, to the top and back."""
    count = max(1, round(high_s / STAIR_S / 2))
    rates = [low_per_s + (high_per_s - low_per_s) * stair / count for stair in range(1, count + 1)]
    stairs = [Step(rate, high_s / (2 * count)) for rate in (*rates, *reversed(rates))]
    # The highest stair is the last one up and the first one down.
    return stairs, count + 1


SHAPES: Mapping[str, Callable[[float, float, float], _Up]] = {"step": _step, "ramp": _ramp, "spike": _spike}
