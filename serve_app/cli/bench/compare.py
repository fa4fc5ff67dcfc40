"""`serve-app bench compare`: each contestant is started, measured and stopped, one after the other."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from serve_app import architectures, weights
from serve_app.bench import compare, forward, machine, pipeline
from serve_app.bench.compare import Contestant, Terms
from serve_app.bench.forward import Setup
from serve_app.bench.generator import GeneratorError, Run
from serve_app.bench.images import Images
from serve_app.bench.isolated import Died
from serve_app.bench.load import LoadTest, Row
from serve_app.cli.bench import local_service, output
from serve_app.cli.bench.local_service import StartError, on_device
from serve_app.cli.bench.output import number, progress, read_images, warn_if_busy
from serve_app.cli.bench.rows import spread, warn_if_lagged, warn_if_stolen
from serve_app.config import Args, ConfigError

RATES_OF_SATURATION = (0.3, 0.6, 0.9)
"""The open loop's rates unless they are given, of what our own closed loop reached."""
BARE_SECONDS = 5.0
BARE_REPEATS = 3
BARE_IMAGES = 100
RETRIES = 3
HEADER = ("service", "done/s", "", "p50 ms", "p99 ms", "", "batch", "failed")
"""Behind a figure the least and the most of its repeats."""


@dataclass(frozen=True)
class Result:
    """What one contestant did: the closed loop first, then the open loop's rates; or why it was not measured."""

    name: str
    rows: list[Row]
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "error": self.error, "rows": [row.as_dict() for row in self.rows]}


@dataclass(frozen=True)
class _Load:
    """What every contestant is put under."""

    pictures: Images
    template: Run
    repeats: int
    concurrencies: tuple[int, ...]
    rates: tuple[float, ...] | None
    environment: dict[str, str]


def run(
    *,
    arch: str | None,
    weights_name: str | None,
    device: str,
    max_batch_size: int | None,
    threads: int | None,
    images: Path | None,
    image_size: tuple[int, int],
    rates: tuple[float, ...] | None,
    concurrencies: tuple[int, ...] | None,
    duration_s: float,
    warm_up_s: float,
    repeats: int,
    only: tuple[str, ...] | None,
    as_json: bool,
    csv_path: Path | None,
    plot: Path | None,
) -> int:
    """Measure and print; the exit status."""
    output.check_figure_path(plot)
    output.check_writable(csv_path, "--csv")
    pictures = read_images(images, image_size)
    try:
        arch = _arch(arch, weights_name)
        device = device if device == "stub" else machine.resolved_device(device)
        with ExitStack() as stack:
            path = weights_name or stack.enter_context(compare.random_weights(arch))
            terms = _terms(arch, path, device, max_batch_size, threads)
            contestants = _selected(compare.contestants(terms), only)
            warn_if_busy()
            bare = _bare(terms, device, _some_of(pictures.files)) if device != "stub" else []
            template = Run("", duration_s, warm_up_s)
            in_flight = concurrencies or (2 * terms.max_batch_size,)
            load = _Load(pictures, template, repeats, in_flight, rates, on_device(device))
            results = list(_measured(contestants, load))
    except (ConfigError, Died) as error:
        output.fail(str(error), 2)
    report = {
        **machine.facts(),
        "images": pictures.description,
        "arch": arch,
        "device": device,
        "max_batch_size": terms.max_batch_size,
        "duration_s": duration_s,
        "repeats": repeats,
        "bare": bare,
        "results": [result.as_dict() for result in results],
    }
    if not as_json:
        _print(report, results)
    every_row = [row for result in results for row in result.rows]
    warn_if_lagged(every_row)
    warn_if_stolen(every_row)
    print(json.dumps(report), flush=True)
    if csv_path:
        rows = [{"service": result.name, **row.as_dict()} for result in results for row in result.rows]
        output.write_csv(csv_path, rows)
    if plot:
        from serve_app.bench import figures

        tables = [(header, cells) for _, header, cells in _tables(report, results)]
        figures.save(plot, f"{arch} on {device}: compared", report, figures.compare_panels(report), tables)
    if not every_row:
        return 2
    return 1 if any(result.error for result in results) else 0


def _arch(arch: str | None, weights_name: str | None) -> str:
    """That of the weights where they say. Raises ConfigError."""
    if arch is not None:
        architectures.check(arch)
    return weights.load(Args(arch=arch, weights=weights_name)).spec.arch if weights_name else arch or "resnet18"


def _terms(arch: str, weights_path: str, device: str, max_batch_size: int | None, threads: int | None) -> Terms:
    on_gpu = device.startswith("cuda")
    return Terms(
        {"arch": arch, "weights": weights_path, "device": device.partition(":")[0]},
        max_batch_size=max_batch_size or (64 if on_gpu or device == "stub" else 16),
        num_cpus=threads or (1 if device == "stub" else machine.num_cores()),
        num_gpus=int(on_gpu),
    )


