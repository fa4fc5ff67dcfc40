"""`serve-app bench compare` with services that were never started; tests/serve/test_bench.py starts them."""

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from serve_app.bench.generator import Generator, GeneratorError
from serve_app.bench.images import Images
from serve_app.cli import main
from serve_app.cli.bench import local_service
from serve_app.cli.bench.local_service import PATH, StartError
from tests.bench import server

OURS, PLAIN = "serve-app", "@serve.batch, 0 ms"
SHORT = ("--duration-s", "0.2", "--warm-up-s", "0.1", "--repeats", "2", "--concurrency", "2", "--image-size", "32x24")


class Broken:
    """Which of the contestants do not start, and whose load generator ends."""

    def __init__(self) -> None:
        self.start: set[str] = set()
        self.generator: set[str] = set()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    found = Broken()

    def ended(*_: object) -> None:
        raise GeneratorError("its generator ended")

    @contextmanager
    def under_load(content: dict[str, Any], pictures: Images, _: Mapping[str, str]) -> Iterator[tuple[str, Generator]]:
        name = OURS if content["applications"][0]["import_path"] == "serve_app.app:build_app" else PLAIN
        if name in found.start:
            raise StartError("it did not start")
        with server.running() as url, Generator(pictures.files, 1) as generator:
            if name in found.generator:
                monkeypatch.setattr(generator, "run", ended)
            yield url + PATH, generator

    monkeypatch.setattr(local_service, "under_load", under_load)
    return found


def compared(*options: str) -> Result:
    only = ("--only", f"{OURS};{PLAIN}")
    return CliRunner().invoke(main, ["bench", "compare", "--device", "stub", "--weights", "bundled", *only, *options])


def results(result: Result) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads(result.stdout.splitlines()[-1])["results"]}


@pytest.mark.usefixtures("broken")
def test_each_is_put_under_the_same_load_and_the_last_line_is_json(tmp_path: Path) -> None:
    rows_path = tmp_path / "rows.csv"
    result = compared("--rate", "50,100", "--csv", str(rows_path), *SHORT)
    assert result.exit_code == 0, result.output
    for one in results(result).values():
        assert [(row["rate_per_s"], row["concurrency"]) for row in one["rows"]] == [(None, 2), (50, None), (100, None)]
        assert [len(row["repeats"]) for row in one["rows"]] == [2, 2, 2]
    with rows_path.open(newline="") as file:
        assert [line["service"] for line in csv.DictReader(file)] == [OURS] * 3 + [PLAIN] * 3


@pytest.mark.usefixtures("broken")
def test_without_a_rate_there_are_three_below_the_first_closed_loop() -> None:
    found = results(compared(*SHORT))
    most = found[OURS]["rows"][0]["completed_per_s"]
    rates = [row["rate_per_s"] for row in found[OURS]["rows"][1:]]
    assert rates == pytest.approx([0.3 * most, 0.6 * most, 0.9 * most], rel=0.05)
    assert [row["rate_per_s"] for row in found[PLAIN]["rows"][1:]] == rates


@pytest.mark.parametrize("how", ["start", "generator"])
def test_one_that_fails_costs_the_others_nothing(broken: Broken, how: str) -> None:
    getattr(broken, how).add(PLAIN)
    result = compared("--rate", "50", *SHORT)
    assert result.exit_code == 1
    found = results(result)
    assert (found[OURS]["error"], len(found[OURS]["rows"])) == (None, 2)
    assert found[PLAIN]["error"] in ("it did not start", "its generator ended")
    assert found[PLAIN]["error"] in result.stderr
    assert "failed" in result.stdout


def test_where_all_fail_nothing_was_measured(broken: Broken) -> None:
    broken.start |= {OURS, PLAIN}
    result = compared("--rate", "50", *SHORT)
    assert result.exit_code == 2
    assert [one["rows"] for one in results(result).values()] == [[], []]


def test_a_contestant_that_is_none_is_refused() -> None:
    result = CliRunner().invoke(main, ["bench", "compare", "--device", "stub", "--weights", "bundled", "--only", "wrk"])
    assert result.exit_code == 2
    assert "--only wrk: there is serve-app; @serve.batch, 0 ms" in result.stderr
