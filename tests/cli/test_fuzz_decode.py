"""`serve-app bench fuzz-decode`: its bars. The campaign is made up."""

import json
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

from serve_app.bench.torture.decode_fuzz import Campaign
from serve_app.cli import main

FUZZ_DECODE = import_module("serve_app.cli.bench.fuzz_decode")  # as an attribute of its package it is the command
SECONDS = 10
ENOUGH = SECONDS * FUZZ_DECODE.EXECUTIONS_PER_S


@pytest.mark.parametrize(
    ("executions", "findings", "status", "bars"),
    [
        (ENOUGH, (), 0, [True, True]),
        (1, (), 0, [True, False]),
        (ENOUGH, ("findings/crash-1",), 77, [False, True]),
        (ENOUGH, (), -9, [False, True]),
    ],
    ids=["enough", "it stood still", "a crash", "killed"],
)
def test_it_ran_and_nothing_ended_it(
    executions: int,
    findings: tuple[str, ...],
    status: int,
    bars: list[bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FUZZ_DECODE, "find_spec", lambda _: "atheris")
    campaign = Campaign(1, executions, 1190, 2190, 176, findings, status)
    monkeypatch.setattr(FUZZ_DECODE, "campaign", lambda *_: campaign)
    command = ["bench", "fuzz-decode", "--seconds", str(SECONDS), "--output", str(tmp_path), "--json"]
    result = CliRunner().invoke(main, command)
    assert [check["ok"] for check in json.loads(result.stdout)["checks"]] == bars
    assert result.exit_code == (0 if all(bars) else 1)
