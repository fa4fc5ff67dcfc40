"""`serve-app bench faults`: which events it plays, its table, its exit status. The cluster is not there."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from serve_app.bench.faults.play import NotInForce
from serve_app.bench.faults.unavailable import Unavailable
from serve_app.bench.generator import Run
from serve_app.bench.known import WRONG_CLASS, Known, Reference, Unknown
from serve_app.cli import main

FAULTS = import_module("serve_app.cli.bench.faults")  # as an attribute of its package it is the command
NAMES = [event.name for event in EVENTS]
LAYOUTS = len({event.layout for event in EVENTS})
KNOWN = (Known(3, 0.5), None)
GOOD = Outcome(4200, {}, None, 0, 0, 70.0, 61, 130.0, 2, 31.5)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Have events end in given outcomes, else a good one; the names of those that were played."""

    def prepare(**outcomes: Outcome | Exception) -> list[str]:
        names: list[str] = []

        def play(_: object, run: Run, watch: Any, __: object) -> Outcome:
            assert run.known == KNOWN
            event: Event = watch.event
            names.append(event.name)
            outcome = outcomes.get(event.name.replace(" ", "_"), GOOD)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(FAULTS, "Generator", nothing)
        monkeypatch.setattr(FAULTS, "running", nothing)
        monkeypatch.setattr(FAULTS, "set_up", lambda *_: SimpleNamespace(before=SimpleNamespace(running=())))
        monkeypatch.setattr(FAULTS, "reference", lambda *_: Reference("digits", KNOWN))
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


@pytest.mark.parametrize(("refusals", "status"), [(1, 0), (100, 2)])
def test_a_service_just_whole_may_refuse_once(
    played: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, refusals: int, status: int
) -> None:
    played()
    answers: list[Exception] = [Unknown("a good image was answered with 503")] * refusals

    def reference(*_: object) -> Reference:
        if answers:
            raise answers.pop()
        return Reference("digits", KNOWN)

    monkeypatch.setattr(FAULTS, "reference", reference)
    monkeypatch.setattr(FAULTS, "KNOWN_PAUSE_S", 0.0)
    assert run("--only", "weights").exit_code == status


def test_wrong_answers_and_weights_are_shown_and_fail(played: Callable[..., list[str]]) -> None:
    wrong = replace(GOOD, failed={WRONG_CLASS: 2}, wrong=2)
    weights = replace(GOOD, wrong_weights=("abc",))
    played(engine_raises=wrong, other_weights=weights)
    result = run("--only", "engine raises;other weights")
    table = " ".join(result.stdout.split())
    assert (table.count("NO"), table.count("wrong")) == (2, 2)  # in cells that are wrapped
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.exit_code == 1
    report = json.loads(run("--only", "engine raises;other weights", "--json").stdout)
    assert [(each["wrong"], each["wrong_weights"], each["ok"]) for each in report["events"]] == [
        (2, [], False),
        (0, ["abc"], False),
    ]


@pytest.mark.parametrize(
    "error",
    [
        ClusterError("node 1 did not start: no room"),
        OSError("node 1 did not start: no room"),
    ],
)
def test_what_cannot_be_played_says_why_and_leaves_other_layouts_alone(
    played: Callable[..., list[str]], error: Exception
) -> None:
    names = played(weights=error)
    result = run()
    first = [event.name for event in EVENTS if event.layout == EVENTS[0].layout]
    assert names == ["weights", *NAMES[len(first) :]]
    assert f"{', '.join(first)}: node 1 did not start: no room" in " ".join(result.stderr.split())
    assert result.exit_code == 2


def test_what_was_never_in_force_is_not_known_and_ends_no_other(played: Callable[..., list[str]]) -> None:
    names = played(out_of_memory=NotInForce("in 20 s it was not seen to be in force"))
    result = run("--only", "out of memory;weights gone;weights")
    assert names == ["weights", "out of memory", "weights gone"]
    assert "out of memory: in 20 s it was not seen" in " ".join(result.stderr.split())
    assert result.exit_code == 2


def test_what_this_machine_cannot_play_is_skipped_with_its_reason(played: Callable[..., list[str]]) -> None:
    played(full_disk=Unavailable("a small disk cannot be mounted"))
    result = run("--only", "full disk;weights")
    assert result.exit_code == 0
    assert "full disk: a small disk cannot be mounted" in " ".join(result.stderr.split())
    report = json.loads(run("--only", "full disk", "--json").stdout)
    assert report["events"][0]["skipped"]
