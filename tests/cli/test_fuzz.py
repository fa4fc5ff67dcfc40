"""`serve-app bench fuzz` with the application in this process: what it asks, says and returns."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.bench import resident
from serve_app.bench.torture import census
from serve_app.bench.torture.census import Look
from serve_app.bench.torture.fuzz import MAX_WRONG
from serve_app.cli import main
from serve_app.cli.bench import local_service
from serve_app.cli.bench.local_service import Service
from serve_app.http import build_app
from tests.bench.torture.test_fuzz import Decoding, failing_now_and_then, served

STUB = Path(__file__).parents[2] / "deploy" / "stub.yaml"
Serve = Callable[..., None]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.delenv("SERVE_APP_TOKEN", raising=False)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Serve:
    """Have an application served instead of any config, by these replicas at each look, of so many MiB at most."""

    def prepare(app: ASGIApp, replicas: tuple[set[int], set[int]] = ({1}, {1}), peak_mib: int = 500) -> None:
        looks = iter(replicas)

        @contextmanager
        def running(_: dict[str, Any]) -> Iterator[Service]:
            with served(app) as url:
                yield Service(url, tmp_path / "output.txt", os.getpid())

        monkeypatch.setattr(local_service, "running", running)
        monkeypatch.setattr(census, "look", lambda _: Look({}, frozenset(next(looks))))
        monkeypatch.setattr(resident, "replicas_bytes", lambda: 400 << 20)
        monkeypatch.setattr(resident, "peak_bytes", lambda _: peak_mib << 20)

    return prepare


def fuzzed(*options: str, cases: int = 30) -> Result:
    return CliRunner().invoke(main, ["bench", "fuzz", str(STUB), "--cases", str(cases), *options])


def missed(result: Result) -> set[str]:
    return {check["check"] for check in json.loads(result.stdout)["checks"] if check["ok"] is False}


def test_what_is_borne_meets_every_bar(serve: Serve) -> None:
    serve(build_app(Decoding()))
    result = fuzzed("--json")
    assert (result.exit_code, missed(result)) == (0, set()), result.output
    report = json.loads(result.stdout)
    assert (report["cases"], report["lost"], report["failures"], report["wrong"]) == (30, "", [], [])
    assert report["peak_mib"] == 500
    assert report["neighbours"] >= 10  # once more after the last case


def test_a_replica_that_ended_is_found_and_so_is_a_peak_between_the_looks(serve: Serve) -> None:
    serve(build_app(Decoding()), replicas=({1, 2}, {1, 3}), peak_mib=9_000)
    result = fuzzed("--json", cases=2)
    assert (result.exit_code, missed(result)) == (1, {"replicas that ended", "replicas' memory, peak over first"})


def test_a_case_that_fails_has_the_command_that_asks_it_again(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "some images"
    folder.mkdir()
    (folder / "7.png").write_bytes(b"7")
    serve(failing_now_and_then("raises"))
    options = ("--seed", "5", "--first", "100", "--images", str(folder))
    result = fuzzed("--json", *options)
    [first, *_] = json.loads(result.stdout)["failures"]
    command = f"serve-app bench fuzz {STUB} --seed 5 --first {first['number']} --cases 1 --images '{folder}'"
    assert (result.exit_code, first["again"]) == (1, command)
    serve(failing_now_and_then("raises"))
    assert f"again: {command}" in fuzzed(*options).stdout


def test_a_service_that_is_lost_has_its_findings_told(serve: Serve) -> None:
    app, good = build_app(Decoding()), 0

    async def wears(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal good
        good += scope["type"] == "http" and scope["query_string"] == b"top_k=1"
        if good > 15:
            raise RuntimeError("worn out")
        await app(scope, receive, send)

    serve(wears)
    result = fuzzed("--json", cases=10_000)
    report = json.loads(result.stdout)
    assert (result.exit_code, len(report["wrong"]) >= MAX_WRONG) == (1, True)  # of two neighbours at once
    assert "a known image was not answered" in report["lost"]
    assert {"cases asked", "good images wrong or not answered"} <= missed(result)
    assert sum(n for outcomes in report["outcomes"].values() for n in outcomes.values()) == report["cases"]


def test_where_there_are_tokens_it_has_to_have_one(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    app = build_app(Decoding(token="sa_t"))
    serve(app)
    result = fuzzed()
    assert (result.exit_code, "set SERVE_APP_TOKEN to a token of it" in result.stderr) == (2, True)
    monkeypatch.setenv("SERVE_APP_TOKEN", "sa_t")
    serve(app)
    result = fuzzed("--json", cases=200)
    outcomes = json.loads(result.stdout)["outcomes"]
    assert missed(result) == set()
    assert {"200", "422"} <= set(outcomes["image"])
    assert set(outcomes["token"]) == {"401"}
    assert "401" not in {outcome for kind in ("image", "form", "pipelined", "slow") for outcome in outcomes[kind]}


def test_a_folder_is_taken_whole_whatever_is_in_it(serve: Serve, tmp_path: Path) -> None:
    deep = tmp_path / "images" / "corrupt" / "deep"
    deep.mkdir(parents=True)
    for name, content in (("a.blp", b"BLP2"), ("cut.jpg", b"\xff\xd8\xff"), ("empty.png", b""), ("none", b"\0" * 9)):
        (deep / name).write_bytes(content)
    serve(build_app(Decoding()))
    plain = json.loads(fuzzed("--json", cases=1).stdout)["images"]
    serve(build_app(Decoding()))
    result = fuzzed("--json", "--images", str(tmp_path / "images"))
    assert (result.exit_code, json.loads(result.stdout)["images"]) == (0, plain + 4), result.output
    (tmp_path / "nothing").mkdir()
    result = fuzzed("--images", str(tmp_path / "nothing"))
    assert (result.exit_code, "there is no file in it" in result.stderr) == (2, True)
