"""`serve-app bench infer`: the Open Inference Protocol beside native requests."""

import asyncio
from pathlib import Path

import aiohttp

from serve_app.bench import bars, infer, machine
from serve_app.bench.infer import InferError, Rounds
from serve_app.cli.bench import local_service, output
from serve_app.cli.bench.output import number, read_images, warn_if_busy

HEADER = ("how", "images/s", "over native")


def run(
    *,
    url: str,
    count: int,
    rounds: int,
    images: Path | None,
    image_size: tuple[int, int],
    timeout_s: float,
    as_json: bool,
) -> int:
    """Measure and print; the exit status."""
    pictures = read_images(images, image_size)
    if problem := local_service.not_ready(url):
        output.fail(problem, 2)
    warn_if_busy()
    files = [pictures.files[i % len(pictures.files)] for i in range(count)]
    try:
        with output.steps(rounds + 1) as done:
            found = asyncio.run(infer.measure(url, files, rounds, timeout_s, done))
    except (InferError, aiohttp.ClientError, TimeoutError, ValueError) as error:
        output.fail(f"{url}: {error or type(error).__name__}", 2)
    report = {**machine.facts(), "url": url, "images": pictures.description, **found.as_dict()}
    if as_json:
        output.print_json(report)
    else:
        _print(report, found)
    return bars.exit_status(found.checks())


def _print(report: dict[str, object], found: Rounds) -> None:
    notes = [f"{check.measured:.2f} ({check.note})" for check in found.checks()]
    rows = [[mode, number(found.per_s(mode)), note] for mode, note in zip(infer.MODES, ["", *notes], strict=True)]
    caption = f"{found.num_images} images at once; {report['images']}\n{machine.phrase(report)}"
    output.print_table(HEADER, rows, caption=caption)
