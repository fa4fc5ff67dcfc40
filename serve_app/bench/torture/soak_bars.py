"""What a service is to hold in a soak: each figure against its bar."""

from collections import Counter
from statistics import median

from serve_app.bench.bars import Check
from serve_app.bench.known import SCORE_TOLERANCE, Reference
from serve_app.bench.torture.census import REPLICAS, Usage
from serve_app.bench.torture.soak import ALL, Soaked
from serve_app.bench.torture.trend import Trend

P99_RATIO = 1.2
IMMATERIAL_PERCENT = 1.0
"""Of the resident memory per hour: four days until it is twice as much, and a service is updated more often."""
TOO_NOISY_PERCENT = 10.0
"""Noise of the slope that would hide a leak worth finding: nothing is known then."""
GROWTH = 1.1
"""Of descriptors and threads: connections come and go."""
MIN_ANSWERS = 100
"""Of which a p99 can be told."""


def checks(soaked: Soaked, reference: Reference) -> list[Check]:
    good = soaked.good
    failed = sum(good.errors.values()) - soaked.num_wrong
    faults = soaked.hostile_faults()
    known = f"{reference.num_known} of {len(reference.answers)} images, class and score to {SCORE_TOLERANCE:g}"
    return [
        Check("good requests failed or refused", failed, "<=", 0, note=_told(Counter(good.errors))),
        Check("known images answered otherwise", soaked.num_wrong, "<=", 0, note=known),
        Check("hostile ones answered as none may", sum(faults.values()), "<=", 0, note=_told(faults)),
        _p99_check(soaked),
        _p99_thirds_check(soaked),
        _memory_check("replicas' memory slope", soaked.trends.get(REPLICAS)),
        _memory_check("whole service's memory slope", soaked.trends.get(ALL)),
        _growth_check("descriptors", soaked),
        _growth_check("threads", soaked),
        Check("replicas that ended", soaked.census.replicas_ended, "<=", 0),
    ]


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{n:,} x {what}" for what, n in counts.most_common())


def _p99_check(soaked: Soaked) -> Check:
    name = "p99, last minute / first"
    ends = [soaked.counted[at].good for at in (0, -1)] if soaked.counted else []
    first, last = (one.p99_ms if one.requests >= MIN_ANSWERS else None for one in ends) if ends else (None, None)
    if not first or last is None:
        return Check(name, None, "<=", P99_RATIO)
    return Check(name, last / first, "<=", P99_RATIO, note=f"{last:.1f} over {first:.1f} ms")


def _p99_thirds_check(soaked: Soaked) -> Check:
    """Of single minutes one may have had the machine's worst; of a third of them the median has not."""
    name = "p99, last third / first third"
    p99_ms = [one.good.p99_ms for one in soaked.counted if one.good.p99_ms and one.good.requests >= MIN_ANSWERS]
    size = len(p99_ms) // 3
    if not size:
        return Check(name, None, "<=", P99_RATIO)
    first, last = median(p99_ms[:size]), median(p99_ms[-size:])
    return Check(name, last / first, "<=", P99_RATIO, note=f"{last:.1f} over {first:.1f} ms, medians of {size} minutes")


def _memory_check(name: str, trend: Trend | None) -> Check:
    """Held by a slope within its noise, and by one that does not matter."""
    if trend is None:
        return Check(name, None, "<=", IMMATERIAL_PERCENT, "%/h", "too short")
    noise = trend.percent(trend.noise_per_hour)
    note = f"{trend.per_hour:+.1f} ± {trend.noise_per_hour:.1f} MiB/h of {trend.level:,.0f} MiB"
    slope = trend.percent(trend.per_hour)
    if slope <= noise and noise > TOO_NOISY_PERCENT:
        return Check(name, None, "<=", TOO_NOISY_PERCENT, "%/h", f"{note}: too noisy, take more --minutes")
    return Check(name, slope, "<=", max(IMMATERIAL_PERCENT, noise), "%/h", note)


def _growth_check(what: str, soaked: Soaked) -> Check:
    """Of the whole service, from the first minute after the warm-up to the last."""
    name = f"{what}, last minute / first"
    ends = [[one for one in soaked.counted[at].usage.values() if one] for at in (0, -1)] if soaked.counted else []
    first, last = (_sum(what, usage) for usage in ends) if ends else (0.0, 0.0)
    if not first or not last:
        return Check(name, None, "<=", GROWTH)
    return Check(name, last / first, "<=", GROWTH, note=f"{last:,.0f} over {first:,.0f}")


def _sum(what: str, usage: list[Usage]) -> float:
    return sum(float(getattr(one, what)) for one in usage)
