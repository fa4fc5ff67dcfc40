"""When an event is brought about and put right, and from when on all counts as well."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from serve_app.bench.faults.cluster import Cluster
from serve_app.bench.faults.event import Bar, Done, Event, Stage
from serve_app.bench.faults.layout import PAIR
from serve_app.bench.faults.outcome import Outcome
from serve_app.bench.faults.play import QUIET_S, NotInForce, Watch, play
from serve_app.bench.generator import Generator, Run
from serve_app.bench.samples import Samples
from serve_app.bench.serve_api import ServeApi, State
from tests.bench.faults.test_event import state
from tests.bench.faults.test_outcome import sent

MENDED_AFTER_S = 20.0


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in order. Ray says that all is well, whenever it is asked."""
    monkeypatch.setattr(ServeApi, "state", lambda _: state("RUNNING", "RUNNING"))
    monkeypatch.setattr("serve_app.bench.faults.play.LOOK_S", 0.0)
    return []


def watch(act: Done, happened: list[str], tmp_path: Path) -> Watch:
    def acted(_: Stage) -> Done:
        happened.append("event")
        return act

    before: State = state("RUNNING", "RUNNING")
    cluster = Cluster({}, tmp_path, one_port=False, deployed=PAIR.content(8000, tmp_path))
    stage = Stage(cluster, next(iter(before.applications.values())))
    return Watch(stage, Event("x", PAIR, Bar.NOTHING, acted, 60.0, MENDED_AFTER_S))


def test_nothing_is_well_before_it_is_put_right(happened: list[str], tmp_path: Path) -> None:
    watched = watch(Done(0.0, lambda _: True, mend=lambda: happened.append("mended")), happened, tmp_path)
    watched.look(QUIET_S - 1)
    assert happened == []
    for seconds in (QUIET_S, QUIET_S + 1, QUIET_S + MENDED_AFTER_S - 1):
        watched.look(seconds)
    assert (happened, watched.full) == (["event"], None)
    for seconds in (QUIET_S + MENDED_AFTER_S, QUIET_S + MENDED_AFTER_S + 1, QUIET_S + MENDED_AFTER_S + 2):
        watched.look(seconds)
    assert happened == ["event", "mended"]
    assert watched.full is not None


def test_what_was_in_force_is_known_from_before_it_is_put_right(happened: list[str], tmp_path: Path) -> None:
    answers: list[bool | OSError] = [False, OSError("no connection"), True]

    def was_in_force() -> bool:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    done = Done(0.0, lambda _: True, mend=lambda: happened.append("mended"), was_in_force=was_in_force)
    watched = watch(done, happened, tmp_path)
    found = []
    for seconds in (0, 1, 2, MENDED_AFTER_S, MENDED_AFTER_S + 1):
        watched.look(QUIET_S + seconds)
        found.append(watched.was_in_force)
    assert found == [False, False, False, True, True]
    assert happened == ["event", "mended"]


@dataclass
class Sends:
    """A generator to whom each request has the same fate."""

    status: str

    def run(self, _: Run, look: Callable[[float], None]) -> tuple[Samples, float]:
        for seconds in (QUIET_S, QUIET_S + MENDED_AFTER_S, QUIET_S + MENDED_AFTER_S + 1):
            look(seconds)
        return sent(*[(at + 0.5, at + 0.6, self.status) for at in range(60)]), 0.0


def played(status: str, happened: list[str], tmp_path: Path) -> Outcome:
    """Of what is never in force."""

    def act(_: Stage) -> Done:
        happened.append("event")
        mend = partial(happened.append, "mended")
        return Done(time.monotonic(), lambda _: True, mend=mend, was_in_force=lambda: False)

    watched = watch(Done(0.0, lambda _: True), happened, tmp_path)
    watched.event = replace(watched.event, act=act)
    return play(cast(Generator, Sends(status)), Run("", 60.0), watched, lambda _: None)


def test_what_was_never_in_force_gives_no_outcome_and_is_put_right(happened: list[str], tmp_path: Path) -> None:
    with pytest.raises(NotInForce, match="in 20 s it was not seen to be in force"):
        played("200", happened, tmp_path)
    assert happened == ["event", "mended"]


def test_failures_count_whether_it_was_seen_in_force_or_not(happened: list[str], tmp_path: Path) -> None:
    """A service that answers nothing does not say what time it has."""
    assert not played("503", happened, tmp_path).holds(Bar.NOTHING)


def test_wrong_weights_are_seen_whenever_they_answer_and_silence_is_none(happened: list[str], tmp_path: Path) -> None:
    answers: list[set[str] | OSError] = [set(), OSError("no connection"), {"other"}, set(), {"another"}, set()]

    def wrong_weights() -> set[str]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    done = Done(0.0, lambda _: True, mend=lambda: happened.append("mended"), wrong_weights=wrong_weights)
    watched = watch(done, happened, tmp_path)
    for seconds in (0, 1, 2, 3, MENDED_AFTER_S, MENDED_AFTER_S + 1, MENDED_AFTER_S + 2):
        watched.look(QUIET_S + seconds)
    assert happened == ["event", "mended"]
    assert (watched.wrong_weights, answers) == ({"other", "another"}, [])


def test_what_passes_by_itself_is_well_at_once(happened: list[str], tmp_path: Path) -> None:
    watched = watch(Done(0.0, lambda _: True), happened, tmp_path)
    for seconds in (QUIET_S, QUIET_S + 1):
        watched.look(seconds)
    assert (happened, watched.mended) == (["event"], None)
    assert watched.full is not None
