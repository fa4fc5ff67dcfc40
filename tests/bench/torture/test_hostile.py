"""Hostile requests in an open loop, from their own process, against the application over sockets."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from starlette.types import ASGIApp

from serve_app.bench.torture import hostile
from serve_app.bench.torture.answers import NO_CONNECTION
from serve_app.bench.torture.hostile import Hostility, Outcome
from serve_app.bench.torture.seeds import seeds
from serve_app.bench.torture.surface import Case, request
from serve_app.http import build_app
from tests.bench.torture.test_fuzz import Decoding, failing_now_and_then, served

TIMES = np.linspace(0, 1, 80)


def at(url: str, seed: int = 1, limit_s: float = 30.0) -> Sequence[Outcome]:
    images = tuple(seeds().values())
    asked = Hostility(url, images, "digits", seed, num_cases=40, times=TIMES, limit_s=limit_s)
    with hostile.sent(asked) as sent:
        return sent.result()


def sent_to(app: ASGIApp, seed: int = 1) -> Sequence[Outcome]:
    with served(app) as url:
        return at(url, seed)


def kinds(outcomes: Sequence[Outcome]) -> list[tuple[float, str]]:
    return sorted((outcome.at_s, outcome.kind) for outcome in outcomes)


def test_each_is_sent_once_and_the_application_bears_it() -> None:
    outcomes = sent_to(build_app(Decoding()))
    assert [at_s for at_s, _ in kinds(outcomes)] == TIMES.tolist()
    assert [outcome for outcome in outcomes if not outcome.holds] == []
    assert {"200", "400", "422", "left"} <= {outcome.result for outcome in outcomes}


def test_heavy_cases_are_left_out() -> None:
    cases = [Case("bomb" if i % 2 else "image", (request(b"7"),), is_heavy=i % 2 == 1) for i in range(40)]
    with served(build_app(Decoding())) as url:
        asked = Hostility(url, (), "digits", 1, num_cases=40, times=TIMES, limit_s=30.0)
        outcomes = asyncio.run(hostile._send(asked, cases))
    assert {outcome.kind for outcome in outcomes} == {"image"}
    assert len(outcomes) == len(TIMES)


def test_a_seed_sends_the_same_again_and_another_seed_others() -> None:
    first = sent_to(build_app(Decoding()))
    assert kinds(sent_to(build_app(Decoding()))) == kinds(first)
    assert kinds(sent_to(build_app(Decoding()), seed=2)) != kinds(first)


def test_a_bug_is_found() -> None:
    outcomes = sent_to(failing_now_and_then("raises"))
    assert {outcome.result for outcome in outcomes if not outcome.holds} == {"500"}


def test_a_service_that_is_gone_is_found() -> None:
    with served(build_app(Decoding())) as url:
        pass
    assert Counter(outcome.result for outcome in at(url)) == {NO_CONNECTION: len(TIMES)}


@pytest.mark.parametrize(
    ("result", "holds"),
    [
        *((result, True) for result in ("200", "422", "closed", "left", "503", "504")),
        *((result, False) for result in ("500", "502", "hung", NO_CONNECTION, "not sent")),
    ],
)
def test_under_load_a_refusal_is_an_answer_and_a_bug_is_none(result: str, holds: bool) -> None:
    assert Outcome(0.0, 1, "image", result).holds is holds
