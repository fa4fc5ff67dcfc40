import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image

from serve_app.bench import figures, overload_figures
from serve_app.bench.figures import SUFFIXES, Panel, Report, Table
from serve_app.cli.bench import output

FACTS: Report = {
    "command": "serve-app bench load --url 'http://<host>'",
    "date": "2026-11-21",
    "machine": {"cpu": "A & B", "cores": 2, "memory_gib": 8.0, "gpus": []},
    "versions": {"torch": "2.15.0", "ray": "2.60.0"},
}
TABLE: Table = (("offered/s", "p99 ms"), [["<10>", "12.5"], ["2,000", "-"]])
STAGES = {"decode": 1.0, "queue": 2.0, "device": 3.0, "http": 0.5}
MAGIC = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".html": b"<!doctype html>"}


def load_row(rate_per_s: float | None, figure: float | None, concurrency: int | None = None) -> dict[str, Any]:
    """A row in which every latency is `figure`; with None nothing was answered."""
    answered = figure is not None
    return {
        "rate_per_s": rate_per_s,
        "concurrency": concurrency,
        "offered_per_s": rate_per_s or 10.0,
        "completed_per_s": 10.0 if answered else 0.0,
        "goodput_per_s": 9.0 if answered else 0.0,
        **dict.fromkeys(("p50_ms", "p90_ms", "p99_ms"), figure),
        "mean_batch": 4.0 if answered else None,
        "stages_ms": STAGES if answered else {},
    }


def load_report(*rows: dict[str, Any]) -> Report:
    return {**FACTS, "p99_bound_ms": 50.0, "rows": list(rows)}


def pair(figure: float | None, **key: str) -> dict[str, Any]:
    return {**key, "batch_size": 4, "images_per_s_one": figure, "images_per_s": figure}


def forward_report(failed: bool = False) -> Report:
    """With `failed`, nothing but a batch of 1 fitted into memory."""
    figure = None if failed else 30.0
    one = {"batch_size": 1, "images_per_s": 10.0, "ms_per_batch_spread": [90.0, 110.0], "error": None}
    four = {"batch_size": 4, "images_per_s": 30.0, "ms_per_batch_spread": [130.0, 140.0], "error": None}
    too_many = {"batch_size": 8, "images_per_s": None, "ms_per_batch_spread": None, "error": "out of memory"}
    per_image = {"decode": 2.0, "resize": 1.0, "copy_in": 0.1, "forward": 5.0, "copy_out": 0.1}
    return {
        **FACTS,
        "batch": {"knee": 1 if failed else 4, "rows": [one, too_many] if failed else [one, four, too_many]},
        "archs": [pair(10.0, arch="resnet18"), pair(figure, arch="resnet50")],
        "precisions": [pair(figure, how=how, precision="fp32", device="cpu") for how in ("eager", "engine")],
        "stages": {"batch_size": 4, "ms_per_image": per_image},
    }


def deadline_report() -> Report:
    rows = [
        {
            **load_row(rate, 12.0),
            "deadlines_told": told,
            "deadlines": {"100": {"missed_percent": 3.0}, "2000": {"missed_percent": 0.0}},
        }
        for rate in (10.0, 20.0)
        for told in (False, True)
    ]
    return {**load_report(*rows), "deadlines_ms": [100.0, 2000.0]}


def overload_report(answered: bool = True) -> Report:
    seconds = [
        {"at_s": at, "offered": 30, "good": 9, "refused": 20, "p50_ms": ms, "p99_ms": ms, "memory_mib": ms}
        for at, ms in enumerate([12.0, 30.0, None, 12.0] if answered else [None] * 4)
    ]
    return {
        **FACTS,
        "objective_ms": 250.0,
        "peak_per_s": 10.0,
        "quiet_s": 1.0,
        "overload_s": 2.0,
        "timeline": seconds,
        "phases": [{"phase": "alone", **load_row(None, 8.0, 1)}, {"phase": "peak", **load_row(10.0, 8.0)}],
    }


