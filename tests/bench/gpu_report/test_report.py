"""The bookkeeping: the budget, rows that fail, what is written and when."""

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from serve_app.bench.gpu_report import tasks
from serve_app.bench.gpu_report.line import Bar, Line
from serve_app.bench.gpu_report.report import SECTIONS, Report, Row
from serve_app.bench.gpu_report.scale import FULL, QUICK
from serve_app.bench.gpu_report.task import Context, NotMeasured, Task
from tests.bench.gpu_report import made_up

BUDGET_S = 100.0
MET, MISSED = Bar(">=", 1), Bar(">=", 10)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def task(
    clock: Clock, what: str, seconds: float = 10.0, error: BaseException | None = None, bar: Bar | None = None
) -> Task:
    """One that takes as long as it says, and then has a line, or an error after it."""

    def run(_: Context) -> Iterator[Line]:
        clock.now += seconds
        yield Line(2, what, 5.0, "/s", bar=bar)
        if error:
            raise error

    return Task(2, what, lambda _: seconds, run, bar)


def report(clock: Clock, *rows: Task) -> Report:
    return Report(rows, lambda _: [], {"arch": "resnet50"}, BUDGET_S, clock)


def run(of: Report, write: Callable[[], None] = lambda: None, clean_up: Callable[[], None] = lambda: None) -> None:
    of.run(made_up.context(), lambda *_: nullcontext(), write, clean_up)


def verdicts(of: Report) -> dict[str, list[str]]:
    return {row.task.what: [line.verdict for line in row.lines] for row in of.rows}


def test_before_it_runs_nothing_is_reached(clock: Clock) -> None:
    assert verdicts(report(clock, task(clock, "a"))) == {"a": ["not measured: not reached"]}


def test_each_row_has_its_figure_and_its_seconds(clock: Clock) -> None:
    found = report(clock, task(clock, "a", 10, bar=MET), task(clock, "b", 20, bar=MISSED), task(clock, "c", 5))
    run(found)
    assert verdicts(found) == {"a": ["met"], "b": ["NOT met"], "c": ["no bar"]}
    assert [row.seconds for row in found.rows] == [10, 20, 5]
    assert found.count() == {"met": 1, "NOT met": 1, "not measured": 0, "no bar": 1}
    assert found.exit_status() == 1


def test_what_no_longer_fits_says_so_and_what_is_shorter_still_runs(clock: Clock) -> None:
    found = report(clock, task(clock, "a", 60), task(clock, "long", 50, bar=MET), task(clock, "short", 40))
    run(found)
    assert verdicts(found)["long"] == ["not measured: takes 50 s, and 40 s of 100 were left"]
    assert verdicts(found)["short"] == ["no bar"]
    assert found.rows[1].lines[0].bar == MET
    assert found.exit_status() == 2


def test_a_row_that_fails_keeps_what_it_had_and_stops_no_other(clock: Clock) -> None:
    failing = task(clock, "a", error=RuntimeError("out of luck\nin detail"))
    found = report(clock, failing, task(clock, "b", error=NotMeasured("needs a GPU")), task(clock, "c"))
    run(found)
    assert verdicts(found) == {
        "a": ["no bar", "not measured: RuntimeError: out of luck"],
        "b": ["no bar", "not measured: needs a GPU"],
        "c": ["no bar"],
    }
    assert "in detail" in found.rows[0].failure
    assert "Traceback" in found.rows[0].failure
    assert [row.failure for row in found.rows[1:]] == ["", ""]
    assert found.exit_status() == 2


def test_a_missed_bar_counts_for_more_than_what_is_not_known(clock: Clock) -> None:
    found = report(clock, task(clock, "a", bar=MISSED), task(clock, "b", 1000))
    run(found)
    assert found.exit_status() == 1


def test_without_a_bar_missed_and_with_all_measured_the_status_is_0(clock: Clock) -> None:
    found = report(clock, task(clock, "a", bar=MET), task(clock, "b"))
    run(found)
    assert found.exit_status() == 0


