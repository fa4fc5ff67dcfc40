"""What every measuring command does: images in; progress; its report as a table, or JSON, and files."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from serve_app.bench import images, machine
from serve_app.bench.images import Images
from serve_app.bench.load import OnProgress
from serve_app.config import ConfigError

NO_FIGURE = "-"
MAX_TAKEN = 0.1
"""Of all cores, by other programs."""

stderr = Console(stderr=True, highlight=False)


def check_figure_path(path: Path | None) -> None:
    """Refuse before anything is measured what could not be drawn after it. Raises click's errors."""
    if path is None:
        return
    try:
        from serve_app.bench.figures import SUFFIXES
    except ImportError:
        raise click.UsageError("--plot needs matplotlib: pip install 'serve-app[bench]'") from None
    if path.suffix not in SUFFIXES:
        raise click.BadParameter(f"{path}: its name must end in {', '.join(SUFFIXES)}", param_hint="--plot")
    check_writable(path, "--plot")


def check_writable(path: Path | None, option: str) -> None:
    if path is None:
        return
    if not path.parent.is_dir():
        raise click.BadParameter(f"{path}: there is no folder {path.parent}", param_hint=option)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise click.BadParameter(f"{path}: it may not be written", param_hint=option)


def read_images(folder: Path | None, size: tuple[int, int]) -> Images:
    """Those of the folder, or generated ones. Ends the command if there are none."""
    try:
        return images.from_folder(folder) if folder else images.generated(*size)
    except ConfigError as error:
        fail(str(error), 2)


def warn_if_busy() -> None:
    """Before a measurement that wants the machine for itself."""
    taken = machine.cores_taken()
    if taken > MAX_TAKEN * machine.num_cores():
        stderr.print(
            f"[yellow]warning[/] other programs take {taken:.1f} of the {machine.num_cores()} cores: "
            "what is measured now is too slow by as much, or more",
            soft_wrap=True,
        )


@contextmanager
def progress(seconds_per_run: float) -> Iterator[OnProgress]:
    """A bar for the run under way, on stderr, where a person looks."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not sys.stderr.isatty()) as bars:
        bar = bars.add_task("starting", total=seconds_per_run)

        def show(what: str, seconds: float) -> None:
            left = "" if seconds < seconds_per_run else ", waiting for answers"
            bars.update(bar, description=what + left, completed=min(seconds, seconds_per_run))

        yield show


@contextmanager
def steps(total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar on stderr; each call is one step done, and names it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not sys.stderr.isatty()) as bars:
        bar = bars.add_task("starting", total=total)
        yield lambda what: bars.update(bar, advance=1, description=what)


def print_json(report: dict[str, Any]) -> None:
    print(json.dumps(report, indent=2))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", caption: str = "") -> None:
    """A table that fits 80 columns: the first column to the left, numbers to the right."""
    columns = [Column(name, justify="left" if i == 0 else "right") for i, name in enumerate(header)]
    table = Table(*columns, box=SIMPLE, title=title or None, caption=caption or None, padding=(0, 1, 0, 0))
    table.title_justify = table.caption_justify = "left"
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


def print_line(text: str) -> None:
    Console(highlight=False).print(text, markup=False, soft_wrap=True)


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One line a row; nested mappings become columns `outer.inner`, lists are left to `--json`."""
    flat = [_flattened(row) for row in rows]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in flat for key in row)))
        writer.writeheader()
        writer.writerows(flat)


def _flattened(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found |= _flattened(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            found[f"{prefix}{key}"] = value
    return found


def number(value: float | None, digits: int = 1) -> str:
    """For a table: thousands separated, whole from 100 up."""
    if value is None:
        return NO_FIGURE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}f}"


def fail(message: str, status: int) -> NoReturn:
    """End the command: what is wrong and what to do, on stderr."""
    stderr.print(message, style="red", markup=False, soft_wrap=True)
    sys.exit(status)
