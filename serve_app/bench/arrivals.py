"""Poisson arrivals: the times at which an open-loop test sends, whatever the server does."""

import numpy as np
import numpy.typing as npt


def poisson(rate_per_s: float, warm_up_s: float, duration_s: float, seed: int) -> npt.NDArray[np.float64]:
    """Ascending float64 seconds: the warm-up's in [-warm_up_s, 0), then what is counted in [0, duration_s).

    A Poisson process given how many arrive: independent uniform times, sorted. With the number fixed to
    rate x time, two runs at a rate offer the same load; left to chance, 10 s at 75/s differ by 4 %.
    """
    generator = np.random.default_rng(seed)
    before = generator.uniform(-warm_up_s, 0.0, round(rate_per_s * warm_up_s))
    counted = generator.uniform(0.0, duration_s, max(1, round(rate_per_s * duration_s)))
    return np.sort(np.concatenate([before, counted]))
