import json
import re
import sys
from datetime import date
from pathlib import Path

import psutil
import pytest
import torch

from serve_app.bench import machine
from serve_app.config import ConfigError

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


def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(machine, "CPU_QUOTA", quota)
    assert machine.num_cores() == 3
    for text, cores in (("max 100000", 3), ("250000 100000", 2), ("50000 100000", 1), ("900000 100000", 3)):
        quota.write_text(text)
        assert machine.num_cores() == cores


@pytest.mark.parametrize(
    ("ours", "whole", "busy_percent", "taken"),
    [(2, 2, 0.0, 0.0), (2, 2, 75.0, 1.5), (4, 64, 50.0, 0.0), (4, 64, 98.4375, 3.0)],
)
def test_cores_taken_are_those_missing_from_ours(
    monkeypatch: pytest.MonkeyPatch, ours: int, whole: int, busy_percent: float, taken: float
) -> None:
    monkeypatch.setattr(machine, "num_cores", lambda: ours)
    monkeypatch.setattr(psutil, "cpu_count", lambda: whole)
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: busy_percent)
    assert machine.cores_taken() == taken


@pytest.mark.parametrize(
    ("gpus", "asked", "resolved"),
    [(0, "auto", "cpu"), (2, "auto", "cuda:0"), (2, "cpu", "cpu"), (2, "cuda", "cuda:0"), (2, "cuda:1", "cuda:1")],
)
def test_a_device_is_one_that_is_here(monkeypatch: pytest.MonkeyPatch, gpus: int, asked: str, resolved: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert machine.resolved_device(asked) == resolved


@pytest.mark.parametrize(("gpus", "asked"), [(0, "cuda"), (2, "cuda:2"), (2, "tpu")])
def test_a_device_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch, gpus: int, asked: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ConfigError, match="there is none here; there is cpu"):
        machine.resolved_device(asked)
