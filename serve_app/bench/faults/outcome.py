"""What an event cost those who sent requests, from the samples of the run that it fell into."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from serve_app.bench.faults.event import Bar
from serve_app.bench.known import WRONG_CLASS, WRONG_SCORE
from serve_app.bench.samples import Samples
from serve_app.bench.status import OK


@dataclass(frozen=True)
class Moments:
    """When things happened, in seconds from the start of the run."""

    began_s: float
    ended_s: float
    """The event itself was over: the signals were sent, the config was taken."""
    full_s: float | None
    """Full capacity was back; None: it was waited for in vain."""
    mended_s: float | None = None
    """What does not pass by itself was put right; None: there is nothing of the kind."""


@dataclass(frozen=True)
class Outcome:
    requests: int
    failed: dict[str, int]
    """By status, or by what happened instead of an answer."""
    in_flight: int | None
    """On the victim, a moment before it was killed."""
    arrived: int
    """Sent, to whomever, from that moment until the event was over: the dead listen while they die."""
    strays: int
    """Failed though they were sent after the kill, or were answered before it."""
    answered_per_s: float
    """Before the event."""
    least_per_s: int
    """Answers in the worst second from the event on."""
    slowest_ms: float | None
    """Of the answers, from the intended time of sending."""
    fewest_replicas: int
    """That Ray said were serving."""
    seconds_to_full: float | None
    """From the event, or from when it was put right, until all was well."""
    seconds_unmended: float | None = None
    """For which the disk was full, the file was gone, ...: what does not pass by itself."""
    wrong: int = 0
    """Known images that were answered otherwise than in quiet, which no event excuses."""
    wrong_weights: tuple[str, ...] = ()
    """sha256 of weights that answered, and might not."""

    @property
    def num_failed(self) -> int:
        return sum(self.failed.values())

    def holds(self, bar: Bar) -> bool:
        if self.seconds_to_full is None or self.wrong or self.wrong_weights:
            return False
        if bar is Bar.NOTHING:
            return not self.failed
        if bar is Bar.VICTIM:
            return self.strays == 0 and self.num_failed <= (self.in_flight or 0) + self.arrived
        return True

    def as_dict(self) -> dict[str, Any]:
        return {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()}


def outcome(
    samples: Samples,
    duration_s: float,
    moments: Moments,
    in_flight: int | None,
    fewest_replicas: int,
    wrong_weights: Iterable[str] = (),
) -> Outcome:
    """Of a run that lasted `duration_s`; `in_flight` as in Done."""
    ok = samples.status == OK
    sent_s, done_s = samples.sent_s, samples.done_s
    during = (sent_s <= moments.ended_s) & (done_s >= moments.began_s)
    arrived = int(((sent_s >= moments.began_s) & (sent_s <= moments.ended_s)).sum())
    per_second = np.histogram(done_s[ok], bins=np.arange(0.0, int(duration_s) + 1.0))[0]
    first = int(moments.began_s)
    over_s = moments.began_s if moments.mended_s is None else moments.mended_s
    return Outcome(
        requests=len(ok),
        failed=dict(Counter(samples.status[~ok].tolist()).most_common()),
        in_flight=in_flight,
        arrived=arrived,
        strays=int((~ok & ~during).sum()),
        answered_per_s=float(per_second[:first].mean()),
        least_per_s=int(per_second[first:].min()),
        slowest_ms=float(samples.latency_ms[ok].max()) if ok.any() else None,
        fewest_replicas=fewest_replicas,
        seconds_to_full=None if moments.full_s is None else moments.full_s - over_s,
        seconds_unmended=None if moments.mended_s is None else moments.mended_s - moments.began_s,
        wrong=int(np.isin(samples.status, (WRONG_CLASS, WRONG_SCORE)).sum()),
        wrong_weights=tuple(sorted(wrong_weights)),
    )


def told_failures(failed: Mapping[str, int], wrong_weights: Collection[str]) -> str:
    """Of an Outcome, for people; a wrong answer has its own status among the failed."""
    told = [f"{n} x {status}" for status, n in failed.items()]
    return ", ".join([*told, *(["wrong weights"] if wrong_weights else [])]) or "0"