def test_it_is_written_before_the_first_row_and_after_every_line_and_row(clock: Clock) -> None:
    found = report(clock, task(clock, "a"), task(clock, "b"))
    written: list[dict[str, list[str]]] = []
    run(found, lambda: written.append(verdicts(found)))
    reached = ["not measured: not reached"]
    assert written[0] == {"a": reached, "b": reached}
    assert {"a": ["no bar"], "b": reached} in written
    assert written[-1] == {"a": ["no bar"], "b": ["no bar"]}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_what_ends_the_command_ends_it_with_its_services_and_all_that_it_had(
    clock: Clock, error: BaseException
) -> None:
    written: list[dict[str, list[str]]] = []
    cleaned: list[None] = []
    found = report(clock, task(clock, "a", error=error), task(clock, "b"))
    with pytest.raises(type(error)):
        run(found, lambda: written.append(verdicts(found)), lambda: cleaned.append(None))
    assert written[-1] == {"a": ["no bar"], "b": ["not measured: not reached"]}
    assert cleaned == [None]


def test_what_a_row_left_open_is_closed_when_it_is_over(clock: Clock) -> None:
    closed: list[str] = []

    def one(_: Context) -> Iterator[Line]:
        try:
            yield Line(2, "a", 1.0)
        finally:
            closed.append("a")

    def failing() -> None:
        if found.rows[0].lines[0].value is not None:
            raise OSError("disk full")

    found = report(clock, Task(2, "a", lambda _: 1, one))
    with pytest.raises(OSError, match="disk full"):
        run(found, failing)
    assert closed == ["a"]


def test_rows_are_told_how_much_time_is_left_and_what_others_found(clock: Clock) -> None:
    left: list[float] = []

    def looking(context: Context) -> Iterator[Line]:
        left.append(context.left_s())
        context.known.start_s = 12.0
        yield Line(2, "b", 1.0)

    def expected(known: Any) -> float:
        left.append(-known.start_s)
        return 1.0

    found = report(clock, task(clock, "a", 30), Task(2, "b", lambda _: 1, looking), Task(2, "c", expected, looking))
    run(found)
    assert left == [70, -12, 70]


def test_the_report_is_json_and_its_verdicts_are_made_of_what_is_known_when_it_is_asked(clock: Clock) -> None:
    def verdict(known: Any) -> list[Line]:
        return [Line(9, "derived", known.start_s, "s", bar=Bar("<=", 4.5), reason="not yet")]

    found = Report([task(clock, "a")], verdict, {"arch": "resnet50"}, BUDGET_S, clock)
    assert found.as_dict()["verdicts"][0]["verdict"] == "not measured: not yet"
    run(found)
    found.known.start_s = 4.0
    told = found.as_dict()
    assert json.loads(json.dumps(told)) == told
    assert (told["arch"], told["budget_s"], told["seconds"]) == ("resnet50", 100, 10)
    assert told["verdicts"][0] == {
        "section": 9,
        "what": "derived",
        "value": 4.0,
        "unit": "s",
        "spread": None,
        "bar": {"relation": "<=", "value": 4.5},
        "verdict": "met",
        "note": "",
    }
    assert (told["rows"][0]["row"], told["rows"][0]["seconds"]) == ("a", 10)


def test_lines_come_by_section_with_the_row_that_they_are_of(clock: Clock) -> None:
    def seventh(_: Context) -> Iterator[Line]:
        yield Line(7, "7", 1.0)

    derived = [Line(9, "late", 1.0), Line(4, "early", 1.0)]
    found = Report([Task(7, "seven", lambda _: 1, seventh)], lambda _: derived, {}, BUDGET_S, clock)
    run(found)
    lines = list(found.lines())
    assert [line.what for line, _ in lines] == ["early", "7", "late"]
    assert [isinstance(row, Row) for _, row in lines] == [False, True, False]


@pytest.mark.parametrize("scale", [FULL, QUICK])
def test_every_row_is_there_once_and_in_a_section(scale: Any) -> None:
    found = tasks.tasks(scale)
    names = [one.what for one in found]
    assert len(set(names)) == len(names)
    assert {one.section for one in found} <= set(SECTIONS)
    assert [name for name in names if name.startswith("served")] == [
        f"served, {n} replica{'s' if n > 1 else ''}" for n in scale.replicas
    ]
