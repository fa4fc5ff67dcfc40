"""What each part of a torture found, against its bars: one file that a person reads."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve_app.bench import machine
from serve_app.bench.faults.outcome import told_failures
from serve_app.bench.torture.decode_fuzz import TARGET

CHECKS = ("check", "measured", "bar", "ok")
FIGURES = {"executions": "executions", "coverage": "edges", "features": "features", "corpus": "corpus"}
"""Of the decoder's fuzzing, by their keys."""
CASES = ("case", "of", "what came", "again")
SHOWN_CASES = 50
FAULTS = ("fault", "sent", "failed", "in flight on it", "least/s", "whole again, s", "ok")
ENDS: dict[int | None, tuple[bool, ...]] = {0: (), 1: (False,)}
"""What an exit status says of bars; any other, that something is not known."""
VERDICTS = {True: "yes", False: "**no**", None: "not measured"}


@dataclass
class Part:
    """One command of `serve-app bench`, which prints its findings as JSON."""

    title: str
    arguments: tuple[str, ...]
    status: int | None = None
    """Of its end; None: it has not been run to its end."""
    seconds: float = 0.0
    found: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    """Why there are no findings."""

    @property
    def command(self) -> str:
        return shlex.join(["serve-app", "bench", *self.arguments])

    def ended(self, status: int, seconds: float, stdout: str) -> None:
        self.status, self.seconds = status, seconds
        try:
            self.found = json.loads(stdout)
        except ValueError:
            self.problem = "it said nothing on stdout, and why on stderr"

    def as_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "command": self.command,
            "status": self.status,
            "seconds": round(self.seconds, 1),
            **({"problem": self.problem} if self.problem else {"found": self.found}),
        }


def verdicts(part: Part) -> list[bool | None]:
    """Of every bar of it, and of its end: a service that is lost leaves no findings, and an exit status of 1."""
    rows = [*part.found.get("checks", ()), *part.found.get("events", ())]
    found: list[bool | None] = [row.get("ok") if "problem" not in row else None for row in rows]
    by_end = ENDS.get(part.status, (None,))
    return [*found, *(verdict for verdict in by_end if verdict not in found)] or [None]


def exit_status(parts: Sequence[Part]) -> int:
    """0 every bar holds, 1 one does not, 2 none is missed, but something could not be measured."""
    found = [verdict for part in parts for verdict in verdicts(part)]
    if False in found:
        return 1
    return 2 if None in found else 0


def counted(parts: Sequence[Part]) -> str:
    found = [verdict for part in parts for verdict in verdicts(part)]
    return f"{found.count(True)} bars hold, {found.count(False)} do NOT, {found.count(None)} not measured"


def render(parts: Sequence[Part], facts: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["# Torture report", "", counted(parts), "", machine.phrase(facts)]
    for part in parts:
        lines += ["", f"## {part.title}", "", f"`{part.command}`: {_ended(part)}", *_tables(part)]
    return "\n".join(lines) + "\n"


def _ended(part: Part) -> str:
    return "not run" if part.status is None else f"exit status {part.status}, {part.seconds:.0f} s"


def _tables(part: Part) -> Iterator[str]:
    if part.problem:
        yield from ("", part.problem)
    if checks := part.found.get("checks"):
        yield from _table(CHECKS, map(check_cells, checks))
    if events := part.found.get("events"):
        yield from _table(FAULTS, map(fault_cells, events))
    if figures := [part.found[key] for key in FIGURES if key in part.found]:
        yield from _table(tuple(FIGURES.values()), iter([[f"{figure:,}" for figure in figures]]))
    if cases := list(failed_cases(part)):
        yield from _table(CASES, iter(cases[:SHOWN_CASES]))
    if len(cases) > SHOWN_CASES:
        yield from ("", f"and {len(cases) - SHOWN_CASES:,} more, all of them in the command's JSON")
    for wrong in part.found.get("wrong", ()):
        yield from ("", f"Of a good image: {wrong}")


def failed_cases(part: Part) -> Iterator[list[str]]:
    """Of `bench fuzz` and `bench soak`, which has the same cases; and files that ended the decoder."""
    found = part.found
    for case in (*found.get("failures", ()), *found.get("faulty_cases", ())):
        number, came = str(case["number"]), case.get("outcome") or case["result"]
        served = [found["file"], "--seed", str(found["seed"]), *_images(part.arguments)]
        again = shlex.join(["serve-app", "bench", "fuzz", *served, "--first", number, "--cases", "1"])
        yield [number, case["kind"], came, f"`{again}`"]
    for path in found.get("findings", ()):
        yield [Path(path).name, "an image", "the decoder ended", f"`{shlex.join(['python', '-m', TARGET, path])}`"]


def _images(arguments: Sequence[str]) -> Sequence[str]:
    """A case is made of the images too."""
    at = arguments.index("--images") if "--images" in arguments else len(arguments)
    return arguments[at : at + 2]


def _table(header: Sequence[str], rows: Iterator[list[str]]) -> Iterator[str]:
    yield ""
    for cells in (header, ["---"] * len(header), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def check_cells(check: Mapping[str, Any]) -> list[str]:
    measured = "-" if check["measured"] is None else f"{check['measured']:g} {check['unit']}".strip()
    note = f" ({check['note']})" if check["note"] else ""
    return [check["check"], measured + note, f"{check['relation']} {check['bar']:g}", VERDICTS[check["ok"]]]


def fault_cells(event: Mapping[str, Any]) -> list[str]:
    if problem := event.get("problem"):
        return [event["event"], *["-"] * (len(FAULTS) - 2), f"not played: {problem}"]
    in_flight, whole = event["in_flight"], event["seconds_to_full"]
    return [
        event["event"],
        f"{event['requests']:,}",
        told_failures(event["failed"], event["wrong_weights"]),
        "-" if in_flight is None else str(in_flight),
        f"{event['least_per_s']} of {event['answered_per_s']:.0f}",
        "-" if whole is None else f"{whole:.0f}",
        VERDICTS[event["ok"]],
    ]
