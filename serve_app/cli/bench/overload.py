"""`serve-app bench overload`: a config is served, measured at its peak and put under three times that."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from serve_app.bench import bars, machine, overload, resident
from serve_app.bench.bars import Check
from serve_app.bench.generator import Generator, GeneratorError, Run, default_processes
from serve_app.bench.load import LoadTest, Row
from serve_app.bench.overload import Flood, Normal, Unmeasurable
from serve_app.bench.resident import Resident
from serve_app.cli.bench import local_service, output
from serve_app.cli.bench.checks import CHECK_HEADER, check_cells
from serve_app.cli.bench.local_service import StartError
from serve_app.cli.bench.output import number, progress, read_images, warn_if_busy
from serve_app.cli.bench.rows import (
    cells,
    print_deadlines,
    print_generator,
    print_refusals,
    warn_if_lagged,
    warn_if_stolen,
)
from serve_app.cli.bench.served import Served, read
from serve_app.config import ConfigError

WARM_UP_S = 2.0
"""Before each run but the overload's: what is counted meets queues as they are at that rate."""
PHASE_HEADER = ("phase", "offered/s", "good/s", "p50 ms", "p99", "batch", "failed")


@dataclass(frozen=True)
class Found:
    """What the phases measured."""

    normal: Normal
    flood: Flood
    mixed: tuple[Row, Row] | None
    """Deadlines untold, told."""

    @property
    def phases(self) -> list[tuple[str, Row]]:
        climb = [("peak", row) for row in self.normal.climb]
        named = [("alone", self.normal.lone), *climb, ("quiet", self.normal.quiet), ("overload", self.flood.row)]
        return [*named, *(("mixed deadlines", row) for row in self.mixed or ())]

    def checks(self, objective_ms: float) -> list[Check]:
        normal = self.normal
        found = [bars.quiet_check(normal.lone.median, normal.quiet.median)]
        found += bars.flood_checks(self.flood, normal.peak_per_s, objective_ms)
        if self.mixed:
            found.append(bars.deadline_check(*(row.median for row in self.mixed)))
        return found


def run(
    *,
    file: Path,
    images: Path | None,
    image_size: tuple[int, int],
    times: float,
    overload_s: float,
    deadlines_ms: tuple[float, ...] | None,
    duration_s: float,
    seed: int,
    timeout_s: float,
    processes: int | None,
    as_json: bool,
    csv_path: Path | None,
    plot: Path | None,
) -> int:
    """Measure and print; the exit status."""
    output.check_figure_path(plot)
    output.check_writable(csv_path, "--csv")
    try:
        served = read(file)
        objective_ms = _objective_ms(served)
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="FILE") from None
    pictures = read_images(images, image_size)
    warn_if_busy()
    processes = processes or default_processes()
    template = Run("", duration_s, WARM_UP_S, seed=seed, timeout_s=timeout_s)
    deadlines_ms = tuple(sorted(set(deadlines_ms or ())))
    try:
        with local_service.under_load(served.content, pictures, processes=processes) as (url, generator):
            plan = _Plan(url, template, objective_ms, times, overload_s, deadlines_ms)
            found = _measured(generator, plan)
    except (StartError, GeneratorError, Unmeasurable) as error:
        output.fail(str(error), 2)
    checks = found.checks(objective_ms)
    report = {
        **machine.facts(),
        "file": str(file),
        "images": pictures.description,
        "objective_ms": objective_ms,
        "peak_per_s": round(found.normal.peak_per_s, 3),
        "times": times,
        "quiet_s": overload.QUIET_S,
        "overload_s": overload_s,
        "duration_s": duration_s,
        "seed": seed,
        "processes": processes,
        "phases": [{"phase": name, **row.as_dict()} for name, row in found.phases],
        "timeline": [second.as_dict() for second in found.flood.timeline],
        "checks": [check.as_dict() for check in checks],
    }
    if as_json:
        output.print_json(report)
    else:
        _print(report, found, checks)
    _warn(found)
    if csv_path:
        output.write_csv(csv_path, report["checks"])
    if plot:
        from serve_app.bench import figures, overload_figures

        tables: list[figures.Table] = [(CHECK_HEADER, check_cells(checks)), (PHASE_HEADER, _phase_cells(found))]
        figures.save(plot, f"Overload of {file.name}", report, overload_figures.panels(report), tables)
    return bars.exit_status(checks)


# --- the config ----------------------------------------------------------------------------------


def _objective_ms(served: Served) -> float:
    """Raises ConfigError where there is none."""
    objective_ms = served.user_config.latency_slo_ms
    if objective_ms is None:
        raise ConfigError("user_config.latency_slo_ms is not set: without an objective there is nothing to hold")
    return objective_ms


# --- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    url: str
    template: Run
    objective_ms: float
    times: float
    overload_s: float
    deadlines_ms: tuple[float, ...]


def _measured(generator: Generator, plan: _Plan) -> Found:
    """Raises GeneratorError and Unmeasurable."""
    run = replace(plan.template, url=plan.url)
    run_s = run.warm_up_s + run.duration_s
    with progress(run_s) as show:
        normal = overload.normal(LoadTest(generator, run, 1, plan.objective_ms, show), plan.objective_ms)
    memory = Resident(resident.replicas_bytes)
    with progress(2 * overload.QUIET_S + plan.overload_s) as show:
        test = LoadTest(generator, run, 1, plan.objective_ms, show)
        flood = overload.flood(test, normal, plan.times, plan.overload_s, plan.objective_ms, memory)
    if not plan.deadlines_ms:
        return Found(normal, flood, None)
    with progress(run_s) as show:
        test = LoadTest(generator, run, 1, plan.objective_ms, show)
        return Found(normal, flood, overload.mixed(test, normal, plan.deadlines_ms))


# --- output --------------------------------------------------------------------------------------


def _print(report: dict[str, Any], found: Found, checks: Sequence[Check]) -> None:
    peak = f"peak: {number(found.normal.peak_per_s)}/s within {report['objective_ms']:g} ms"
    caption = f"{peak}; {report['images']}\n{machine.phrase(report)}"
    output.print_table(PHASE_HEADER, _phase_cells(found), caption=caption)
    rows = [row for _, row in found.phases]
    print_deadlines(rows)
    print_refusals(rows)
    output.print_table(CHECK_HEADER, check_cells(checks))
    print_generator(found.flood.row, report["processes"])


def _phase_cells(found: Found) -> list[list[str]]:
    return [
        [
            *(name, cells(row)[0], number(row.median.goodput_per_s)),
            *(number(row.median.p50_ms), number(row.median.p99_ms), number(row.median.mean_batch)),
            f"{sum(row.median.errors.values()):,}",
        ]
        for name, row in found.phases
    ]


def _warn(found: Found) -> None:
    rows = [row for _, row in found.phases]
    warn_if_lagged(rows)
    warn_if_stolen(rows)
