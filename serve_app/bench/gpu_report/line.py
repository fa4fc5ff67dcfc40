"""A line of the report: a figure, and what it should be."""

from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from serve_app.bench.bars import Check, Relation

MET, MISSED, NO_BAR, NOT_MEASURED = "met", "NOT met", "no bar", "not measured"


@dataclass(frozen=True)
class Bar:
    relation: Relation
    value: float


@dataclass(frozen=True)
class Line:
    section: int
    """Of report.SECTIONS."""
    what: str
    value: float | None = None
    """None: it was not measured, and `reason` says why."""
    unit: str = ""
    spread: tuple[float, float] | None = None
    """Least and most of its repeats."""
    bar: Bar | None = None
    note: str = ""
    """What the figure is made of."""
    reason: str = ""

    @property
    def check(self) -> Check:
        """Against its bar; one that is always held where it has none."""
        bar = self.bar or Bar(">=", float("-inf"))
        return Check(self.what, self.value, bar.relation, bar.value, self.unit, self.note)

    @property
    def verdict(self) -> str:
        if self.value is None:
            return f"{NOT_MEASURED}: {self.reason}"
        if self.bar is None:
            return NO_BAR
        return MET if self.check.ok else MISSED

    def as_dict(self) -> dict[str, Any]:
        return {
            "section": self.section,
            "what": self.what,
            "value": _rounded(self.value),
            "unit": self.unit,
            "spread": self.spread and [_rounded(bound) for bound in self.spread],
            "bar": self.bar and {"relation": self.bar.relation, "value": self.bar.value},
            "verdict": self.verdict,
            "note": self.note,
        }


def of_repeats(line: Line, values: list[float]) -> Line:
    """The line with the median of `values`, and their spread where there are several."""
    spread = (min(values), max(values)) if len(values) > 1 else None
    return replace(line, value=median(values), spread=spread)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
