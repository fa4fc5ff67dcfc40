"""`serve-app bench fuzz`: a config is served, and asked thousands of hostile things."""

import asyncio
import json
import shlex
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import click

from serve_app.bench import bars, machine, resident
from serve_app.bench.bars import Check
from serve_app.bench.torture import census
from serve_app.bench.torture.answers import HUNG, LEFT
from serve_app.bench.torture.fuzz import Report, fuzz
from serve_app.bench.torture.seeds import below, digits, seeds
from serve_app.bench.torture.surface import Material
from serve_app.cli.bench import local_service, output
from serve_app.cli.bench.checks import CHECK_HEADER, check_cells
from serve_app.cli.bench.local_service import Service, StartError
from serve_app.cli.bench.served import read
from serve_app.config import ConfigError
from serve_app.tokens import CLIENT_VARIABLE, authorization

MEMORY_MIB = 1_536.0
"""That the replicas may grow by at most, between cases: on a CPU glibc is told to keep a GiB that was freed for the
next batch (engine/cpu.py), beside what is at work: an image of 50 MP is 150 MB, and two are decoded at once."""
PEAK_MIB = 2_560.0
"""And for a moment: a WebP of 49 MP takes 1,100 MiB, times two."""
LOOK_EVERY = 50
SHOWN_FAILURES = 20


@dataclass
class _Replicas:
    """Of the service, looked at every LOOK_EVERY cases: to find their processes takes as long as some cases do."""

    service: Service
    done: Callable[[str], None]
    mib: list[float] = field(default_factory=list)
    cases: int = 0
    before: frozenset[int] = frozenset()
    after: frozenset[int] = frozenset()
    peak_mib: float = 0.0

    def begin(self) -> None:
        self.before = census.look(self.service.pid).replicas
        resident.forget_peaks(self.service.pid)  # to load a model takes more than to serve it
        self._look()

    def __call__(self) -> None:
        self.cases += 1
        if self.cases % LOOK_EVERY == 0:
            self._look()
        self.done("asking")

    def end(self) -> None:
        self._look()
        self.after = census.look(self.service.pid).replicas
        self.peak_mib = resident.peak_bytes(self.service.pid) / resident.MEBIBYTE

    def _look(self) -> None:
        self.mib.append(resident.replicas_bytes() / resident.MEBIBYTE)

    def checks(self) -> list[Check]:
        first = self.mib[0]
        return [
            Check("replicas that ended", len(self.before - self.after), "<=", 0, note=f"of {len(self.before)}"),
            Check("replicas' memory, most between cases over first", max(self.mib) - first, "<=", MEMORY_MIB, "MiB"),
            Check("replicas' memory, peak over first", self.peak_mib - first, "<=", PEAK_MIB, "MiB"),
        ]


def run(
    *,
    file: Path,
    folder: Path | None,
    cases: int,
    first: int,
    seed: int,
    concurrency: int,
    limit_s: float,
    as_json: bool,
) -> int:
    """Ask and print; the exit status."""
    try:
        served = read(file)
        more = below(folder) if folder else []
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    try:
        with local_service.running(served.content) as service, output.steps(cases) as done:
            replicas = _Replicas(service, done)
            material = Material([*seeds().values(), *more], _model(service.url))
            numbers = range(first, first + cases)
            replicas.begin()
            report = asyncio.run(fuzz(service.url, material, digits(), seed, numbers, concurrency, limit_s, replicas))
            replicas.end()
    except StartError as error:
        output.fail(str(error), 2)
    checks = [*_checks(report, cases), *replicas.checks()]
    findings = report.as_dict()
    for failure in findings["failures"]:
        failure["again"] = again(file, seed, failure["number"], folder)
    whole = {
        **machine.facts(),
        "file": str(file),
        "images": len(material.images),
        "concurrency": concurrency,
        **findings,
        "memory_mib": [round(mib, 1) for mib in replicas.mib],
        "peak_mib": round(replicas.peak_mib, 1),
        "checks": [check.as_dict() for check in checks],
    }
    if as_json:
        output.print_json(whole)
    else:
        _print(whole, report, checks, folder)
    return bars.exit_status(checks)


def again(file: str | Path, seed: int, number: int, folder: Path | None = None) -> str:
    """The command that makes that case anew, alone."""
    images = ("--images", str(folder)) if folder else ()
    told = ("--seed", str(seed), "--first", str(number), "--cases", "1")
    return shlex.join(["serve-app", "bench", "fuzz", str(file), *told, *images])


def _model(url: str) -> str:
    """Raises StartError where it may not be asked."""
    request = urllib.request.Request(f"{url}/v2/models", headers=authorization())  # noqa: S310 - our own service
    try:
        with urllib.request.urlopen(request, timeout=local_service.PROBE_TIMEOUT_S) as answer:  # noqa: S310
            return str(json.load(answer)["models"][0])
    except HTTPError as error:
        hint = f": set {CLIENT_VARIABLE} to a token of it" if error.code == 401 else ""
        raise StartError(f"{url}/v2/models answers {error.code}{hint}") from None


def _checks(report: Report, cases: int) -> list[Check]:
    by_outcome = Counter(failure.outcome for failure in report.failures)
    hung = by_outcome.pop(HUNG, 0)
    told = ", ".join(f"{n} x {outcome}" for outcome, n in sorted(by_outcome.items()))
    meanwhile = f"of {report.neighbours:,} meanwhile"
    return [
        Check("cases asked", report.cases, ">=", cases, note=report.lost),
        Check("answers that are not documented", by_outcome.total(), "<=", 0, note=told),
        Check("hung", hung, "<=", 0),
        Check("good images wrong or not answered", len(report.wrong), "<=", 0, note=meanwhile),
    ]


def _print(whole: dict[str, Any], report: Report, checks: list[Check], folder: Path | None) -> None:
    outcomes = sorted({outcome for _, outcome in report.outcomes}, key=lambda each: (not each.isdecimal(), each))
    words = {LEFT: "no answer due"}
    kinds = sorted({kind for kind, _ in report.outcomes})
    rows = [[kind, *(f"{report.outcomes[kind, each] or ''}" for each in outcomes)] for kind in kinds]
    caption = f"{report.cases:,} cases, seed {report.seed}, {whole['concurrency']} at once\n{machine.phrase(whole)}"
    output.print_table(("case", *(words.get(each, each) for each in outcomes)), rows, caption=caption)
    output.print_table(CHECK_HEADER, check_cells(checks))
    for problem in report.wrong[:SHOWN_FAILURES]:
        output.print_line(problem)
    for failure in report.failures[:SHOWN_FAILURES]:
        command = again(whole["file"], report.seed, failure.number, folder)
        output.print_line(f"{failure.kind} {failure.number}: {failure.outcome}; again: {command}")
