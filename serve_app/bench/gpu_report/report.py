"""Runs the rows one after another within a budget of time; what each said, or why it said nothing."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from typing import Any, cast

from serve_app.bench import bars
from serve_app.bench.gpu_report.known import Known
from serve_app.bench.gpu_report.line import MET, MISSED, NO_BAR, NOT_MEASURED, Line
from serve_app.bench.gpu_report.task import Context, NotMeasured, Task

SECTIONS = {
    1: "The machine",
    2: "The network alone",
    3: "Start-up",
    4: "Padding",
    5: "The image path",
    6: "Fidelity",
    7: "Served over HTTP, closed loop",
    8: "Beside the tutorial's app",
    9: "Served over HTTP, open loop",
    10: "A lone client",
    11: "Served over the slowest stage alone",
}
NOT_REACHED = "not reached"
COMES_ANYWAY_S = 1.0
"""What takes less than this runs also when nothing is left."""


@dataclass
class Row:
    """What became of a task."""

    task: Task
    lines: list[Line] = field(default_factory=list)
    seconds: float | None = None
    """None: it has not run, or not to its end."""
    failure: str = ""
    """The traceback of what it did not expect."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "row": self.task.what,
            "seconds": None if self.seconds is None else round(self.seconds, 1),
            "lines": [line.as_dict() for line in self.lines],
            "failure": self.failure,
        }


class Report:
    def __init__(
        self,
        tasks: Sequence[Task],
        verdicts: Callable[[Known], Sequence[Line]],
        facts: dict[str, Any],
        budget_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`verdicts` are made of what all rows found, and made anew whenever they are looked at."""
        self.facts = facts
        self.budget_s = budget_s
        self.known = Known()
        self._clock = clock
        self._began = clock()
        self._verdicts = verdicts
        self.rows = [Row(task, [_missing(task, NOT_REACHED)]) for task in tasks]

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self._began

    def left_s(self) -> float:
        return self.budget_s - self.seconds

    def lines(self) -> Iterator[tuple[Line, Row | None]]:
        """Every line with the row that it came from, by section; None: a verdict."""
        found: list[tuple[Line, Row | None]] = [(line, None) for line in self._verdicts(self.known)]
        found += [(line, row) for row in self.rows for line in row.lines]
        yield from sorted(found, key=lambda pair: pair[0].section)

    def count(self) -> dict[str, int]:
        """Verdict -> how many lines have it."""
        words = [line.verdict.partition(":")[0] for line, _ in self.lines()]
        return {word: words.count(word) for word in (MET, MISSED, NOT_MEASURED, NO_BAR)}

    def exit_status(self) -> int:
        """As of `bench overload`: 0 every bar holds, 1 one does not, 2 none is missed, but not all was measured."""
        return bars.exit_status([line.check for line, _ in self.lines()])

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.facts,
            "budget_s": self.budget_s,
            "seconds": round(self.seconds, 1),
            "verdicts": [line.as_dict() for line in self._verdicts(self.known)],
            "rows": [row.as_dict() for row in self.rows],
        }

    def run(
        self,
        context: Context,
        showing: Callable[[Row, int], AbstractContextManager[object]],
        write: Callable[[], None],
        clean_up: Callable[[], None] = lambda: None,
    ) -> None:
        """Each row in turn. `showing` is told of a row, and its number, before it runs; `write` after each
        line; `clean_up` after each row, whatever became of it.
        """
        context = replace(context, known=self.known, left_s=self.left_s)
        write()
        for number, row in enumerate(self.rows, start=1):
            with showing(row, number):
                try:
                    self._run(row, context, write)
                finally:
                    clean_up()
            write()

    def _run(self, row: Row, context: Context, write: Callable[[], None]) -> None:
        began = self._clock()
        row.lines.clear()
        try:
            self._check_time(row.task)
            # Closed, so that a row's services end before it is over.
            with closing(cast(Any, row.task.run(context))) as lines:
                for line in lines:
                    row.lines.append(line)
                    write()
        except NotMeasured as error:
            row.lines.append(_missing(row.task, str(error)))
        except Exception as error:
            row.failure = "".join(traceback.format_exception(error))
            row.lines.append(_missing(row.task, _phrase(error)))
        row.seconds = self._clock() - began

    def _check_time(self, task: Task) -> None:
        expected_s, left_s = task.expected_s(self.known), self.left_s()
        if expected_s > max(left_s, COMES_ANYWAY_S):
            raise NotMeasured(f"takes {expected_s:.0f} s, and {max(0.0, left_s):.0f} s of {self.budget_s:g} were left")


def _missing(task: Task, reason: str) -> Line:
    return Line(task.section, task.what, bar=task.bar, reason=reason)


def _phrase(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
