"""What came back in a load test: one row per request -> the figures of a run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.bench.deadline import Deadline
from serve_app.bench.refusals import Refusals, median_known
from serve_app.bench.status import OK, REFUSED

STAGES = ("decode", "queue", "device")
"""The service's own account of an answer's time, in its order; what is left is `http`."""
PERCENTS = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p999_ms": 99.9, "max_ms": 100.0}
NO_NUMBERS = ("stages_ms", "errors", "requests", "refusals", "deadlines")
"""Of a Summary's fields those that are not the median of their repeats."""


@dataclass(frozen=True)
class Samples:
    """The requests of one run, a row each, in no particular order."""

    intended_s: npt.NDArray[np.float64]
    """float64 (n,): when it should have been sent, from the start of what is counted."""
    sent_s: npt.NDArray[np.float64]
    """float64 (n,): when it was."""
    done_s: npt.NDArray[np.float64]
    """float64 (n,): when its answer was in, or it failed."""
    status: npt.NDArray[np.str_]
    """str (n,): the HTTP status, or in words why there is none, or why a known image's answer is wrong."""
    batch_size: npt.NDArray[np.float64]
    """float64 (n,): images in the execution that it was part of; NaN where the answer does not say."""
    stages_ms: npt.NDArray[np.float64]
    """float64 (n, 3): the milliseconds of STAGES; NaN where the answer does not say."""
    deadline_ms: npt.NDArray[np.float64]
    """float64 (n,): after intended_s; NaN where there is none."""
    retry_after: npt.NDArray[np.bool_]
    """bool (n,): whether the answer has a Retry-After header."""

    @property
    def latency_ms(self) -> npt.NDArray[np.float64]:
        """float64 (n,): from when it should have been sent until its answer was in, or it failed."""
        return (self.done_s - self.intended_s) * 1e3

    @classmethod
    def concatenated(cls, parts: Sequence["Samples"]) -> "Samples":
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def counted(self) -> "Samples":
        """Without the warm-up, whose requests were to be sent before 0."""
        return self.only(self.intended_s >= 0)

    def between(self, begin_s: float, end_s: float) -> "Samples":
        """What should have been sent in [begin_s, end_s), in seconds from begin_s."""
        rows = self.only((self.intended_s >= begin_s) & (self.intended_s < end_s))
        times = {name: getattr(rows, name) - begin_s for name in ("intended_s", "sent_s", "done_s")}
        return replace(rows, **times)

    def only(self, keep: npt.NDArray[np.bool_]) -> "Samples":
        """The rows where `keep`, bool (n,), is true."""
        return Samples(*(getattr(self, field.name)[keep] for field in fields(self)))


@dataclass(frozen=True)
class Summary:
    """The figures of one run. Latencies, from the intended time of sending, are those of answers with 200 alone."""

    offered_per_s: float
    completed_per_s: float
    goodput_per_s: float | None
    """Answers within the bound; None without one."""
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float | None
    mean_batch: float | None
    """Images per execution: an execution of n images is told by n answers, so it is a harmonic mean."""
    stages_ms: dict[str, float]
    """Mean milliseconds of each stage, and of `http`: everything outside them."""
    errors: dict[str, int]
    """Failures by HTTP status, or by what happened instead of an answer."""
    requests: int
    lag_p50_ms: float
    lag_p99_ms: float
    """How late the generator sent."""
    generator_cores: float
    """CPU time of the generator per second of the run."""
    stolen_cores: float
    """CPU time per second that this machine, a virtual one, wanted and its host gave to others (Linux: steal)."""
    refusals: Refusals
    deadlines: dict[str, Deadline]
    """By milliseconds; empty where requests had none."""

    @property
    def goodput_share(self) -> float:
        """Of the requests offered, the share that was answered within the bound."""
        if not self.offered_per_s:
            return 0.0
        # Rounded, for 99 of 100 over some duration, and divided by it again, may be a hair below 0.99.
        return round((self.goodput_per_s or 0.0) / self.offered_per_s, 9)

    @property
    def lagged(self) -> bool:
        """Whether the generator itself is a visible part of the tail: a tenth of it, and over 2 ms."""
        return self.lag_p99_ms > max(2.0, 0.1 * (self.p99_ms or 0.0))

    def as_dict(self) -> dict[str, Any]:
        deadlines = {name: deadline.as_dict() for name, deadline in self.deadlines.items()}
        return {key: _rounded(value) for key, value in (asdict(self) | {"deadlines": deadlines}).items()}


