"""`serve-app bench load` and `bench generator`: options in, tables and files out."""

import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from serve_app.bench import images, machine, noop_server
from serve_app.bench.generator import Generator, GeneratorError, Run
from serve_app.bench.images import Images
from serve_app.bench.load import MAX_STOLEN, SPREAD, LoadTest, OnProgress, Row
from serve_app.bench.samples import Summary
from serve_app.cli.bench import output
from serve_app.cli.bench.output import number
from serve_app.config import ConfigError

PATH = "/v1/classify"
DEFAULT_START_PER_S = 10.0
PROBE_TIMEOUT_S = 10.0
MAX_TAKEN = 0.1
HEADER = ("offered/s", "done/s", "good/s", "p50 ms", "p90", "p99", "p99.9", "max", "batch", "failed")


def run(
    *,
    url: str,
    rates: Sequence[float] | None,
    concurrencies: Sequence[int] | None,
    sweep: bool,
    p99_ms: float | None,
    tolerance: float,
    images: Path | None,
    image_size: tuple[int, int],
    duration_s: float,
    warm_up_s: float,
    repeats: int,
    seed: int,
    timeout_s: float,
    processes: int | None,
    as_json: bool,
    csv_path: Path | None,
    plot: Path | None,
) -> int:
    """Measure and print; the exit status."""
    if sweep and p99_ms is None:
        raise click.UsageError("--sweep needs a bound: --p99-ms")
    if not (rates or concurrencies or sweep):
        raise click.UsageError("say what to send: --rate, --sweep or --concurrency")
    if sweep and rates and len(rates) > 1:
        raise click.UsageError("--sweep starts at one --rate")
    output.check_figure_path(plot)
    output.check_writable(csv_path, "--csv")
    pictures = read_images(images, image_size)
    url = url.rstrip("/")
    if problem := not_ready(url):
        output.fail(problem, 2)
    processes = processes or default_processes()
    template = Run(url + PATH, duration_s, warm_up_s, seed=seed, timeout_s=timeout_s)
    best, rows = None, []
    try:
        with Generator(pictures.files, processes) as generator, progress(warm_up_s + duration_s) as on_progress:
            test = LoadTest(generator, template, repeats, p99_ms, on_progress)
            if sweep:
                best, trials = test.sweep(rates[0] if rates else DEFAULT_START_PER_S, tolerance)
                rows = sorted([*trials, *([best] if best else [])], key=lambda row: row.run.rate_per_s or 0.0)
            else:
                rows = [test.at_rate(rate) for rate in rates or ()]
            rows += [test.at_concurrency(concurrency) for concurrency in concurrencies or ()]
    except GeneratorError as error:
        output.fail(str(error), 2)
    report = {
        **machine.facts(),
        "url": url,
        "images": pictures.description,
        "duration_s": duration_s,
        "warm_up_s": warm_up_s,
        "seed": seed,
        "processes": processes,
        "p99_bound_ms": p99_ms,
        "sweep": _sweep_report(best, rows, tolerance) if sweep else None,
        "rows": [row.as_dict() for row in rows],
    }
    if as_json:
        output.print_json(report)
    else:
        _print(report, rows, best)
    _warn(rows, best)
    if csv_path:
        output.write_csv(csv_path, report["rows"])
    if plot:
        from serve_app.bench import figures

        tables = [(HEADER, [cells(row) for row in rows])]
        figures.save(plot, f"Load test of {url}", report, figures.load_panels(report), tables)
    return _status(rows, best, sweep, p99_ms)


def run_generator(*, image_size: tuple[int, int], duration_s: float, processes: int | None, as_json: bool) -> int:
    pictures = images.generated(*image_size)
    processes = processes or default_processes()
    try:
        with ExitStack() as stack:
            url = stack.enter_context(noop_server.running())
            generator = stack.enter_context(Generator(pictures.files, processes))
            show = stack.enter_context(progress(duration_s))
            test = LoadTest(generator, Run(url + PATH, duration_s, warm_up_s=0.5), 1, None, show)
            closed = test.at_concurrency(32 * processes)
            # The open loop has to keep its times too: at half of what the closed loop reaches.
            opened = test.at_rate(closed.median.completed_per_s / 2)
    except (GeneratorError, EOFError) as error:
        output.fail(f"the generator or its server ended: {error}", 2)
    rows = [closed, opened]
    report = {**machine.facts(), "images": pictures.description, "rows": [row.as_dict() for row in rows]}
    if as_json:
        output.print_json(report)
    else:
        output.print_table(
            HEADER, [cells(row) for row in rows], caption=f"{pictures.description}\n{machine.phrase(report)}"
        )
        for row in rows:
            _print_generator(row, processes)
    return 0


