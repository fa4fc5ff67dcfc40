"""`serve-app bench soak`: a config is served for half an hour near its capacity, among hostile requests."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from serve_app.bench import bars, machine
from serve_app.bench.bars import Check
from serve_app.bench.generator import Generator, GeneratorError, Run, default_processes
from serve_app.bench.images import Images
from serve_app.bench.isolated import Died
from serve_app.bench.known import Reference, Unknown, reference
from serve_app.bench.load import LoadTest, Row
from serve_app.bench.torture import census, soak, soak_bars
from serve_app.bench.torture.census import Census
from serve_app.bench.torture.hostile import Hostility
from serve_app.bench.torture.seeds import seeds
from serve_app.bench.torture.soak import ALL, Minute, Plan, Soaked, Unmeasurable
from serve_app.bench.torture.trend import Trend
from serve_app.cli.bench import local_service, output
from serve_app.cli.bench.checks import CHECK_HEADER, check_cells
from serve_app.cli.bench.fuzz import again
from serve_app.cli.bench.local_service import PATH, Service, StartError
from serve_app.cli.bench.output import NO_FIGURE, number, progress, read_images, warn_if_busy
from serve_app.cli.bench.rows import print_generator, warn_if_lagged, warn_if_stolen
from serve_app.cli.bench.served import Served, read
from serve_app.config import ConfigError

BATCHES_AT_ONCE = 2
"""In the closed loop, for each replica: one on its device, and one that waits."""
WARM_UP_S = 2.0
SHOWN_FAULTS = 20
MINUTE_HEADER = ("minute", "good", "failed", "p50 ms", "p99", "hostile", "not borne", "MiB", "stolen")
USAGE_HEADER = ("processes", "MiB first", "last", "MiB/h", "noise", "files first", "last", "threads", "last")
HOSTILE_HEADER = ("hostile", "sent", "results")


def run(
    *,
    file: Path,
    images: Path | None,
    image_size: tuple[int, int],
    minutes: int,
    share: float,
    bad: float,
    cases: int,
    concurrency: int | None,
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
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="FILE") from None
    pictures = read_images(images, image_size)
    warn_if_busy()
    processes = processes or default_processes()
    concurrency = concurrency or _concurrency(served)
    plan = Plan(minutes, share, bad)
    template = Run("", duration_s, WARM_UP_S, seed=seed, timeout_s=timeout_s)
    try:
        peak, found, known = _measured(served, pictures, plan, template, concurrency, processes, cases)
    except (StartError, GeneratorError, Unknown, Unmeasurable, Died) as error:
        output.fail(str(error), 2)
    checks = soak_bars.checks(found, known)
    report = {
        **machine.facts(),
        "file": str(file),
        "images": pictures.description,
        "known_images": known.num_known,
        "peak_per_s": round(peak.median.completed_per_s, 3),
        "concurrency": concurrency,
        "share": share,
        "bad": bad,
        "cases": cases,
        "seed": seed,
        "processes": processes,
        "minute_s": soak.MINUTE_S,
        "warm_up_minutes": soak.WARM_UP_MINUTES,
        "settle_minutes": plan.settle_minutes,
        "peak": peak.as_dict(),
        "good": found.row.as_dict(),
        "hostile": found.hostile_table(),
        "faulty_cases": [asdict(outcome) for outcome in found.faulty_cases()],
        "minutes": [minute.as_dict() for minute in found.minutes],
        "looks": _looks(found.census),
        "trends": {name: None if trend is None else trend.as_dict() for name, trend in found.trends.items()},
        "checks": [check.as_dict() for check in checks],
    }
    if as_json:
        output.print_json(report)
    else:
        _print(report, found, checks)
    warn_if_lagged([found.row])
    warn_if_stolen([peak, found.row])
    if csv_path:
        output.write_csv(csv_path, report["minutes"])
    if plot:
        from serve_app.bench import figures
        from serve_app.bench.torture import soak_panels

        tables: list[figures.Table] = [
            (CHECK_HEADER, check_cells(checks)),
            (USAGE_HEADER, _usage_cells(found)),
            (HOSTILE_HEADER, _hostile_cells(found)),
            (MINUTE_HEADER, _minute_cells(found.minutes)),
        ]
        figures.save(plot, f"Soak of {file.name}", report, soak_panels.panels(report), tables)
    return bars.exit_status(checks)


def _concurrency(served: Served) -> int:
    replicas = served.deployment.get("num_replicas") or 1
    return BATCHES_AT_ONCE * served.user_config.max_batch_size * (replicas if isinstance(replicas, int) else 1)


# --- measuring -----------------------------------------------------------------------------------


def _measured(
    served: Served, pictures: Images, plan: Plan, template: Run, concurrency: int, processes: int, cases: int
) -> tuple[Row, Soaked, Reference]:
    """The peak, what came of the soak, and what was known before. Raises what `run` catches."""
    with ExitStack() as stack:
        service = _started(stack, served)
        generator = stack.enter_context(Generator(pictures.files, processes))
        url = service.url + PATH
        known = reference(url, pictures.files, template.timeout_s)
        with progress(template.warm_up_s + template.duration_s) as show:
            one = Run(url, template.duration_s, template.warm_up_s, seed=template.seed, timeout_s=template.timeout_s)
            peak = soak.peak_row(LoadTest(generator, one, soak.PEAK_REPEATS, None, show), concurrency)
        # The images of `bench fuzz`: a case that fails here can be asked again there.
        hostility = Hostility(
            url, tuple(seeds().values()), known.model, one.seed, cases, np.empty(0), soak.HOSTILE_LIMIT_S
        )
        with progress(plan.duration_s) as show:
            watched = Census(partial(census.look, service.pid))
            found = soak.soak(generator, one, plan, peak.median.completed_per_s, hostility, known, watched, show)
    return peak, found, known


def _started(stack: ExitStack, served: Served) -> Service:
    with output.stderr.status("starting"):
        return stack.enter_context(local_service.running(served.content))


def _looks(watched: Census) -> dict[str, list[float]]:
    """MiB of resident memory at each look."""
    memory = {kind: [round(mib, 2) for mib in watched.memory_mib([kind])] for kind in watched.kinds}
    return {"seconds": [round(seconds, 2) for seconds in watched.seconds], **memory}


# --- output --------------------------------------------------------------------------------------


def _print(report: dict[str, Any], found: Soaked, checks: Sequence[Check]) -> None:
    mix = f"{report['share']:g} of it offered, {100 * report['bad']:g} % hostile, seed {report['seed']}"
    caption = f"peak: {number(report['peak_per_s'])}/s; {mix}; {report['images']}\n{machine.phrase(report)}"
    output.print_table(MINUTE_HEADER, _minute_cells(found.minutes), caption=caption)
    settled = f"MiB/h without the first {report['settle_minutes']} minutes, first and last minute without the warm-up"
    output.print_table(USAGE_HEADER, _usage_cells(found), caption=settled)
    output.print_table(HOSTILE_HEADER, _hostile_cells(found))
    output.print_table(CHECK_HEADER, check_cells(checks))
    for outcome in found.faulty_cases()[:SHOWN_FAULTS]:
        command = again(report["file"], report["seed"], outcome.number)
        output.print_line(
            f"{outcome.kind} {outcome.number}: {outcome.result} at {outcome.at_s:.0f} s; again: {command}"
        )
    print_generator(found.row, report["processes"])


def _minute_cells(minutes: Sequence[Minute]) -> list[list[str]]:
    return [
        [
            *(f"{one.minute}", f"{one.good.requests:,}", f"{sum(one.good.errors.values()):,}"),
            *(number(one.good.p50_ms), number(one.good.p99_ms)),
            *(f"{one.hostile:,}", f"{one.hostile_failed:,}"),
            *(number(_replicas_mib(one)), number(one.stolen_cores, 2)),
        ]
        for one in minutes
    ]


def _replicas_mib(minute: Minute) -> float | None:
    usage = minute.usage.get(census.REPLICAS)
    return usage.memory_mib if usage else None


def _usage_cells(found: Soaked) -> list[list[str]]:
    """By kind of process, from the first minute after the warm-up to the last; and the slope of its memory."""
    rows = []
    for kind in found.census.kinds:
        first, last = (found.counted[at].usage.get(kind) for at in (0, -1))
        if not first or not last:
            continue
        rows.append(
            [
                *(kind, number(first.memory_mib), number(last.memory_mib), *_trend_cells(found.trends[kind])),
                *(number(first.descriptors), number(last.descriptors), number(first.threads), number(last.threads)),
            ]
        )
    blank = NO_FIGURE
    return [*rows, [ALL, blank, blank, *_trend_cells(found.trends[ALL]), *[blank] * 4]]


def _trend_cells(trend: Trend | None) -> list[str]:
    if trend is None:
        return [NO_FIGURE, NO_FIGURE]
    return [f"{trend.per_hour:+.1f}", f"± {trend.noise_per_hour:.1f}"]


def _hostile_cells(found: Soaked) -> list[list[str]]:
    return [
        [kind, f"{sum(results.values()):,}", ", ".join(f"{n:,} x {result}" for result, n in results.items())]
        for kind, results in found.hostile_table().items()
    ]
