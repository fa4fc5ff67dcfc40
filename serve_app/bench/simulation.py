"""One replica under a rate, simulated: what its measured times would make of Poisson arrivals.

The rule is the service's own (slot-first: a free device takes what has been decoded, up to
`max_batch_size`); decode and device take times that a running service told.
"""

import heapq
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from serve_app.bench.arrivals import poisson
from serve_app.bench.times import Times
from serve_app.config import default_buckets

REQUESTS = 10_000
"""Simulated at each rate: a hundred of them are the p99's tail."""
# The bound is kept with a fifth to spare: a simulated p99 has not met a neighbour, a garbage
# collection or a burst of large photos.
MARGIN = 0.8
MAX_UTILISATION = 0.8
TOLERANCE = 0.01
LOWEST_RATE_PER_S = 1.0
Limit = Literal["bound", "device", "decode", "process"]
"""What ends a rate: the bound on the p99, or MAX_UTILISATION of the device, of the threads that decode, or of what one
process was seen to answer."""


@dataclass(frozen=True)
class Outcome:
    """One replica under a rate."""

    rate_per_s: float
    p50_ms: float
    p99_ms: float
    mean_batch: float
    mean_ongoing: float
    """Requests inside at a time."""
    limit: Limit = "bound"
    """Of the highest rate: why it is not higher."""


@dataclass(frozen=True)
class Replica:
    """What one replica is made of: its times, as measured, and how many share its device."""

    times: Times
    num_threads: int
    sharing: int = 1
    """Replicas on one GPU: each may find the device busy with the others' batches."""

    def batch_ms(self, batch_size: int) -> float:
        return self.times.batch_ms(batch_size) * self.sharing

    def capacity_per_s(self, max_batch_size: int) -> float:
        """Images/s with every batch full."""
        return min(self._limits(max_batch_size).values())

    def limit(self, max_batch_size: int) -> Limit:
        """What its capacity comes from."""
        limits = self._limits(max_batch_size)
        return min(limits, key=lambda limit: limits[limit])

    def _limits(self, max_batch_size: int) -> dict[Limit, float]:
        return {
            "device": max_batch_size / self.batch_ms(max_batch_size) * 1e3,
            "decode": self.num_threads / float(np.median(self.times.decode_ms)) * 1e3,
            "process": self.times.most_per_s,
        }


def simulate(replica: Replica, max_batch_size: int, rate_per_s: float, seed: int = 0) -> Outcome:
    """`REQUESTS` Poisson arrivals through decode threads and a slot-first queue."""
    generator = np.random.default_rng(seed)
    arrived = poisson(rate_per_s, 0.0, REQUESTS / rate_per_s, seed) * 1e3
    ready = _decoded(arrived, generator.choice(replica.times.decode_ms, len(arrived)), replica.num_threads)
    order = np.argsort(ready, kind="stable")
    times = [replica.batch_ms(bucket) for bucket in _padded(max_batch_size)]
    jitter = generator.choice(replica.times.jitter(), len(arrived)).tolist()
    # Lists and bisect: numpy's scalars took twice as long, and there are hundreds of rates to try.
    waiting: list[float] = ready[order].tolist()
    ends: list[float] = []
    sizes: list[int] = []
    free_at, first = 0.0, 0
    while first < len(waiting):
        started = max(free_at, waiting[first])
        size = min(bisect_right(waiting, started, first) - first, max_batch_size)
        free_at = started + times[size - 1] * jitter[len(sizes)]
        ends.append(free_at)
        sizes.append(size)
        first += size
    done = np.empty(len(arrived))
    done[order] = np.repeat(ends, sizes)
    latencies = done - arrived + replica.times.http_ms
    p50, p99 = np.percentile(latencies, [50, 99])
    mean_ongoing = rate_per_s * float(latencies.mean()) / 1e3  # Little's law
    return Outcome(rate_per_s, float(p50), float(p99), len(arrived) / len(sizes), mean_ongoing)


def highest_rate(replica: Replica, max_batch_size: int, p99_ms: float) -> Outcome | None:
    """The highest rate that one replica can be trusted with; None if not even one request a second."""

    def trusted(rate_per_s: float) -> Outcome | None:
        outcome = simulate(replica, max_batch_size, rate_per_s)
        return outcome if outcome.p99_ms <= p99_ms * MARGIN else None

    above = max(replica.capacity_per_s(max_batch_size) * MAX_UTILISATION, LOWEST_RATE_PER_S)
    best = trusted(above)
    if best:
        return replace(best, limit=replica.limit(max_batch_size))
    best = trusted(LOWEST_RATE_PER_S)
    while best and above - best.rate_per_s > TOLERANCE * above:
        middle = (best.rate_per_s + above) / 2
        if outcome := trusted(middle):
            best = outcome
        else:
            above = middle
    return best


def _padded(max_batch_size: int) -> list[int]:
    """For 1 to max_batch_size images, the size that runs."""
    buckets = default_buckets(max_batch_size)
    return [next(size for size in buckets if size >= n) for n in range(1, max_batch_size + 1)]


def _decoded(
    arrived: npt.NDArray[np.float64], decode_ms: npt.NDArray[np.float64], num_threads: int
) -> npt.NDArray[np.float64]:
    """When each image is decoded, by `num_threads` threads that take them in order."""
    free = [0.0] * num_threads
    ready = np.empty(len(arrived))
    for i, (at, ms) in enumerate(zip(arrived.tolist(), decode_ms.tolist(), strict=True)):
        ready[i] = max(at, heapq.heappop(free)) + ms
        heapq.heappush(free, float(ready[i]))
    return ready
