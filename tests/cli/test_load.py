"""`serve-app bench load` with deadlines and refusals; the rest is in tests/bench/test_cli.py."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from serve_app.cli import main
from tests.bench import server
from tests.bench.server import Answer

SHORT = ("--duration-s", "0.2", "--warm-up-s", "0.1", "--processes", "1", "--image-size", "32x24")


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a table breaks no lines."""
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.fixture
def url() -> Iterator[str]:
    """Of a service that answers at once."""
    with server.running() as url:
        yield url


def loaded(url: str, *options: str | Path) -> Result:
    return CliRunner().invoke(main, ["bench", "load", "--url", url, *map(str, options), *SHORT])


def cells(result: Result) -> list[list[str]]:
    return [line.split() for line in result.stdout.splitlines()]


def test_refusals_are_shown_with_their_latency_and_how_many_said_when_to_try_again() -> None:
    async def reply(_: bytes) -> Answer:
        return server.REFUSAL

    with server.running(reply) as url:
        result = loaded(url, "--rate", "50", "--repeats", "1")
    (row,) = [row for row in cells(result) if row[:2] == ["50.0", "10"]]
    assert row[-1] == "10"
    assert "with Retry-After" in result.stdout


@pytest.mark.parametrize("how", ["told", "untold", "both"])
def test_each_deadline_has_a_line_told_and_untold(url: str, tmp_path: Path, how: str) -> None:
    rows_path, page_path = tmp_path / "rows.csv", tmp_path / "report.html"
    result = loaded(
        *(url, "--rate", "100", "--repeats", "2", "--deadline-ms", "60000,0.001", "--deadlines", how),
        *("--csv", rows_path, "--plot", page_path),
    )
    assert result.exit_code == 0, result.output
    lines = [row[:6] for row in cells(result) if row[:1] == ["100"] and row[2] in ("60000", "0.001")]
    hows = ["untold", "told"] if how == "both" else [how]
    assert lines == [
        ["100", one, deadline, "20", missed, "0.0"]
        for one in hows
        for deadline, missed in (("0.001", "100"), ("60000", "0.0"))
    ]
    with rows_path.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [line["deadlines_told"] for line in written] == [str(one == "told") for one in hows]
    assert {line["deadlines.0.001.missed_percent"] for line in written} == {"100.0"}
    assert "Deadlines" in page_path.read_text()


def test_told_and_untold_deadlines_are_of_the_same_seed(url: str) -> None:
    options = ("--rate", "50", "--repeats", "1", "--deadline-ms", "60000,0.001", "--deadlines", "both", "--json")
    result = loaded(url, *options)
    untold, told = json.loads(result.stdout)["rows"]
    assert (untold["deadlines_told"], told["deadlines_told"]) == (False, True)
    for row in (untold, told):
        assert [one["requests"] for one in row["deadlines"].values()] == [5, 5]
