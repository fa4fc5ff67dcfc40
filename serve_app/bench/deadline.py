"""One deadline of a load test: of the requests that had it, how many were answered in time."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.bench.refusals import median_known
from serve_app.bench.status import EXPIRED, OK, REFUSED


@dataclass(frozen=True)
class Deadline:
    """The requests of one run that had it."""

    deadline_ms: float
    requests: int
    missed: int
    """Whatever was no answer within it."""
    refused: int
    expired: int
    p50_ms: float | None
    """Of the answers, late ones too, from the intended time of sending."""
    p99_ms: float | None

    @classmethod
    def of(cls, deadline_ms: float, status: npt.NDArray[np.str_], latency_ms: npt.NDArray[np.float64]) -> "Deadline":
        """From its requests, (n,) and (n,)."""
        ok = status == OK
        percentiles = np.percentile(latency_ms[ok], [50, 99]).tolist() if ok.any() else [None] * 2
        return cls(
            deadline_ms,
            len(status),
            int((~ok | (latency_ms > deadline_ms)).sum()),
            int((status == REFUSED).sum()),
            int((status == EXPIRED).sum()),
            *percentiles,
        )

    @classmethod
    def pooled(cls, repeats: Sequence["Deadline"]) -> "Deadline":
        """Over the repeats of a run: counts added up, the median of each latency."""
        return cls(
            repeats[0].deadline_ms,
            sum(one.requests for one in repeats),
            sum(one.missed for one in repeats),
            sum(one.refused for one in repeats),
            sum(one.expired for one in repeats),
            median_known([one.p50_ms for one in repeats]),
            median_known([one.p99_ms for one in repeats]),
        )

    def percent(self, count: int) -> float:
        """Of its requests."""
        return 100 * count / self.requests

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "missed_percent": self.percent(self.missed)}
