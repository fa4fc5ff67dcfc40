"""What a service is to hold under overload: each figure of the test against its bar."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from serve_app.bench import overload
from serve_app.bench.overload import Flood
from serve_app.bench.resident import Growth
from serve_app.bench.samples import Summary
from serve_app.bench.status import EXPIRED, REFUSED

QUIET_P50 = 1.15
"""Over the lone p50."""
GOODPUT_SHARE = 0.90
"""Of the peak."""
REFUSAL_P99_MS = 50.0
MEMORY_GROWTH = 0.03
RECOVERY_S = 2.0

Relation = Literal["<=", ">=", "<"]


@dataclass(frozen=True)
class Check:
    """A figure against its bar."""

    name: str
    measured: float | None
    """None: it could not be measured."""
    relation: Relation
    bar: float
    unit: str = ""
    note: str = ""
    """What the figure is made of."""

    @property
    def ok(self) -> bool | None:
        """None: not known."""
        if self.measured is None:
            return None
        return {
            "<=": self.measured <= self.bar,
            ">=": self.measured >= self.bar,
            "<": self.measured < self.bar,
        }[self.relation]

    def as_dict(self) -> dict[str, Any]:
        measured = None if self.measured is None else round(self.measured, 4)
        return {
            "check": self.name,
            "measured": measured,
            "relation": self.relation,
            "bar": round(self.bar, 4),
            "unit": self.unit,
            "ok": self.ok,
            "note": self.note,
        }


def quiet_check(lone: Summary, quiet: Summary) -> Check:
    name = "quiet p50 / lone p50"
    if not lone.p50_ms or quiet.p50_ms is None:
        return Check(name, None, "<=", QUIET_P50)
    note = f"{quiet.p50_ms:.1f} over {lone.p50_ms:.1f} ms"
    return Check(name, quiet.p50_ms / lone.p50_ms, "<=", QUIET_P50, note=note)


def flood_checks(flood: Flood, peak_per_s: float, objective_ms: float) -> list[Check]:
    summary, refusals = flood.summary, flood.summary.refusals
    goodput = summary.goodput_per_s or 0.0
    share = refusals.retry_after_share
    per_s = f"{goodput:.1f} over {peak_per_s:.1f}/s"
    return [
        Check("goodput / peak", goodput / peak_per_s, ">=", GOODPUT_SHARE, note=per_s),
        Check("p99 of answers", summary.p99_ms, "<=", objective_ms, "ms"),
        Check("p99 of refusals", refusals.p99_ms, "<=", REFUSAL_P99_MS, "ms", f"{refusals.count:,} refused"),
        Check("refused with Retry-After", None if share is None else 100 * share, ">=", 100.0, "%"),
        lost_check(summary),
        _memory_check(flood.memory),
        _recovery_check(flood.recovery_s),
    ]


def lost_check(summary: Summary, note: str = "") -> Check:
    """Of requests that got neither an answer nor a 503 or 504 of the service: its connection was lost, say."""
    strays = {status: n for status, n in summary.errors.items() if status not in (REFUSED, EXPIRED)}
    told = [*(f"{n} x {status}" for status, n in strays.items()), *([note] if note else [])]
    return Check("failed or lost", sum(strays.values()), "<=", 0, note=", ".join(told))


def deadline_check(untold: Summary, told: Summary) -> Check:
    """Of mixed deadlines, whether fewer are missed by a service that knows them."""
    without, with_them = missed_percent(untold), missed_percent(told)
    # Where none was missed there is nothing to improve.
    return Check("missed deadlines, told", with_them, "<" if without else "<=", without, "%", "bar: untold")


def missed_percent(summary: Summary) -> float:
    """Of all requests that had a deadline."""
    deadlines = summary.deadlines.values()
    return 100 * sum(one.missed for one in deadlines) / max(1, sum(one.requests for one in deadlines))


def exit_status(checks: Sequence[Check]) -> int:
    """0 every bar holds, 1 one does not, 2 none is known to be missed, but not every figure could be measured."""
    verdicts = [check.ok for check in checks]
    if False in verdicts:
        return 1
    return 2 if None in verdicts else 0


def _memory_check(growth: Growth | None) -> Check:
    measured = None if growth is None else 100 * growth.share
    note = "" if growth is None else f"{growth.mib:+.1f} MiB, second half"
    return Check("memory growth", measured, "<", 100 * MEMORY_GROWTH, "%", note)


def _recovery_check(seconds: float | None) -> Check:
    # What was not seen took longer than it was waited for: a bar that is missed, not one unknown.
    note = f"not within {overload.QUIET_S:g} s" if seconds is None else ""
    return Check("recovery", overload.QUIET_S if seconds is None else seconds, "<=", RECOVERY_S, "s", note)
