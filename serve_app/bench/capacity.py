"""A service's peak rate: the most requests/s that it answers within an objective."""

from collections.abc import Callable

COARSE, FINE = 2.0, 1.1
"""Each step offers this much more than the one before; the fine ones begin at the best goodput of the coarse ones."""
COARSE_GROWTH, FINE_GROWTH = 1.05, 1.03
"""A step whose goodput is not higher than the best by this factor ends the climb."""
MAX_STEPS = 20


def peak_per_s(goodput: Callable[[float], float], start_per_s: float) -> float:
    """The highest goodput, answers/s within the objective, of open-loop steps from `start_per_s` upward.

    `goodput` measures one step at a rate offered, in requests/s. The rate is raised until goodput no
    longer grows: doubled first, then by tenths from the best, and once in between the last two. Goodput
    and not the rate offered, for the step over the peak is the one that fills every batch; a rising open
    loop and not a closed one, for under admission control a refusal is an answer at once, and a closed
    loop would spend the machine on asking again. The highest of several noisy figures is a little high:
    what is measured against it has the harder test.
    """
    tried: dict[float, float] = {}

    def climb(rate: float, factor: float, growth: float) -> float:
        """The rate that ended it."""
        while len(tried) < MAX_STEPS:
            best = max(tried.values(), default=0.0)
            tried[rate] = goodput(rate)
            if tried[rate] <= best * growth:
                break
            rate *= factor
        return rate

    climb(start_per_s, COARSE, COARSE_GROWTH)
    best = max(tried.values())
    if not best:
        return 0.0
    ended = climb(best * FINE, FINE, FINE_GROWTH)
    between = ended / FINE**0.5
    tried[between] = goodput(between)
    return max(tried.values())
