"""`serve-app bench autoscale`: configs are served one after the other, under the same traffic that rises and falls."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from serve_app.bench import bars, machine
from serve_app.bench.autoscale import bars as autoscale_bars
from serve_app.bench.autoscale import trial
from serve_app.bench.autoscale.seen import seen
from serve_app.bench.autoscale.traffic import SHAPES, Traffic, shaped
from serve_app.bench.autoscale.trial import Trial
from serve_app.bench.autoscale.watch import Unseen, Watch, answering
from serve_app.bench.bars import Check
from serve_app.bench.generator import Generator, GeneratorError, Run, default_processes
from serve_app.bench.images import Images
from serve_app.bench.serve_api import ServeApi, users_token
from serve_app.bench.status import EXPIRED, REFUSED
from serve_app.cli.bench import local_service, output
from serve_app.cli.bench.checks import CHECK_HEADER, check_cells
from serve_app.cli.bench.local_service import PATH, StartError
from serve_app.cli.bench.output import number, progress, read_images, warn_if_busy
from serve_app.cli.bench.rows import warn_if_lagged, warn_if_stolen
from serve_app.cli.bench.served import Served, read
from serve_app.config import ConfigError

LOOK_TIMEOUT_S = 2.0
"""A busy controller is asked again rather than waited for."""

LOW_SHARE = 0.5
"""Of what one replica can do: the low rate, unless it is given."""
REPLICA_HEADER = ("traffic", "decided s", "start-up", "ready", "back", "most", "reversals", "replica s")
PHASE_HEADER = ("traffic", "load", "offered/s", "good/s", "p99 ms", "refused", "expired", "failed")


@dataclass(frozen=True)
class Done:
    """One shape of traffic, sent to one service."""

    service: str
    trial: Trial

    @property
    def checks(self) -> list[Check]:
        return autoscale_bars.checks(self.trial)

    @property
    def name(self) -> str:
        return f"{self.trial.traffic.name} {self.service}"

    def as_dict(self) -> dict[str, Any]:
        checks = [check.as_dict() for check in self.checks]
        return {"service": self.service, **self.trial.as_dict(), "checks": checks}


def run(
    *,
    files: tuple[Path, ...],
    shapes: tuple[str, ...],
    rate: float | None,
    times: float,
    high_s: float,
    after_s: float,
    images: Path | None,
    image_size: tuple[int, int],
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
    services = _services(files)
    low_per_s = rate or _low_per_s(next(iter(services.values())))
    traffics = _traffics(shapes, low_per_s, times, high_s, after_s)
    pictures = read_images(images, image_size)
    warn_if_busy()
    processes = processes or default_processes()
    template = Run("", 0.0, seed=seed, timeout_s=timeout_s)
    try:
        done = list(_measured(services, traffics, _Load(pictures, template, processes)))
    except (StartError, GeneratorError, Unseen) as error:
        output.fail(str(error), 2)
    report = {
        **machine.facts(),
        "files": [str(file) for file in files],
        "images": pictures.description,
        "low_per_s": round(low_per_s, 3),
        "times": times,
        "seed": seed,
        "processes": processes,
        "trials": [one.as_dict() for one in done],
    }
    if as_json:
        output.print_json(report)
    else:
        _print(report, done)
    rows = [one.trial.whole for one in done]
    warn_if_lagged(rows)
    warn_if_stolen(rows)
    if csv_path:
        output.write_csv(csv_path, report["trials"])
    if plot:
        from serve_app.bench import figures
        from serve_app.bench.autoscale import panels

        title = f"Autoscaling of {', '.join(services)}"
        figures.save(plot, title, report, panels.panels(report), _tables(done), panels.COLUMNS)
    return bars.exit_status([check for one in done for check in one.checks])


# --- the configs ---------------------------------------------------------------------------------


def _services(files: Sequence[Path]) -> dict[str, Served]:
    """By the name of the file. Raises click's errors."""
    found: dict[str, Served] = {}
    for file in files:
        if file.stem in found:
            raise click.BadParameter(f"two of them are named {file.stem}: rename one", param_hint="FILE")
        try:
            found[file.stem] = _autoscaled(read(file))
        except ConfigError as error:
            raise click.BadParameter(f"{file}: {error}", param_hint="FILE") from None
    return found


