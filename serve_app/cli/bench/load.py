"""`serve-app bench load` and `bench generator`: options in, tables and files out."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from serve_app.bench import images, machine, noop_server
from serve_app.bench.generator import Generator, GeneratorError, Run, default_processes
from serve_app.bench.load import LoadTest, Row
from serve_app.bench.samples import Summary
from serve_app.cli.bench import output
from serve_app.cli.bench.local_service import PATH, not_ready
from serve_app.cli.bench.output import number, progress, read_images
from serve_app.cli.bench.rows import (
    DEADLINE_HEADER,
    HEADER,
    cells,
    deadline_cells,
    print_deadlines,
    print_generator,
    print_refusals,
    print_spread,
    warn_if_lagged,
    warn_if_stolen,
)

DEFAULT_START_PER_S = 10.0


def run(
    *,
    url: str,
    rates: Sequence[float] | None,
    concurrencies: Sequence[int] | None,
    sweep: bool,
    p99_ms: float | None,
    tolerance: float,
    deadlines_ms: tuple[float, ...] | None,
    deadlines: str,
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
    if deadlines_ms and (sweep or concurrencies):
        raise click.UsageError("--deadline-ms is of --rate alone, without --sweep and --concurrency")
    if deadlines != "told" and not deadlines_ms:
        raise click.UsageError(f"--deadlines {deadlines}: say which: --deadline-ms")
    output.check_figure_path(plot)
    output.check_writable(csv_path, "--csv")
    pictures = read_images(images, image_size)
    url = url.rstrip("/")
    if problem := not_ready(url):
        output.fail(problem, 2)
    processes = processes or default_processes()
    template = Run(
        *(url + PATH, duration_s, warm_up_s),
        seed=seed,
        timeout_s=timeout_s,
        deadlines_ms=tuple(sorted(set(deadlines_ms or ()))),
    )
    best, rows = None, []
    try:
        with Generator(pictures.files, processes) as generator, progress(warm_up_s + duration_s) as on_progress:
            test = LoadTest(generator, template, repeats, p99_ms, on_progress)
            if sweep:
                best, trials = test.sweep(rates[0] if rates else DEFAULT_START_PER_S, tolerance)
                rows = sorted([*trials, *([best] if best else [])], key=lambda row: row.run.rate_per_s or 0.0)
            else:
                tests = {"untold": [test.untold()], "told": [test], "both": [test.untold(), test]}[deadlines]
                rows = [one.at_rate(rate) for rate in rates or () for one in tests]
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
        "deadlines_ms": list(template.deadlines_ms),
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

        tables: list[figures.Table] = [(HEADER, [cells(row) for row in rows])]
        if template.deadlines_ms:
            tables.append((DEADLINE_HEADER, deadline_cells(rows)))
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
            print_generator(row, processes)
    return 0


# --- output --------------------------------------------------------------------------------------


def _sweep_report(best: Row | None, rows: Sequence[Row], tolerance: float) -> dict[str, Any]:
    failed = [row.run.rate_per_s for row in rows if not row.holds and row.run.rate_per_s is not None]
    return {
        "highest_rate_per_s": best.run.rate_per_s if best else None,
        "lowest_rate_failed_per_s": min(failed, default=None),
        "tolerance": tolerance,
    }


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
    print_deadlines(rows)
    print_refusals(rows)
    print_spread(rows)
    print_generator(best or rows[-1], report["processes"])
    for row in rows if report["p99_bound_ms"] and not report["sweep"] else ():
        held = "[green]holds[/]" if row.holds else "[red]does not hold[/]"
        share = f"{row.median.goodput_share:.1%} of what was offered was answered in time"
        output.stderr.print(f"{cells(row)[0]}: a p99 of {report['p99_bound_ms']:g} ms {held}; {share}", soft_wrap=True)
    if report["sweep"]:
        output.stderr.print(_verdict(report), soft_wrap=True)


def _warn(rows: Sequence[Row], best: Row | None) -> None:
    # Of a sweep's trials those above the limit were to be late: the machine is full.
    warn_if_lagged([row for row in rows if row is best or row.holds] if best else rows)
    warn_if_stolen(rows)


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