def summarise(
    samples: Samples, duration_s: float, bound_ms: float | None, generator_cores: float, stolen_cores: float = 0.0
) -> Summary:
    """The figures of what was to be sent in [0, duration_s); completed is what was answered in that time."""
    in_time = (samples.status == OK) & (samples.done_s >= 0) & (samples.done_s < duration_s)
    samples = samples.counted()
    ok = samples.status == OK
    latencies_ms = samples.latency_ms[ok]
    refused = samples.status == REFUSED
    lags_ms = (samples.sent_s - samples.intended_s) * 1e3
    percentiles = {name: float(np.percentile(latencies_ms, q)) for name, q in PERCENTS.items() if ok.any()}
    sizes = samples.batch_size[ok & ~np.isnan(samples.batch_size)]
    return Summary(
        offered_per_s=len(ok) / duration_s,
        completed_per_s=float(in_time.sum()) / duration_s,
        goodput_per_s=None if bound_ms is None else float((latencies_ms <= bound_ms).sum()) / duration_s,
        **{name: percentiles.get(name) for name in PERCENTS},
        mean_batch=len(sizes) / float((1 / sizes).sum()) if len(sizes) else None,
        stages_ms=_stages(samples, ok),
        errors=dict(Counter(samples.status[~ok].tolist()).most_common()),
        requests=len(ok),
        lag_p50_ms=float(np.percentile(lags_ms, 50)) if len(ok) else 0.0,
        lag_p99_ms=float(np.percentile(lags_ms, 99)) if len(ok) else 0.0,
        generator_cores=generator_cores,
        stolen_cores=stolen_cores,
        refusals=Refusals.of(samples.latency_ms[refused], samples.retry_after[refused]),
        deadlines=_deadlines(samples),
    )


def _deadlines(samples: Samples) -> dict[str, Deadline]:
    found = {}
    for deadline_ms in np.unique(samples.deadline_ms[~np.isnan(samples.deadline_ms)]).tolist():
        of = samples.deadline_ms == deadline_ms
        found[f"{deadline_ms:g}"] = Deadline.of(deadline_ms, samples.status[of], samples.latency_ms[of])
    return found


def _stages(samples: Samples, ok: npt.NDArray[np.bool_]) -> dict[str, float]:
    told = ok & ~np.isnan(samples.stages_ms).any(axis=1)
    if not told.any():
        return {}
    means = samples.stages_ms[told].mean(axis=0)
    whole = float(samples.latency_ms[told].mean())
    return {**dict(zip(STAGES, means.tolist(), strict=True)), "http": whole - float(means.sum())}


def median_of(summaries: Sequence[Summary]) -> Summary:
    """The median of every figure over the repeats of a run; failures, refusals and requests are added up."""
    errors: Counter[str] = Counter()
    for summary in summaries:
        errors.update(summary.errors)
    names = [field.name for field in fields(Summary) if field.name not in NO_NUMBERS]
    numbers: dict[str, Any] = {name: median_known([getattr(one, name) for one in summaries]) for name in names}
    stages = [summary.stages_ms for summary in summaries if summary.stages_ms]
    return Summary(
        **numbers,
        stages_ms={stage: median(s[stage] for s in stages) for stage in (stages[0] if stages else ())},
        errors=dict(errors),
        requests=sum(summary.requests for summary in summaries),
        refusals=Refusals.pooled([summary.refusals for summary in summaries]),
        deadlines={
            name: Deadline.pooled([s.deadlines[name] for s in summaries if name in s.deadlines])
            for name in summaries[0].deadlines
        },
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, 3) if isinstance(value, float) else value
