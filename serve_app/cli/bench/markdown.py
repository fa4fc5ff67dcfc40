"""The GPU report as Markdown: what a person reads, and all that is left of a run that was killed."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from serve_app.bench import machine
from serve_app.bench.gpu_report.line import MET, MISSED, NOT_MEASURED, Line
from serve_app.bench.gpu_report.report import SECTIONS, Report
from serve_app.cli.bench.output import NO_FIGURE, number

HEADER = ("what", "figure", "spread", "bar", "verdict", "s", "note")
RULE = ("---", "--:", "--:", "--:", "---", "--:", "---")


def render(report: Report) -> str:
    return "\n".join([*_head(report), *_sections(report), *_failures(report)]) + "\n"


def cells(line: Line, seconds: float | None) -> list[str]:
    """In the order of HEADER; `seconds` are those of its row, on the first line of it."""
    spread = "-".join(figure(bound) for bound in line.spread) if line.spread else ""
    bar = f"{line.bar.relation} {figure(line.bar.value)}" if line.bar else ""
    value = NO_FIGURE if line.value is None else f"{figure(line.value)} {line.unit}".strip()
    return [line.what, value, spread, bar, line.verdict, "" if seconds is None else f"{seconds:.0f}", line.note]


def figure(value: float) -> str:
    """With as many digits as it takes to tell one from another."""
    if value and abs(value) < 1:
        return f"{value:.3g}"
    return number(value, 2 if abs(value) < 10 else 1).removesuffix(".00").removesuffix(".0")


def counted(report: Report) -> str:
    """How many bars are met and missed, and which lines have no figure, in a phrase."""
    count = report.count()
    return f"{count[MET]} bars met, {count[MISSED]} NOT met; {count[NOT_MEASURED]} lines not measured"


def sections(report: Report) -> Iterator[tuple[str, list[list[str]]]]:
    """Title and rows of cells of each section that has any."""
    told: set[int] = set()
    for number_, group in groupby(report.lines(), key=lambda pair: pair[0].section):
        rows = []
        for line, row in group:
            seconds = row.seconds if row is not None and id(row) not in told else None
            told.add(id(row))
            rows.append(cells(line, seconds))
        yield f"{number_}. {SECTIONS[number_]}", rows


def _head(report: Report) -> Iterator[str]:
    facts = report.facts
    yield f"# GPU report: {facts['arch']} on {facts['gpu']['name'] if facts['gpu'] else facts['device']}"
    yield ""
    yield f"{counted(report)}; {report.seconds:.0f} s of {report.budget_s:g}. Bars are an H200's."
    yield ""
    yield f"* {machine.phrase(facts)}"
    if facts["gpu"]:
        yield f"* {_gpu(facts['gpu'])}, torch {facts['versions'].get('torch', 'of unknown version')}"
    yield f"* weights: {facts['weights']}; max_batch_size {facts['max_batch_size']}; {facts['images']}"
    yield f"* `{facts['command']}`"


def _gpu(gpu: dict[str, Any]) -> str:
    driver = gpu["driver"] or "of unknown version"
    return (
        f"{gpu['name']}, {gpu['memory_gib']} GiB, compute capability {gpu['capability']}, driver {driver}, "
        f"CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}"
    )


def _sections(report: Report) -> Iterator[str]:
    for title, rows in sections(report):
        yield from ("", f"## {title}", "", _row(HEADER), _row(RULE), *map(_row, rows))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _failures(report: Report) -> Iterator[str]:
    for row in report.rows:
        if row.failure:
            yield from ("", f"## What ended: {row.task.what}", "", "```", row.failure.rstrip(), "```")