REPORTS: dict[str, tuple[Report, Callable[[Report], list[Panel]]]] = {
    "load": (load_report(load_row(20.0, 12.0), load_row(10.0, 8.0), load_row(None, 9.0, 16)), figures.load_panels),
    "closed loop": (load_report(load_row(None, 8.0, 1), load_row(None, 12.0, 16)), figures.load_panels),
    "one failed": (load_report(load_row(10.0, 8.0), load_row(20.0, None)), figures.load_panels),
    "all failed": (load_report(load_row(10.0, None), load_row(20.0, None)), figures.load_panels),
    "deadlines": (deadline_report(), figures.load_panels),
    "overload": (overload_report(), overload_figures.panels),
    "overload without answers": (overload_report(answered=False), overload_figures.panels),
    "forward": (forward_report(), figures.forward_panels),
    "forward without memory": (forward_report(failed=True), figures.forward_panels),
}


def saved(path: Path, name: str, tables: Sequence[Table] = (TABLE,)) -> bytes:
    report, panels = REPORTS[name]
    figures.save(path, "A <title>", report, panels(report), tables)
    return path.read_bytes()


class Cells(HTMLParser):
    """The text of a page's table cells, and its words outside the figure."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:  # <meta> and <br> are never closed
            continue

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("td", "th"):
            self.cells.append(data)
        self.words += data


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_drawn_whatever_failed(tmp_path: Path, name: str) -> None:
    assert saved(tmp_path / "figure.svg", name).startswith(MAGIC[".svg"])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_figure_is_of_the_kind_that_its_name_says(tmp_path: Path, suffix: str) -> None:
    assert saved(tmp_path / f"figure{suffix}", "forward").startswith(MAGIC[suffix])


def test_a_page_has_the_tables_the_figure_and_where_it_was_taken(tmp_path: Path) -> None:
    page = saved(tmp_path / "report.html", "load").decode()
    parsed = Cells(page)
    assert parsed.cells == ["offered/s", "p99 ms", "<10>", "12.5", "2,000", "-"]
    assert page.count("<svg") == 1
    assert {"Latency", "Answered", "Batch size", "Time by stage"} <= set(re.findall(r">([^<>]+)</text>", page))
    for words in (FACTS["command"], "A <title>", "2 cores of A & B, torch 2.15.0, ray 2.60.0, 2026-11-21"):
        assert words in parsed.words


def test_a_picture_has_room_for_every_panel(tmp_path: Path) -> None:
    saved(tmp_path / "figure.png", "forward")
    with Image.open(tmp_path / "figure.png") as picture:
        width, height = figures.PANEL_INCHES
        assert picture.size == pytest.approx((2 * width * 150, 2 * height * 150), abs=1)


def drawn(path: Path, name: str) -> set[str]:
    """The words and numbers in a figure."""
    return set(re.findall(r">([^<>]+)</text>", saved(path, name).decode()))


def test_the_open_loop_is_drawn_by_rate_and_alone_a_closed_one_by_concurrency(tmp_path: Path) -> None:
    assert "offered, requests/s" in drawn(tmp_path / "open.svg", "load")
    assert "requests in flight" in drawn(tmp_path / "closed.svg", "closed loop")


def test_deadlines_are_drawn_told_and_untold(tmp_path: Path) -> None:
    assert {"100 ms, untold", "2000 ms, told"} <= drawn(tmp_path / "deadlines.svg", "deadlines")
    assert "Deadlines" not in drawn(tmp_path / "load.svg", "load")


def test_a_curve_shows_its_knee_and_where_memory_ended(tmp_path: Path) -> None:
    assert {"knee: 4", "out of memory: 8", "resnet50"} <= drawn(tmp_path / "forward.svg", "forward")


def test_another_suffix_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter, match=r"figure\.txt: its name must end in \.html"):
        output.check_figure_path(tmp_path / "figure.txt")
    for suffix in SUFFIXES:
        output.check_figure_path(tmp_path / f"figure{suffix}")
