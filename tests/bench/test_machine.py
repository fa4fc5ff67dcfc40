import json
import re
import sys
from datetime import date

import pytest

from serve_app.bench import machine

FACTS = {
    "date": "2026-11-21",
    "machine": {"cpu": "A Processor", "cores": 2, "memory_gib": 8.0, "gpus": []},
    "versions": {"python": "3.11.7", "torch": "2.15.0+cu130", "ray": "2.60.0", "pillow": "12.0"},
}


def test_facts_are_json_and_say_where_when_and_with_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/serve-app", "bench", "load", "--url", "a b"])
    facts = machine.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["command"] == "serve-app bench load --url 'a b'"
    assert date.fromisoformat(facts["date"]) <= date.today()
    assert facts["machine"]["cores"] == machine.num_cores() >= 1
    assert facts["machine"]["memory_gib"] > 0
    assert facts["versions"].keys() >= {"python", "torch", "ray"}


def test_facts_are_what_a_phrase_is_made_of() -> None:
    facts = machine.facts()
    assert re.fullmatch(r"\d+ cores of .+, torch [\d.]+, ray [\d.]+, \d{4}-\d\d-\d\d", machine.phrase(facts))


def test_a_phrase_is_short_and_names_the_gpus() -> None:
    assert machine.phrase(FACTS) == "2 cores of A Processor, torch 2.15.0, ray 2.60.0, 2026-11-21"
    facts = {**FACTS, "machine": {**FACTS["machine"], "gpus": ["NVIDIA H200"]}, "versions": {}}  # type: ignore[dict-item]
    assert machine.phrase(facts) == "2 cores of A Processor, NVIDIA H200, 2026-11-21"


def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert machine.num_cores() == 3
