"""`serve-app bench torture`: hostile input, faults and a soak, one after the other, into one report."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serve_app.bench import machine
from serve_app.bench.torture.report import Part, counted, exit_status, render
from serve_app.cli.bench import output
from serve_app.processes import sigterm_unwinds

SERVED, TIMED = "deploy/local.yaml", "deploy/stub-soak.yaml"
"""A network that answers; and a device that only takes its time, whose peak is the same on every machine."""
STOP_TIMEOUT_S = 120
"""A command that is told to stop takes its Ray instance down first."""


def run(*, quick: bool, seed: int, images: Path | None, path: Path, json_path: Path | None) -> int:
    """Torture, write after each part, and print; the exit status."""
    output.check_writable(path, "--output")
    output.check_writable(json_path, "--json")
    if missing := [file for file in (SERVED, TIMED) if not Path(file).is_file()]:
        output.fail(f"there is no {missing[0]} here: call it in a checkout of the repository", 2)
    output.warn_if_busy()
    facts, plot = machine.facts(), plot_beside(path)
    with sigterm_unwinds(), _empty_corpus() as corpus:
        chosen = quick_parts(seed, corpus, plot) if quick else long_parts(seed, corpus, plot, images)
        for number, part in enumerate(chosen, 1):
            output.stderr.print(f"{number} of {len(chosen)}: {part.title}", markup=False)
            _play(part)
            path.write_text(render(chosen, facts), "utf-8")
            if json_path is not None:
                whole = {**facts, "seed": seed, "parts": [each.as_dict() for each in chosen]}
                json_path.write_text(json.dumps(whole, indent=2) + "\n", "utf-8")
    output.print_line(f"{counted(chosen)}; all of it in {path}")
    return exit_status(chosen)


def plot_beside(report: Path) -> Path:
    """Of the soak: torture-soak.html beside torture-report.md."""
    return report.with_name(f"{report.stem.removesuffix('-report')}-soak.html")


@contextmanager
def _empty_corpus() -> Iterator[Path]:
    """Else a run would start from where the one before got to. Kept if something is found."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-decode-"))
    try:
        yield folder
    finally:
        if not any(folder.glob("findings/*")):
            shutil.rmtree(folder)


def long_parts(seed: int, corpus: Path, plot: Path, images: Path | None) -> Sequence[Part]:
    more = ("--images", str(images)) if images else ()
    told = ("--seed", str(seed), "--json")
    fuzzed = ("--output", str(corpus), *told)
    soaked = ("--image-size", "32x32", "--plot", str(plot), *told)
    return (
        Part("Hostile images and HTTP", ("fuzz", SERVED, "--cases", "20000", *more, *told)),
        Part("The decoder, guided by coverage", ("fuzz-decode", "--seconds", "600", *fuzzed)),
        Part("Faults under load", ("faults", *told)),
        Part("Half an hour at 0.8 of the peak", ("soak", TIMED, "--minutes", "30", *soaked)),
    )


def quick_parts(seed: int, corpus: Path, plot: Path) -> Sequence[Part]:
    told = ("--seed", str(seed), "--json")
    fuzzed = ("--output", str(corpus), *told)
    soaked = ("--image-size", "32x32", "--plot", str(plot), *told)
    return (
        Part("Hostile images and HTTP", ("fuzz", SERVED, "--cases", "1000", *told)),
        Part("The decoder, guided by coverage", ("fuzz-decode", "--seconds", "20", *fuzzed)),
        Part("A fault under load", ("faults", "--only", "kill replica", *told)),
        Part("Three minutes at 0.8 of the peak", ("soak", TIMED, "--minutes", "3", *soaked)),
    )


def _play(part: Part) -> None:
    """What it says of its progress is seen by whoever waits."""
    began = time.monotonic()
    command = [sys.executable, "-m", "serve_app", "bench", *part.arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            stdout, _ = process.communicate()
        except BaseException:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
            raise
    part.ended(process.returncode, time.monotonic() - began, stdout)
