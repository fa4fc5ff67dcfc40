"""Poisson arrivals: the times at which an open-loop test sends, whatever the server does."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Step:
    """A rate, and how long it lasts."""

    rate_per_s: float
    duration_s: float


def poisson(rate_per_s: float, warm_up_s: float, duration_s: float, seed: int) -> npt.NDArray[np.float64]:
    """Ascending float64 seconds: the warm-up's in [-warm_up_s, 0), then what is counted in [0, duration_s).

    A Poisson process given how many arrive: independent uniform times, sorted. With the number fixed to
    rate x time, two runs at a rate offer the same load; left to chance, 10 s at 75/s differ by 4 %.
    """
    generator = np.random.default_rng(seed)
    before = generator.uniform(-warm_up_s, 0.0, round(rate_per_s * warm_up_s))
    counted = generator.uniform(0.0, duration_s, max(1, round(rate_per_s * duration_s)))
    return np.sort(np.concatenate([before, counted]))


def piecewise(steps: Sequence[Step], seed: int) -> npt.NDArray[np.float64]:
    """Ascending float64 seconds from 0: a Poisson process whose rate is that of each step in turn.

    As in `poisson`, each step has as many arrivals as its rate says.
    """
    generator = np.random.default_rng(seed)
    ends_s = np.cumsum([step.duration_s for step in steps])
    parts = [
        generator.uniform(end_s - step.duration_s, end_s, round(step.rate_per_s * step.duration_s))
        for step, end_s in zip(steps, ends_s, strict=True)
    ]
    return np.sort(np.concatenate(parts))


def dealt(deadlines_ms: Sequence[float], times: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    """float64 like `times`: one of the deadlines for each arrival, in random order; NaN where there are none.

    They have equal shares, to one, of the warm-up and of what is counted.
    """
    if not deadlines_ms:
        return np.full(len(times), np.nan)
    # Of another stream than the times themselves, which would decide over the deadlines too.
    generator = np.random.default_rng([seed, len(deadlines_ms)])
    counts = ((times < 0).sum(), (times >= 0).sum())
    return np.concatenate([generator.permutation(np.resize(deadlines_ms, count)) for count in counts])
