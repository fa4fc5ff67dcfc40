"""The highest rate that holds a bound, by bisection."""

import math
from collections.abc import Callable

MIN_RATE_PER_S = 0.5
MAX_RATE_PER_S = 100_000.0
TOLERANCE = 0.05
SHARE_WITHIN_BOUND = 0.99
"""A rate holds a p99 bound if this share of all requests offered is answered within it: a failure is a miss."""


def highest_rate(holds: Callable[[float], bool], start_per_s: float, tolerance: float = TOLERANCE) -> float | None:
    """A rate that holds, such that one higher by `tolerance` (relative) does not.

    Doubles or halves from `start_per_s` until the answer changes, then bisects. None if not even
    MIN_RATE_PER_S holds; MAX_RATE_PER_S if that does. `tolerance` is 0.01 at least.
    """
    good, bad = _bracket(holds, start_per_s)
    if good is None or bad is None:
        return good
    while bad > good * (1 + tolerance):
        exact = math.sqrt(good * bad)
        readable = float(f"{exact:.3g}")
        middle = readable if good < readable < bad else exact
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good


def _bracket(holds: Callable[[float], bool], rate: float) -> tuple[float | None, float | None]:
    """A rate that holds (None: none does) and the next higher one tried, that does not (None: all do)."""
    if holds(rate):
        while rate < MAX_RATE_PER_S:
            good, rate = rate, min(2 * rate, MAX_RATE_PER_S)
            if not holds(rate):
                return good, rate
        return rate, None
    while rate > MIN_RATE_PER_S:
        bad, rate = rate, max(rate / 2, MIN_RATE_PER_S)
        if holds(rate):
            return rate, bad
    return None, rate
