"""`serve-app bench faults`: which events it plays, its table, its exit status. The cluster is not there."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from serve_app.bench.faults.cluster import ClusterError
from serve_app.bench.faults.event import Event
from serve_app.bench.faults.events import EVENTS
from serve_app.bench.faults.outcome import Outcome
from serve_app.cli import main

FAULTS = import_module("serve_app.cli.bench.faults")  # as an attribute of its package it is the command
NAMES = [event.name for event in EVENTS]
LAYOUTS = len({event.layout for event in EVENTS})
GOOD = Outcome(4200, {}, None, 0, 0, 70.0, 61, 130.0, 2, 31.5)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Have events end in given outcomes, else a good one; the names of those that were played."""

    def prepare(**outcomes: Outcome | Exception) -> list[str]:
        names: list[str] = []

        def play(_: object, __: object, watch: Any, ___: object) -> Outcome:
            event: Event = watch.event
            names.append(event.name)
            outcome = outcomes.get(event.name.replace(" ", "_"), GOOD)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(FAULTS, "Generator", nothing)
        monkeypatch.setattr(FAULTS, "running", nothing)
        monkeypatch.setattr(FAULTS, "set_up", lambda *_: SimpleNamespace(before=SimpleNamespace(running=())))
        monkeypatch.setattr(FAULTS, "play", play)
        return names

    return prepare


@contextmanager
def nothing(*_: object) -> Iterator[SimpleNamespace]:
    yield SimpleNamespace(url="http://127.0.0.1:1")


def run(*options: str) -> Result:
    return CliRunner().invoke(main, ["bench", "faults", *options], env={"COLUMNS": "80"})


def test_every_event_is_played_and_good_ones_end_with_0(played: Callable[..., list[str]]) -> None:
    names = played()
    result = run()
    assert (result.exit_code, names) == (0, NAMES)


def test_only_those_that_are_named_are_played(played: Callable[..., list[str]]) -> None:
    names = played()
    assert run("--only", "kill node;weights").exit_code == 0
    assert names == ["weights", "kill node"]


def test_a_name_that_there_is_not_is_refused_with_those_that_there_are(played: Callable[..., list[str]]) -> None:
    names = played()
    result = run("--only", "kill nodes")
    assert (result.exit_code, names) == (2, [])
    assert "kill node" in result.stderr


def test_the_table_has_a_row_for_each_in_80_columns(played: Callable[..., list[str]]) -> None:
    played(kill_replica=Outcome(4200, {"500": 3}, 2, 0, 1, 70.0, 20, 900.0, 1, None))
    result = run("--only", "kill replica;weights")
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "weights 4,200 0 - 0 61 of 70 2 of 2 31.5 yes" in rows
    assert "kill replica 4,200 3 x 500 2 1 20 of 70 1 of 2 - NO" in rows
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.exit_code == 1


def test_the_report_has_everything(played: Callable[..., list[str]], tmp_path: Path) -> None:
    played()
    path = tmp_path / "rows.csv"
    report = json.loads(run("--json", "--rate", "50", "--csv", str(path)).stdout)
    assert report["rate_per_s"] == 50
    assert [event["event"] for event in report["events"]] == NAMES
    assert all(event["ok"] for event in report["events"])
    with path.open(newline="") as opened:
        assert [row["event"] for row in csv.DictReader(opened)] == NAMES


def test_what_cannot_be_played_says_why_and_leaves_other_layouts_alone(played: Callable[..., list[str]]) -> None:
    names = played(weights=ClusterError("node 1 did not start: no room"))
    result = run()
    first = [event.name for event in EVENTS if event.layout == EVENTS[0].layout]
    assert names == ["weights", *NAMES[len(first) :]]
    assert f"{', '.join(first)}: node 1 did not start: no room" in " ".join(result.stderr.split())
    assert result.exit_code == 2
