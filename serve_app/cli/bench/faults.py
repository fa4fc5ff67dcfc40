"""`serve-app bench faults`: a cluster on this machine is updated, drained and killed in part, under load."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

import click
import psutil

from serve_app.bench import images, machine
from serve_app.bench.faults.cluster import Cluster, ClusterError, running
from serve_app.bench.faults.event import Event
from serve_app.bench.faults.events import EVENTS
from serve_app.bench.faults.layout import Layout
from serve_app.bench.faults.outcome import Outcome, told_failures
from serve_app.bench.faults.play import NotInForce, Watch, play
from serve_app.bench.faults.stage import NotWhole, set_up
from serve_app.bench.faults.unavailable import Unavailable
from serve_app.bench.generator import Generator, GeneratorError, Run
from serve_app.bench.known import Known, Unknown, reference
from serve_app.bench.serve_api import ServeApiError
from serve_app.cli import ports
from serve_app.cli.bench import output
from serve_app.cli.bench.local_service import PATH
from serve_app.cli.bench.output import number
from serve_app.cli.run import ENVIRONMENT, FAST_HTTP_PATH, has_haproxy

IMAGE_SIZE = (32, 32)
KNOWN_TRIES, KNOWN_PAUSE_S = 5, 2.0
HEADER = ("event", "sent", "failed", "victim", "strays", "least/s", "up", "full s", "ok")
FAILURES = (
    *(ClusterError, GeneratorError, NotWhole, ServeApiError, Unknown),
    *(OSError, psutil.Error, SubprocessError),  # of what an event does, with a part of the service dead
)


@dataclass(frozen=True)
class Load:
    """What is sent through every event."""

    generator: Generator
    images: Sequence[bytes]
    """The generator's."""
    template: Run


@dataclass(frozen=True)
class Played:
    event: Event
    outcome: Outcome | None
    problem: str = ""
    """Why there is no outcome."""
    is_skipped: bool = False
    """This machine cannot play it."""

    @property
    def ok(self) -> bool:
        return self.outcome is not None and self.outcome.holds(self.event.bar)

    def as_dict(self) -> dict[str, Any]:
        found = self.outcome.as_dict() if self.outcome else {"problem": self.problem, "skipped": self.is_skipped}
        return {"event": self.event.name, "layout": self.event.layout.name, "bar": self.event.bar.value, **found}


def run(
    *,
    only: tuple[str, ...] | None,
    rate_per_s: float,
    seed: int,
    timeout_s: float,
    as_json: bool,
    csv_path: Path | None,
) -> int:
    """Play and print; the exit status."""
    output.check_writable(csv_path, "--csv")
    chosen = _chosen(only)
    if not has_haproxy():
        output.fail("there is no HAProxy for this platform in Ray, and without one there is nothing to compare", 2)
    output.warn_if_busy()
    template = Run("", 0.0, rate_per_s=rate_per_s, seed=seed, timeout_s=timeout_s)
    played = []
    pictures = images.generated(*IMAGE_SIZE).files
    with Generator(pictures, 1) as generator:
        load = Load(generator, pictures, template)
        for layout, events in groupby(chosen, key=lambda event: event.layout):
            played += _on(layout, list(events), load)
    report = {
        **machine.facts(),
        "rate_per_s": rate_per_s,
        "seed": seed,
        "events": [{**one.as_dict(), "ok": one.ok} for one in played],
    }
    if as_json:
        output.print_json(report)
    else:
        _print(report, played)
    if csv_path:
        output.write_csv(csv_path, report["events"])
    if any(one.outcome is None and not one.is_skipped for one in played):
        return 2
    return 0 if all(one.ok or one.is_skipped for one in played) else 1


def _chosen(only: tuple[str, ...] | None) -> list[Event]:
    """Raises click's error for a name that there is not."""
    names = [event.name for event in EVENTS]
    if unknown := [name for name in only or () if name not in names]:
        raise click.BadParameter(f"{unknown[0]!r} is none of: {'; '.join(names)}", param_hint="--only")
    return [event for event in EVENTS if only is None or event.name in only]


def _on(layout: Layout, events: Sequence[Event], load: Load) -> list[Played]:
    """On a cluster of their own. One that cannot be played ends those after it: the stage is not as it should be."""
    played: list[Played] = []
    try:
        with _cluster(layout) as cluster:
            played.extend(_play(cluster, event, load) for event in events)
    except (*FAILURES, Unavailable) as error:
        skipped = isinstance(error, Unavailable)
        problem = str(error) or repr(error)
        played += [Played(event, None, problem, skipped) for event in events[len(played) :]]
    return played


@contextmanager
def _cluster(layout: Layout) -> Iterator[Cluster]:
    with ExitStack() as stack:
        try:
            chosen = stack.enter_context(ports.claimed())
        except ports.NoPorts as error:
            raise ClusterError(str(error)) from None
        with output.stderr.status(f"starting {len(layout.nodes)} nodes: {layout.name}"):
            environment = {**FAST_HTTP_PATH, **ENVIRONMENT, **chosen}
            cluster = stack.enter_context(running(layout.nodes, environment, layout.one_port, layout.surroundings))
        yield cluster


def _play(cluster: Cluster, event: Event, load: Load) -> Played:
    url, template = cluster.url + PATH, load.template
    with output.stderr.status(f"setting up: {event.name}"):
        stage = set_up(cluster, event.layout)
        known = _known(url, load)
    with output.progress(event.duration_s) as show:
        run = replace(template, url=url, duration_s=event.duration_s, known=known)
        try:
            found = play(load.generator, run, Watch(stage, event), lambda seconds: show(event.name, seconds))
        except NotInForce as error:  # the stage is as it should be, for the events after it
            return Played(event, None, str(error))
        return Played(event, found)


def _known(url: str, load: Load) -> tuple[Known | None, ...]:
    """Of a service that has just become whole: one refusal is not to end the events after it. Raises Unknown."""
    for _ in range(KNOWN_TRIES - 1):
        with suppress(Unknown):
            return reference(url, load.images, load.template.timeout_s).answers
        time.sleep(KNOWN_PAUSE_S)
    return reference(url, load.images, load.template.timeout_s).answers


# --- output --------------------------------------------------------------------------------------


def _print(report: dict[str, Any], played: Sequence[Played]) -> None:
    caption = f"{report['rate_per_s']:g} requests/s\n{machine.phrase(report)}"
    output.print_table(HEADER, [_cells(one) for one in played], caption=caption)
    for problem, ended in groupby((one for one in played if one.problem), key=lambda one: one.problem):
        names = ", ".join(one.event.name for one in ended)
        output.stderr.print(f"{names}: {problem}", style="red", markup=False, soft_wrap=True)


def _cells(one: Played) -> list[str]:
    found = one.outcome
    if found is None:
        return [one.event.name, *[output.NO_FIGURE] * (len(HEADER) - 2), "-" if one.is_skipped else "?"]
    return [
        *(one.event.name, f"{found.requests:,}"),
        told_failures(found.failed, found.wrong_weights),
        output.NO_FIGURE if found.in_flight is None else str(found.in_flight),
        str(found.strays),
        f"{found.least_per_s} of {found.answered_per_s:.0f}",
        f"{found.fewest_replicas} of {one.event.layout.replicas}",
        number(found.seconds_to_full),
        "yes" if one.ok else "NO",
    ]
