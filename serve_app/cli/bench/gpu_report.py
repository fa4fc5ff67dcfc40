"""`serve-app bench gpu-report`: every figure that needs a GPU, in one run, into one file."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from serve_app import architectures, weights
from serve_app.bench import compare, machine
from serve_app.bench.generator import Run
from serve_app.bench.gpu_report import caches, gpu, leftovers, verdicts
from serve_app.bench.gpu_report.report import Report, Row
from serve_app.bench.gpu_report.scale import FULL, QUICK, Scale
from serve_app.bench.gpu_report.subject import Subject
from serve_app.bench.gpu_report.task import Context, Serve
from serve_app.bench.gpu_report.tasks import tasks
from serve_app.bench.images import Images
from serve_app.bench.load import LoadTest
from serve_app.cli.bench import local_service, markdown, output
from serve_app.cli.bench.local_service import on_device
from serve_app.cli.bench.output import progress, read_images, warn_if_busy
from serve_app.config import Args, ConfigError
from serve_app.processes import sigterm_unwinds

ARCH, QUICK_ARCH = "resnet50", "resnet18"
HEADER = ("what", "figure", "bar", "verdict")
STDOUT = Path("-")


def run(
    *,
    arch: str | None,
    weights_name: str | None,
    device: str,
    quick: bool,
    images: Path | None,
    image_size: tuple[int, int],
    budget_s: float,
    processes: int | None,
    path: Path,
    json_path: Path | None,
) -> int:
    """Measure, write and print; the exit status."""
    output.check_writable(path, "--output")
    if json_path != STDOUT:
        output.check_writable(json_path, "--json")
    pictures = read_images(images, image_size)
    scale = QUICK if quick else FULL
    if weights_name is None:
        arch = arch or (QUICK_ARCH if quick else ARCH)
    with ExitStack() as stack:
        stack.enter_context(sigterm_unwinds())
        try:
            subject = _subject(stack, arch, weights_name, device)
        except ConfigError as error:
            output.fail(str(error), 2)
        warn_if_busy()
        stack.enter_context(caches.empty())
        stack.enter_context(leftovers.marked())
        report = _report(subject, scale, pictures, budget_s)
        context = Context(subject, pictures, scale, report.known, _serve(subject, pictures, processes), report.left_s)
        report.run(context, partial(_showing, report), partial(_write, report, path, json_path), leftovers.end)
    if json_path == STDOUT:
        output.print_json(report.as_dict())
    else:
        _print(report, path)
    return report.exit_status()


def _subject(stack: ExitStack, arch: str | None, weights_name: str | None, device: str) -> Subject:
    """Raises ConfigError."""
    if arch is not None:
        architectures.check(arch)
    device = device if device == "stub" else machine.resolved_device(device)
    if weights_name is None:
        path = stack.enter_context(compare.random_weights(arch or ARCH))
        return Subject(arch or ARCH, path, True, device, machine.num_cores())
    if weights_name.endswith(weights.FILE_SUFFIXES):
        weights_name = str(Path(weights_name).expanduser().resolve())
    spec = weights.load(Args(arch=arch, weights=weights_name)).spec
    return Subject(spec.arch, weights_name, False, device, machine.num_cores())


def _report(subject: Subject, scale: Scale, pictures: Images, budget_s: float) -> Report:
    facts = {
        **machine.facts(),
        "arch": subject.arch,
        "weights": "random" if subject.random else subject.weights,
        "device": subject.device,
        "gpu": gpu.facts(subject.device),
        "images": pictures.description,
        "max_batch_size": scale.max_batch_size,
    }
    return Report(tasks(scale), partial(verdicts.lines, max_batch_size=scale.max_batch_size), facts, budget_s)


def _serve(subject: Subject, pictures: Images, processes: int | None) -> Serve:
    """By `serve-app run`, and sent to by `processes` of the generator."""

    @contextmanager
    def serve(
        content: dict[str, Any], environment: Mapping[str, str], run: Run, start_timeout_s: float
    ) -> Iterator[LoadTest]:
        environment = {**environment, **on_device(subject.device)}
        with (
            local_service.under_load(content, pictures, environment, processes, start_timeout_s) as (url, generator),
            progress(run.warm_up_s + run.duration_s) as show,
        ):
            yield LoadTest(generator, replace(run, url=url), 1, None, show)

    return serve


# --- output --------------------------------------------------------------------------------------


@contextmanager
def _showing(report: Report, row: Row, number: int) -> Iterator[None]:
    """A line before a row, and its figures after it."""
    what = f"{number} of {len(report.rows)}: {row.task.what}"
    output.stderr.print(f"{what} ({max(0.0, report.left_s()):.0f} s left)", markup=False, soft_wrap=True)
    with nullcontext() if row.task.serves else output.stderr.status(what):
        yield
    for line in row.lines:
        name, value, _, _, verdict, _, _ = markdown.cells(line, None)
        output.stderr.print(f"   {name}: {value}, {verdict}", markup=False, soft_wrap=True)


def _write(report: Report, path: Path, json_path: Path | None) -> None:
    _replace(path, markdown.render(report))
    if json_path is not None and json_path != STDOUT:
        _replace(json_path, json.dumps(report.as_dict(), indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    """At once: whoever is killed meanwhile leaves the text before it."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, "utf-8")
    part.replace(path)


def _print(report: Report, path: Path) -> None:
    for title, rows in markdown.sections(report):
        output.print_table(HEADER, [[row[0], row[1], row[3], row[4]] for row in rows], title=title)
    output.print_line(machine.phrase(report.facts))
    output.print_line(f"{markdown.counted(report)}; all of it in {path}")