# --- shared with other commands ------------------------------------------------------------------


def default_processes() -> int:
    """Of the generator: one sends thousands of requests/s of 100 kB, and the service needs cores too."""
    return max(1, min(8, machine.num_cores() // 4))


def read_images(folder: Path | None, size: tuple[int, int]) -> Images:
    """Those of the folder, or generated ones. Ends the command if there are none."""
    try:
        return images.from_folder(folder) if folder else images.generated(*size)
    except ConfigError as error:
        output.fail(str(error), 2)


def not_ready(url: str) -> str | None:
    """Why the service at `url` cannot be measured, or None."""
    try:
        with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=PROBE_TIMEOUT_S):  # noqa: S310 - the user's URL
            return None
    except urllib.error.HTTPError as error:
        return f"{url} is not ready: {url}/v2/health/ready answers {error.code}; wait, or see --url"
    except (OSError, ValueError, HTTPException) as error:
        return f"no service at {url} ({getattr(error, 'reason', error)}); start one: make serve, or see --url"


@contextmanager
def progress(seconds_per_run: float) -> Iterator[OnProgress]:
    """A bar for the run under way, on stderr, where a person looks."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.stderr, transient=True, disable=not sys.stderr.isatty()) as bars:
        bar = bars.add_task("starting", total=seconds_per_run)

        def show(what: str, seconds: float) -> None:
            left = "" if seconds < seconds_per_run else ", waiting for answers"
            bars.update(bar, description=what + left, completed=min(seconds, seconds_per_run))

        yield show


# --- output --------------------------------------------------------------------------------------


def _sweep_report(best: Row | None, rows: Sequence[Row], tolerance: float) -> dict[str, Any]:
    failed = [row.run.rate_per_s for row in rows if not row.holds and row.run.rate_per_s is not None]
    return {
        "highest_rate_per_s": best.run.rate_per_s if best else None,
        "lowest_rate_failed_per_s": min(failed, default=None),
        "tolerance": tolerance,
    }


def cells(row: Row) -> list[str]:
    """In the order of HEADER."""
    s = row.median
    offered = number(s.offered_per_s) if row.run.rate_per_s is not None else f"{row.run.concurrency} at once"
    latencies = [number(value) for value in (s.p50_ms, s.p90_ms, s.p99_ms, s.p999_ms, s.max_ms)]
    rates = [offered, number(s.completed_per_s), number(s.goodput_per_s)]
    return [*rates, *latencies, number(s.mean_batch), f"{sum(s.errors.values()):,}"]


def _print(report: dict[str, Any], rows: Sequence[Row], best: Row | None) -> None:
    caption = f"{report['images']}; {report['duration_s']:g} s a run\n{machine.phrase(report)}"
    output.print_table(HEADER, [cells(row) for row in rows], caption=caption)
    told = [row for row in rows if row.median.stages_ms]
    if told:
        stages = list(told[0].median.stages_ms)
        means = [[cells(row)[0], *(number(row.median.stages_ms[stage]) for stage in stages)] for row in told]
        output.print_table(["offered/s", *(f"{stage} ms" for stage in stages)], means, title="mean time by stage")
    errors = [[cells(row)[0], status, f"{n:,}"] for row in rows for status, n in row.median.errors.items()]
    if errors:
        output.print_table(["offered/s", "failed with", "requests"], errors, title="failures")
    print_spread(rows)
    _print_generator(best or rows[-1], report["processes"])
    for row in rows if report["p99_bound_ms"] and not report["sweep"] else ():
        held = "[green]holds[/]" if row.holds else "[red]does not hold[/]"
        share = f"{row.median.goodput_share:.1%} of what was offered was answered in time"
        output.stderr.print(f"{cells(row)[0]}: a p99 of {report['p99_bound_ms']:g} ms {held}; {share}", soft_wrap=True)
    if report["sweep"]:
        output.stderr.print(_verdict(report), soft_wrap=True)


def print_spread(rows: Sequence[Row]) -> None:
    """Of the repeats, where there were any, least and most."""
    table = [[cells(row)[0], *spread(row)] for row in rows if len(row.summaries) > 1]
    if table:
        output.print_table(("offered/s", "done/s", "p50 ms", "p99 ms"), table, title="least and most of the repeats")


def spread(row: Row) -> list[str]:
    """Least and most over the repeats, of each figure in `load.SPREAD`; empty where there was one run."""
    if len(row.summaries) == 1:
        return [""] * len(SPREAD)
    bounds = row.as_dict()["spread"].values()
    return ["-".join(number(value) for value in bound) if bound else output.NO_FIGURE for bound in bounds]


def _warn(rows: Sequence[Row], best: Row | None) -> None:
    # Of a sweep's trials those above the limit were to be late: the machine is full.
    warn_if_lagged([row for row in rows if row is best or row.holds] if best else rows)
    warn_if_stolen(rows)


def warn_if_lagged(rows: Sequence[Row]) -> None:
    """Of a generator that had no core for itself, latencies are its own in part."""
    late = [row for row in rows if row.median.lagged]
    if late:
        worst = max(late, key=lambda row: row.median.lag_p99_ms)
        output.stderr.print(
            f"[yellow]warning[/] in {len(late)} of {len(rows)} runs the generator sent late (at {cells(worst)[0]} by "
            f"{worst.median.lag_p99_ms:.1f} ms, p99), and the latencies have that in them: give it cores of its own, "
            "another machine, or more --processes",
            soft_wrap=True,
        )


def warn_if_busy() -> None:
    """Before a measurement that wants the machine for itself."""
    taken = machine.cores_taken()
    if taken > MAX_TAKEN * machine.num_cores():
        output.stderr.print(
            f"[yellow]warning[/] other programs take {taken:.1f} of the {machine.num_cores()} cores: "
            "what is measured now is too slow by as much, or more",
            soft_wrap=True,
        )


def warn_if_stolen(rows: Sequence[Row]) -> None:
    """Of a virtual machine whose host was busy with others, the figures are not its own."""
    stolen = max((summary.stolen_cores for row in rows for summary in row.summaries), default=0.0)
    if stolen > MAX_STOLEN * machine.num_cores():
        output.stderr.print(
            f"[yellow]warning[/] this machine's host took up to {stolen:.2f} of its {machine.num_cores()} cores "
            "for others (steal): what was measured meanwhile may be twice too slow",
            soft_wrap=True,
        )


def _print_generator(row: Row, processes: int) -> None:
    s = row.median
    many = "es" if processes > 1 else ""
    output.stderr.print(
        f"generator: {processes} process{many}, {s.generator_cores:.2f} cores, "
        f"sent late by {s.lag_p50_ms:.1f} ms (p50), {s.lag_p99_ms:.1f} ms (p99)",
        soft_wrap=True,
    )


def _verdict(report: dict[str, Any]) -> str:
    sweep, bound = report["sweep"], report["p99_bound_ms"]
    failed = sweep["lowest_rate_failed_per_s"]
    if sweep["highest_rate_per_s"] is None:
        return f"[red]no rate was confirmed to hold a p99 of {bound:g} ms[/]; the lowest that failed was {failed:.4g}/s"
    above = f"; {failed:.4g}/s does not" if failed else ""
    return f"[green]{sweep['highest_rate_per_s']:.4g} requests/s hold a p99 of {bound:g} ms[/]{above}"


def _status(rows: Sequence[Row], best: Row | None, sweep: bool, p99_ms: float | None) -> int:
    if sweep:
        return 0 if best else 1
    summaries: list[Summary] = [row.median for row in rows]
    if any(summary.p50_ms is None for summary in summaries):
        return 1
    return 0 if p99_ms is None or all(row.holds for row in rows) else 1
