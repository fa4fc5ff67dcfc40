import pytest

from serve_app.bench.gpu_report import verdicts
from serve_app.bench.gpu_report.known import Known, Served
from serve_app.bench.gpu_report.line import Line
from tests.bench.gpu_report.made_up import row

SIZE = 64


def found(known: Known) -> dict[int, Line]:
    """By section, but for padding."""
    return {line.section: line for line in verdicts.lines(known, SIZE) if line.section != 4}


def full() -> Known:
    known = Known()
    known.served[4] = Served([row(9000, 60, concurrency=64), row(9500, 150, concurrency=128)], row(200, 5, 4.4))
    known.served[2] = Served([row(7000, 40, concurrency=64)], row(250, 4, 3.9))
    known.served[4].open = row(6100, 45, rate_per_s=6100)
    known.tutorial = row(125, 900, concurrency=64)
    known.forward = {"compiled": {SIZE: 24_000.0}, "uncompiled": {SIZE: 13_000.0}}
    known.gpu_decode = {SIZE: 15_000.0}
    return known


def test_of_all_that_was_measured_the_best_that_keeps_its_p99_counts() -> None:
    lines = found(full())
    assert {section: (line.value, line.verdict) for section, line in lines.items()} == {
        7: (9000, "met"),
        8: (9000 / 125, "met"),
        9: (6100, "met"),
        10: (4.4, "met"),
        11: (9000 / 15_000, "no bar"),
    }
    assert lines[7].note == "4 replicas, 64 at once: p50 10.0 ms, p99 60.0 ms; goal 10,000"
    assert "decode on the GPU" in lines[11].note


def test_of_nothing_everything_is_not_measured() -> None:
    lines = verdicts.lines(Known(), SIZE)
    assert {line.verdict.partition(":")[0] for line in lines} == {"not measured"}
    assert all(line.reason for line in lines)
    assert len(lines) == 7


def test_where_no_run_keeps_the_p99_the_bar_is_missed_and_the_most_is_told() -> None:
    known = full()
    known.served = {4: Served([row(9500, 150, concurrency=128), row(9000, 140, concurrency=64)])}
    line = found(known)[7]
    assert (line.value, line.verdict) == (0, "NOT met")
    assert "none kept it; 9,500/s with 4 replicas, 128 at once" in line.note


@pytest.mark.parametrize(
    ("section", "change"),
    [
        (8, lambda known: setattr(known, "tutorial", None)),
        (8, lambda known: setattr(known, "tutorial", row(0, None, None))),
        (9, lambda known: setattr(known.served[4], "open", None)),
        (10, lambda known: setattr(known.served[4], "lone", None)),
        (10, lambda known: setattr(known.served[4], "lone", row(0, None, None))),
        (11, lambda known: known.gpu_decode.clear()),
        (11, lambda known: known.forward.clear()),
    ],
)
def test_what_a_verdict_lacks_leaves_the_others(section: int, change: object) -> None:
    known = full()
    assert callable(change)
    change(known)
    lines = found(known)
    assert [number for number, line in lines.items() if line.value is None] == [section]
    assert lines[section].reason


def test_the_open_loop_of_the_service_that_held_most_counts() -> None:
    known = full()
    known.served[2].open = row(7000, 45, rate_per_s=7000)
    assert (found(known)[9].value, found(known)[9].note) == (7000, "2 replicas")
