"""Figures against their bars, as cells of a table."""

from collections.abc import Sequence

from serve_app.bench.bars import Check
from serve_app.cli.bench.output import number

CHECK_HEADER = ("check", "measured", "bar", "ok")
VERDICTS = {True: "yes", False: "NO", None: "not known"}


def check_cells(checks: Sequence[Check]) -> list[list[str]]:
    """In the order of CHECK_HEADER."""
    return [
        [
            check.name,
            _figure(check.measured, check.unit) + (f" ({check.note})" if check.note else ""),
            f"{check.relation} {_figure(check.bar, check.unit)}",
            VERDICTS[check.ok],
        ]
        for check in checks
    ]


def _figure(value: float | None, unit: str) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    digits = 1 if unit else 2
    return number(value, digits) + (f" {unit}" if unit and value is not None else "")