def _autoscaled(served: Served) -> Served:
    """Raises ConfigError for one with a fixed number of replicas."""
    if not served.deployment.get("autoscaling_config") and served.deployment.get("num_replicas") != "auto":
        raise ConfigError("autoscaling_config is not set: the number of replicas is fixed")
    return served


def _low_per_s(served: Served) -> float:
    """LOW_SHARE of what one replica with full batches can do. Raises click's errors where only the device knows."""
    args, size = served.args, served.user_config.max_batch_size
    if args.device != "stub":
        raise click.UsageError("give --rate: what one replica can do is known of a stub device alone")
    return LOW_SHARE * 1e3 * size / (args.stub.base_ms + args.stub.per_image_ms * size)


def _traffics(shapes: Sequence[str], low_per_s: float, times: float, high_s: float, after_s: float) -> list[Traffic]:
    """Raises click's errors."""
    if unknown := [name for name in shapes if name not in SHAPES]:
        raise click.BadParameter(f"{', '.join(unknown)}: there is {', '.join(SHAPES)}", param_hint="--shape")
    return [shaped(name, low_per_s, times, high_s, after_s) for name in shapes]


# --- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Load:
    pictures: Images
    template: Run
    processes: int


def _measured(services: dict[str, Served], traffics: Sequence[Traffic], load: _Load) -> Iterator[Done]:
    """Each service is started anew for each shape: the replicas of the one before would be there still."""
    pairs = [(traffic, name, served) for traffic in traffics for name, served in services.items()]
    for number_, (traffic, name, served) in enumerate(pairs, 1):
        what = f"{number_} of {len(pairs)}: {traffic.name}, {name}"
        output.stderr.print(what)
        yield Done(name, _trial(served, traffic, load, what))


def _trial(served: Served, traffic: Traffic, load: _Load, what: str) -> Trial:
    """Raises StartError, GeneratorError and Unseen."""
    with (
        local_service.running(served.content) as service,
        Generator(load.pictures.files, load.processes) as generator,
        progress(traffic.duration_s) as show,
    ):
        api = ServeApi(service.dashboard_url(), users_token())
        url = service.url + PATH
        with Watch(
            lambda: seen(api.state(LOOK_TIMEOUT_S), served.name), lambda: answering(url, load.pictures.files[0])
        ) as watch:
            template = replace(load.template, url=url)
            on_progress = partial(show, what)
            return trial.send(generator, template, traffic, watch, served.user_config.latency_slo_ms, on_progress)


# --- output --------------------------------------------------------------------------------------


def _print(report: dict[str, Any], done: Sequence[Done]) -> None:
    for header, cells in _tables(done):
        output.print_table(header, cells)
    rates = f"{report['low_per_s']:g}/s and {report['times']:g} times that"
    output.print_line(f"{rates}; {report['images']}\n{machine.phrase(report)}")


def _tables(done: Sequence[Done]) -> list[tuple[Sequence[str], list[list[str]]]]:
    checks = [[one.name, *cells] for one in done for cells in check_cells(one.checks)]
    return [
        (REPLICA_HEADER, [_replica_cells(one) for one in done]),
        (PHASE_HEADER, [cells for one in done for cells in _phase_cells(one)]),
        (("traffic", *CHECK_HEADER), checks),
    ]


def _replica_cells(one: Done) -> list[str]:
    """In the order of REPLICA_HEADER."""
    figures = one.trial.as_dict()
    times = [number(figures[key]) for key in ("decided_s", "start_up_s", "ready_s", "back_s")]
    counts = [str(figures[key]) for key in ("most_running", "reversals")]
    return [one.name, *times, *counts, number(figures["replica_seconds"])]


def _phase_cells(one: Done) -> Iterator[list[str]]:
    """In the order of PHASE_HEADER."""
    for load, row in one.trial.phases.items():
        s = row.median
        counts = [s.errors.get(status, 0) for status in (REFUSED, EXPIRED)]
        yield [
            *(one.name, load),
            *(number(value) for value in (s.offered_per_s, s.goodput_per_s, s.p99_ms)),
            *(f"{count:,}" for count in (*counts, sum(s.errors.values()) - sum(counts))),
        ]
