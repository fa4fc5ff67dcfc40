"""Learned times: what the device took lately -> how long the next batch of n will take."""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence

WINDOW = 16
QUANTILE = 0.9
"""High, for a deadline is a promise; of 16 observations the two largest count for nothing: outliers."""
STALE_S = 5.0
"""30 s before: a replica that was starved for a while, by others that started beside it, took its large batches for too
slow for the objective, did not run them, and refused half of the traffic until half a minute later."""


class Estimate:
    """A quantile of the last observations. One that was far too high is outvoted by the next."""

    def __init__(self, quantile: float = QUANTILE, window: int = WINDOW) -> None:
        self._quantile = quantile
        self._window: deque[float] = deque(maxlen=window)
        self.value = 0.0
        self.least = math.inf

    def observe(self, value: float) -> None:
        self._window.append(value)
        ordered = sorted(self._window)
        self.value = ordered[int(self._quantile * (len(ordered) - 1))]
        self.least = ordered[0]


class BatchTimes:
    """t(n) in seconds, per bucket: the batch sizes that the device runs, others are padded to the next.

    A bucket that has not run for STALE_S is judged by its time at warm-up and by how much slower than at
    theirs the others are now: else one slow minute could keep a size from ever being tried again.
    """

    def __init__(self) -> None:
        self.buckets: Sequence[int] = (1,)
        self._seeds: dict[int, float] = {}
        self._learned: dict[int, Estimate] = {}
        self._observed_at: dict[int, float] = {}
        self._slowdown = Estimate()

    def configure(self, buckets: Sequence[int], seeds: Mapping[int, float]) -> None:
        """The buckets in use from now on, ascending; and what those that are new took at warm-up."""
        self.buckets = buckets
        self._seeds.update(seeds)

    def bucket(self, n: int) -> int:
        """The batch that runs for n images; the largest for more."""
        return self.buckets[min(bisect_left(self.buckets, n), len(self.buckets) - 1)]

    def observe(self, n: int, seconds: float, now: float) -> None:
        bucket = self.bucket(n)
        if self._is_stale(bucket, now):
            self._learned[bucket] = Estimate()
        self._learned[bucket].observe(seconds)
        self._observed_at[bucket] = now
        if seed := self._seeds.get(bucket):
            self._slowdown.observe(seconds / seed)

    def predict(self, n: int, now: float) -> float:
        """t(n); 0 as long as nothing is known."""
        bucket = self.bucket(n)
        seed = self._seeds.get(bucket)
        if seed and self._is_stale(bucket, now):
            return seed * (self._slowdown.value or 1.0)
        learned = self._learned.get(bucket)
        return learned.value if learned else 0.0

    def _is_stale(self, bucket: int, now: float) -> bool:
        return now - self._observed_at.get(bucket, -math.inf) > STALE_S

    def best(self, n: int) -> float:
        """The least that t(n) may be, by what has been seen; 0 as long as no such batch has run but to warm up."""
        bucket = self.bucket(n)
        learned = self._learned.get(bucket)
        return min(learned.least, self._seeds.get(bucket, math.inf)) if learned else 0.0

    def largest_within(self, n: int, seconds: float, now: float) -> int:
        """Of n images, as many as the device can run in that time; at least one."""
        if self.predict(n, now) <= seconds:
            return n
        smaller = self.buckets[: bisect_left(self.buckets, n)]
        return next((size for size in reversed(smaller) if self.predict(size, now) <= seconds), 1)