def _selected(contestants: Sequence[Contestant], only: tuple[str, ...] | None) -> Sequence[Contestant]:
    names = [contestant.name for contestant in contestants]
    if only and (unknown := [name for name in only if name not in names]):
        raise ConfigError(f"--only {', '.join(unknown)}: there is {'; '.join(names)}")
    return [contestant for contestant in contestants if not only or contestant.name in only]


# --- measuring -----------------------------------------------------------------------------------


def _some_of(files: Sequence[bytes]) -> Sequence[bytes]:
    """BARE_IMAGES of them at most, from the whole of a folder that may be sorted by kind."""
    return files[:: -(-len(files) // BARE_IMAGES)]


def _bare(terms: Terms, device: str, files: Sequence[bytes]) -> list[dict[str, Any]]:
    """What the device does without a service around it: images/s."""
    setup = Setup(terms.args["arch"], device, "auto", terms.num_cpus, weights=terms.args["weights"])
    size = terms.max_batch_size
    with output.stderr.status("the bare loop, without a service"):
        lesson = forward.lesson(setup, files, BARE_IMAGES, size, BARE_REPEATS).as_dict()
        alone = median(pipeline.one_by_one_per_s(setup, files, BARE_SECONDS) for _ in range(BARE_REPEATS))
        beside = median(pipeline.images_per_s(setup, files, size, BARE_SECONDS) for _ in range(BARE_REPEATS))
    batches = f"batches of {size}"
    return [
        {"name": "forward alone, one by one", "images_per_s": lesson["one_by_one_images_per_s"]},
        {"name": f"forward alone, {batches}", "images_per_s": lesson["batched_images_per_s"]},
        {"name": "decode and forward, one by one", "images_per_s": round(alone, 2)},
        {"name": f"decode and forward, {batches}", "images_per_s": round(beside, 2)},
    ]


def _measured(contestants: Sequence[Contestant], load: _Load) -> Iterator[Result]:
    rates = load.rates
    for i, contestant in enumerate(contestants, start=1):
        what = f"{i} of {len(contestants)}: {contestant.name}"
        try:
            with _load_test(contestant, load, what) as test:
                rows = [test.at_concurrency(concurrency) for concurrency in load.concurrencies]
                rates = rates or _rates(rows[0])
                rows += [test.at_rate(rate) for rate in rates]
        except (StartError, GeneratorError) as error:
            output.stderr.print(f"{what}: {error}", style="red", markup=False, soft_wrap=True)
            yield Result(contestant.name, [], str(error))
            continue
        yield Result(contestant.name, rows)


@contextmanager
def _load_test(contestant: Contestant, load: _Load, what: str) -> Iterator[LoadTest]:
    """A load test of the contestant, while it runs. Raises StartError, and GeneratorError when it is used."""
    output.stderr.print(what)
    environment = {**contestant.environment, **load.environment}
    with (
        local_service.under_load(contestant.content, load.pictures, environment) as (url, generator),
        progress(load.template.warm_up_s + load.template.duration_s) as show,
    ):
        template = replace(load.template, url=url)
        yield LoadTest(
            generator, template, load.repeats, None, lambda run, at: show(f"{what}: {run}", at), retries=RETRIES
        )


def _rates(saturated: Row) -> tuple[float, ...]:
    most = saturated.median.completed_per_s
    if not most:
        raise ConfigError("the first service answered nothing in its closed loop's time: give --rate, or --duration-s")
    return tuple(float(f"{share * most:.2g}") for share in RATES_OF_SATURATION)


# --- output --------------------------------------------------------------------------------------


def _tables(report: dict[str, Any], results: Sequence[Result]) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    """Title, header, rows: the bare loop, the closed loop, then each rate of the open loop."""
    found: list[tuple[str, Sequence[str], list[list[str]]]] = []
    if report["bare"]:
        bare = [[row["name"], number(row["images_per_s"]), number(1e3 / row["images_per_s"])] for row in report["bare"]]
        found.append(("without a service", ("loop", "images/s", "ms an image"), bare))
    lengths = [len(result.rows) for result in results]
    for i in range(max(lengths, default=0)):
        run = next(result.rows[i].run for result in results if result.rows)
        title = (
            f"{run.concurrency} requests in flight" if run.concurrency else f"{run.rate_per_s:g} requests/s, Poisson"
        )
        found.append((title, HEADER, [_cells(result, i) for result in results]))
    return found


def _cells(result: Result, index: int) -> list[str]:
    if not result.rows:
        return [result.name, "failed", *[output.NO_FIGURE] * (len(HEADER) - 2)]
    row = result.rows[index]
    s = row.median
    done, _, p99 = spread(row)
    latencies = [number(s.p50_ms), number(s.p99_ms), p99]
    return [
        result.name,
        number(s.completed_per_s),
        done,
        *latencies,
        number(s.mean_batch),
        f"{sum(s.errors.values()):,}",
    ]


def _print(report: dict[str, Any], results: Sequence[Result]) -> None:
    for title, header, cells in _tables(report, results):
        output.print_table(header, cells, title=title)
    output.print_line(
        f"{report['arch']} on {report['device']}, max_batch_size {report['max_batch_size']}; {report['images']}"
    )
    output.print_line(machine.phrase(report))
