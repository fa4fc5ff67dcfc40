"""Refusals of an overloaded service (503): how soon they come, and whether they say when to try again."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Refusals:
    """Of one run. Latencies are from the intended time of sending; None where nothing was refused."""

    count: int
    with_retry_after: int
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None

    @classmethod
    def of(cls, latency_ms: npt.NDArray[np.float64], retry_after: npt.NDArray[np.bool_]) -> "Refusals":
        """Of a run's refused requests, (n,) and (n,)."""
        count = len(latency_ms)
        percentiles = np.percentile(latency_ms, [50, 99, 100]).tolist() if count else [None] * 3
        return cls(count, int(retry_after.sum()), *percentiles)

    @classmethod
    def pooled(cls, repeats: Sequence["Refusals"]) -> "Refusals":
        """Over the repeats of a run: counts added up, the median of each latency."""
        return cls(
            count=sum(one.count for one in repeats),
            with_retry_after=sum(one.with_retry_after for one in repeats),
            p50_ms=median_known([one.p50_ms for one in repeats]),
            p99_ms=median_known([one.p99_ms for one in repeats]),
            max_ms=median_known([one.max_ms for one in repeats]),
        )

    @property
    def retry_after_share(self) -> float | None:
        return self.with_retry_after / self.count if self.count else None


def median_known(values: Sequence[float | None]) -> float | None:
    """Of those that are no None; None if all are."""
    known = [value for value in values if value is not None]
    return median(known) if known else None
