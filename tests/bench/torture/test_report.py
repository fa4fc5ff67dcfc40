"""The report of a torture: from what its commands printed to one file and one exit status."""

import json
from typing import Any

import pytest

from serve_app.bench import machine
from serve_app.bench.bars import Check
from serve_app.bench.faults.event import Bar
from serve_app.bench.faults.outcome import Outcome
from serve_app.bench.torture.decode_fuzz import TARGET, Campaign
from serve_app.bench.torture.report import SHOWN_CASES, Part, counted, exit_status, render

MET, MISSED = Check("hung", 0, "<=", 0), Check("p99", 12.5, "<=", 9.0, "ms", "of | many")
LOST = Outcome(4200, {"502": 8}, 6, 8, 0, 70.0, 56, 310.0, 1, 32.0)


def part(*checks: Check, status: int = 0) -> Part:
    played = Part("Fuzz", ("fuzz", "a.yaml"))
    played.ended(status, 12.3, json.dumps({"checks": [check.as_dict() for check in checks]}))
    return played


def faults(*events: dict[str, Any]) -> Part:
    played = Part("Faults", ("faults",))
    played.ended(0, 80.0, json.dumps({"events": events}))
    return played


def event(ok: bool) -> dict[str, Any]:
    return {"event": "kill replica", "layout": "pair", "bar": Bar.VICTIM.value, **LOST.as_dict(), "ok": ok}


def silent(status: int) -> Part:
    ended = Part("Soak", ("soak",))
    ended.ended(status, 1.0, "")
    return ended


SILENT = silent(2)
NOT_PLAYED = {"event": "clock step", "problem": "no libfaketime", "ok": False}


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([part(MET), faults(event(True))], 0),
        ([part(MET), part(MET, MISSED)], 1),
        ([part(MET), faults(event(False))], 1),
        ([part(MET), SILENT], 2),
        ([part(MET), Part("Soak", ("soak",))], 2),
        ([part(MET), faults(event(True), NOT_PLAYED)], 2),
        ([part(MISSED), SILENT], 1),
        ([part(MET), silent(1)], 1),
        ([part(MET), silent(-9)], 2),
        ([part(MET, status=1)], 1),
        ([part(MET, status=-9)], 2),
    ],
)
def test_the_exit_status_is_that_of_the_bars(parts: list[Part], status: int) -> None:
    assert exit_status(parts) == status


def test_failed_cases_stand_there_with_the_command_that_asks_them_again() -> None:
    fuzz = Part("Fuzz", ("fuzz", "a.yaml", "--cases", "9", "--images", "my photos", "--seed", "3", "--json"))
    case = {"number": 7, "kind": "drip", "outcome": "500"}
    found = {"file": "a.yaml", "seed": 3, "failures": [case], "wrong": ["a known image is 4 and not 5"]}
    fuzz.ended(1, 1.0, json.dumps(found))
    soak = Part("Soak", ("soak", "b.yaml"))
    case = {"at_s": 2.5, "number": 8, "kind": "PNG", "result": "hung"}
    soak.ended(1, 1.0, json.dumps({"file": "b.yaml", "seed": 4, "faulty_cases": [case] * (SHOWN_CASES + 2)}))
    text = render([fuzz, soak], machine.facts())
    again = "serve-app bench fuzz a.yaml --seed 3 --images 'my photos' --first 7 --cases 1"
    assert f"| 7 | drip | 500 | `{again}` |" in text
    assert "Of a good image: a known image is 4 and not 5" in text
    again = "serve-app bench fuzz b.yaml --seed 4 --first 8 --cases 1"
    assert text.count(f"| 8 | PNG | hung | `{again}` |") == SHOWN_CASES
    assert "and 2 more" in text


def test_the_decoders_figures_stand_there_and_what_ended_it() -> None:
    decode = Part("Decoder", ("fuzz-decode",))
    campaign = Campaign(1, 5792, 1190, 2190, 176, ("f/crash-da39",), 77)
    decode.ended(1, 1.0, json.dumps(campaign.as_dict()))
    text = render([decode], machine.facts())
    assert "| executions | edges | features | corpus |" in text
    assert "| 5,792 | 1,190 | 2,190 | 176 |" in text
    assert f"| crash-da39 | an image | the decoder ended | `python -m {TARGET} f/crash-da39` |" in text


def test_a_command_can_be_given_to_a_shell() -> None:
    assert Part("x", ("faults", "--only", "kill replica")).command == "serve-app bench faults --only 'kill replica'"


def test_a_person_finds_every_figure_and_the_command_behind_it() -> None:
    parts = [part(MET, MISSED, status=1), faults(event(True), NOT_PLAYED), SILENT, Part("Later", ("later",))]
    text = render(parts, machine.facts())
    assert counted(parts) == "2 bars hold, 1 do NOT, 3 not measured"
    for expected in (
        counted(parts),
        "`serve-app bench fuzz a.yaml`: exit status 1, 12 s",
        "| hung | 0 | <= 0 | yes |",
        "| p99 | 12.5 ms (of \\| many) | <= 9 | **no** |",
        "| kill replica | 4,200 | 8 x 502 | 6 | 56 of 70 | 32 | yes |",
        "not played: no libfaketime",
        "it said nothing on stdout",
        "`serve-app bench later`: not run",
    ):
        assert expected in text
