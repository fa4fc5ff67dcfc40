"""A run second by second: what was offered, and what became of it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from serve_app.bench.resident import Resident
from serve_app.bench.samples import Samples
from serve_app.bench.status import OK, REFUSED


@dataclass(frozen=True)
class Second:
    """Of the requests that should have been sent in it."""

    at_s: int
    """When it began."""
    offered: int
    good: int
    """Answered within the objective."""
    refused: int
    p50_ms: float | None
    """Of the answers."""
    p99_ms: float | None
    memory_mib: float | None
    """Resident, of the replicas."""

    def as_dict(self) -> dict[str, Any]:
        return {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()}


def timeline(samples: Samples, duration_s: float, bound_ms: float, memory: Resident) -> list[Second]:
    """Of the whole seconds in [0, duration_s)."""
    return [_second(samples.between(at, at + 1), at, bound_ms, memory) for at in range(int(duration_s))]


def recovery_s(samples: Samples, end_s: float, duration_s: float, p50_bound_ms: float) -> float | None:
    """Seconds from `end_s`, the end of an overload, to the first one-second window whose p50 is within the bound.

    Windows are by the intended time of sending, up to `duration_s`; a request that was not answered with
    200 counts as the slowest. 0: the first window; None: none of them.
    """
    for start in range(int(duration_s - end_s)):
        window = samples.between(end_s + start, end_s + start + 1)
        latency_ms = np.where(window.status == OK, window.latency_ms, np.inf)
        # Of an even number of requests the slower of the two in the middle: inf has no mean.
        if len(latency_ms) and np.percentile(latency_ms, 50, method="higher") <= p50_bound_ms:
            return float(start)
    return None


def _second(samples: Samples, at_s: int, bound_ms: float, memory: Resident) -> Second:
    ok = samples.status == OK
    p50_ms, p99_ms = np.percentile(samples.latency_ms[ok], [50, 99]).tolist() if ok.any() else (None, None)
    mib = memory.mean_mib(at_s, at_s + 1)
    return Second(
        at_s=at_s,
        offered=len(ok),
        good=int((samples.latency_ms[ok] <= bound_ms).sum()),
        refused=int((samples.status == REFUSED).sum()),
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        memory_mib=None if np.isnan(mib) else mib,
    )
