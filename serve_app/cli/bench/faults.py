"""`serve-app bench faults`: a cluster on this machine is updated, drained and killed in part, under load."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from serve_app.bench import images, machine
from serve_app.bench.faults.cluster import Cluster, ClusterError, running
from serve_app.bench.faults.event import Event
from serve_app.bench.faults.events import EVENTS
from serve_app.bench.faults.layout import Layout
from serve_app.bench.faults.outcome import Outcome
from serve_app.bench.faults.play import Watch, play
from serve_app.bench.faults.stage import NotWhole, set_up
from serve_app.bench.generator import Generator, GeneratorError, Run
from serve_app.bench.serve_api import ServeApiError
from serve_app.cli import ports
from serve_app.cli.bench import output
from serve_app.cli.bench.local_service import PATH
from serve_app.cli.bench.output import number
from serve_app.cli.run import ENVIRONMENT, FAST_HTTP_PATH, has_haproxy

IMAGE_SIZE = (32, 32)
HEADER = ("event", "sent", "failed", "victim", "strays", "least/s", "up", "full s", "ok")
FAILURES = (ClusterError, GeneratorError, NotWhole, ServeApiError)


@dataclass(frozen=True)
class Played:
    event: Event
    outcome: Outcome | None
    problem: str = ""
    """Why there is no outcome."""

    @property
    def ok(self) -> bool:
        return self.outcome is not None and self.outcome.holds(self.event.bar)

    def as_dict(self) -> dict[str, Any]:
        found = self.outcome.as_dict() if self.outcome else {"problem": self.problem}
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
    with Generator(images.generated(*IMAGE_SIZE).files, 1) as generator:
        for layout, events in groupby(chosen, key=lambda event: event.layout):
            played += _on(layout, list(events), generator, template)
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
    if any(one.outcome is None for one in played):
        return 2
    return 0 if all(one.ok for one in played) else 1


def _chosen(only: tuple[str, ...] | None) -> list[Event]:
    """Raises click's error for a name that there is not."""
    names = [event.name for event in EVENTS]
    if unknown := [name for name in only or () if name not in names]:
        raise click.BadParameter(f"{unknown[0]!r} is none of: {'; '.join(names)}", param_hint="--only")
    return [event for event in EVENTS if only is None or event.name in only]


def _on(layout: Layout, events: Sequence[Event], generator: Generator, template: Run) -> list[Played]:
    """On a cluster of their own. One that cannot be played ends those after it: the stage is not as it should be."""
    played: list[Played] = []
    try:
        with _cluster(layout) as cluster:
            played.extend(_play(cluster, event, generator, template) for event in events)
    except FAILURES as error:
        played += [Played(event, None, str(error)) for event in events[len(played) :]]
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
            cluster = stack.enter_context(running(layout.nodes, environment, layout.one_port))
        yield cluster


def _play(cluster: Cluster, event: Event, generator: Generator, template: Run) -> Played:
    with output.stderr.status(f"setting up: {event.name}"):
        stage = set_up(cluster, event.layout)
    with output.progress(event.duration_s) as show:
        run = replace(template, url=cluster.url + PATH, duration_s=event.duration_s)
        return Played(event, play(generator, run, Watch(stage, event), lambda seconds: show(event.name, seconds)))


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
        return [one.event.name, *[output.NO_FIGURE] * (len(HEADER) - 2), "?"]
    return [
        *(one.event.name, f"{found.requests:,}"),
        ", ".join(f"{n} x {status}" for status, n in found.failed.items()) or "0",
        output.NO_FIGURE if found.in_flight is None else str(found.in_flight),
        str(found.strays),
        f"{found.least_per_s} of {found.answered_per_s:.0f}",
        f"{found.fewest_replicas} of {one.event.layout.replicas}",
        number(found.seconds_to_full),
        "yes" if one.ok else "NO",
    ]
