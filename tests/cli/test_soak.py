"""`serve-app bench soak` with the application in this process: what it sends, says and returns."""

import csv
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.bench.load import Row
from serve_app.bench.torture import census, soak
from serve_app.bench.torture.census import OTHERS, REPLICAS, Look, Usage
from serve_app.cli import main
from serve_app.cli.bench import local_service
from serve_app.cli.bench.local_service import Service, StartError
from serve_app.http import build_app
from serve_app.scheduler import Terms
from serve_app.service import Classification
from tests.bench.torture.test_fuzz import Decoding, served
from tests.http.service import FakeService

STUB = Path(__file__).parents[2] / "deploy" / "stub.yaml"
MINUTES = 3
SHORT = (
    *("--minutes", str(MINUTES), "--duration-s", "0.2", "--share", "0.1", "--bad", "0.4", "--cases", "20"),
    *("--concurrency", "2", "--image-size", "32x24", "--processes", "1", "--timeout-s", "5"),
)
TIMED = {"p99, last minute / first", "p99, last third / first third"}
"""What the machine may have a part in."""


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr(soak, "MINUTE_S", 1.0)
    monkeypatch.setattr(soak, "PEAK_REPEATS", 1)
    monkeypatch.setattr(census, "PERIOD_S", 0.1)
    monkeypatch.setattr(import_module("serve_app.cli.bench.soak"), "WARM_UP_S", 0.1)


def uses(monkeypatch: pytest.MonkeyPatch, mib_per_look: float) -> None:
    looks = 0

    def look(pid: int) -> Look:
        nonlocal looks
        assert pid == os.getpid()
        looks += 1
        return Look({REPLICAS: Usage(400 + mib_per_look * looks, 50, 9), OTHERS: Usage(300, 99, 9)}, frozenset({1}))

    monkeypatch.setattr(census, "look", look)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Have an application served instead of any config, with memory that grows by so much with each look."""

    def prepare(app: ASGIApp, mib_per_look: float = 0.0) -> list[dict[str, Any]]:
        contents: list[dict[str, Any]] = []

        @contextmanager
        def running(content: dict[str, Any]) -> Iterator[Service]:
            contents.append(content)
            with served(app) as url:
                yield Service(url, tmp_path / "output.txt", os.getpid())

        monkeypatch.setattr(local_service, "running", running)
        uses(monkeypatch, mib_per_look)
        return contents

    return prepare


def soaked(*options: str) -> Result:
    return CliRunner().invoke(main, ["bench", "soak", str(STUB), *SHORT, *options])


def missed(result: Result) -> set[str]:
    checks = json.loads(result.stdout)["checks"]
    verdicts = [check["ok"] for check in checks]
    assert result.exit_code == (1 if False in verdicts else 2 if None in verdicts else 0)
    return {check["check"] for check in checks if check["ok"] is False} - TIMED


@dataclass
class Phase:
    """Of the run: the peak is measured before the load, in as many requests as the machine can."""

    is_load: bool = False


@pytest.fixture
def phase(monkeypatch: pytest.MonkeyPatch) -> Phase:
    found, measured = Phase(), soak.peak_row

    def peak_row(*arguments: Any) -> Row:
        row = measured(*arguments)
        found.is_load = True
        return row

    monkeypatch.setattr(soak, "peak_row", peak_row)
    return found


def now_and_then(app: ASGIApp, status: int, phase: Phase) -> ASGIApp:
    """One good image in twenty of the load is answered with that, the first among them."""
    asked = 0

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal asked
        # Hostile requests do not say what sends them, but for such as say nonsense.
        is_good = scope["type"] == "http" and b"aiohttp" in dict(scope["headers"]).get(b"user-agent", b"")
        if is_good and phase.is_load:
            asked += 1
            if asked % 20 == 1:
                await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body", "body": b""})
                return
        await app(scope, receive, send)

    return failing


@dataclass
class Wearing(Decoding):
    """Of another class under load."""

    phase: Phase = field(default_factory=Phase)

    async def classify(self, image: object, terms: Terms) -> Classification:
        await super().classify(image, terms)
        return await FakeService.classify(self, b"8" if self.phase.is_load else b"7", terms)


def test_the_report_has_everything(serve: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    contents = serve(build_app(Decoding()))
    rows_path, page_path = tmp_path / "rows.csv", tmp_path / "report.html"
    result = soaked("--json", "--csv", str(rows_path), "--plot", str(page_path))
    report = json.loads(result.stdout)
    assert missed(result) == set()
    assert [content["applications"][0]["args"]["device"] for content in contents] == ["stub"]
    assert report["known_images"] == 16
    rate_per_s = 0.1 * report["peak_per_s"]
    assert [minute["minute"] for minute in report["minutes"]] == list(range(MINUTES))
    for minute in report["minutes"]:
        assert minute["good"] == pytest.approx(0.6 * rate_per_s, abs=1)
        assert minute["failed"] == 0
        assert minute["usage"][REPLICAS] == {"memory_mib": 400, "descriptors": 50, "threads": 9}
    hostile = sum(n for results in report["hostile"].values() for n in results.values())
    assert hostile == pytest.approx(0.4 * rate_per_s * MINUTES, abs=MINUTES)
    assert report["trends"][REPLICAS] == {"level": 400, "per_hour": 0, "noise_per_hour": 0}
    assert len(report["looks"]["seconds"]) == len(report["looks"][REPLICAS]) > MINUTES
    with rows_path.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["usage.other.descriptors"] for row in rows] == ["99.0"] * MINUTES
    page = page_path.read_text()
    assert "Soak of stub.yaml" in page
    assert "<td>known images answered otherwise</td>" in page


def test_the_tables_say_what_was_held(serve: Callable[..., list[dict[str, Any]]]) -> None:
    serve(build_app(Decoding()))
    lines = [" ".join(line.split()) for line in soaked().stdout.splitlines()]
    assert "good requests failed or refused 0 <= 0 yes" in lines
    assert "replicas 400 400 +0.0 ± 0.0 50.0 50.0 9.0 9.0" in lines
    assert any(line.startswith("peak: ") and "0.1 of it offered, 40 % hostile, seed 1" in line for line in lines)


@pytest.mark.parametrize("status", [500, 503])
def test_a_good_request_that_fails_or_is_refused_is_found(
    serve: Callable[..., list[dict[str, Any]]], phase: Phase, status: int
) -> None:
    serve(now_and_then(build_app(Decoding()), status, phase))
    result = soaked("--json")
    assert missed(result) == {"good requests failed or refused"}
    assert list(json.loads(result.stdout)["good"]["errors"]) == [str(status)]


def test_an_answer_that_changes_is_found(serve: Callable[..., list[dict[str, Any]]], phase: Phase) -> None:
    serve(build_app(Wearing(phase=phase)))
    result = soaked("--json")
    assert missed(result) == {"known images answered otherwise"}
    assert list(json.loads(result.stdout)["good"]["errors"]) == ["wrong class"]


def test_a_leak_is_found(serve: Callable[..., list[dict[str, Any]]]) -> None:
    serve(build_app(Decoding()), mib_per_look=0.5)
    assert missed(soaked("--json")) == {"replicas' memory slope", "whole service's memory slope"}


def test_a_service_that_answers_nothing_cannot_be_measured(serve: Callable[..., list[dict[str, Any]]]) -> None:
    async def broken(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    serve(broken)
    result = soaked()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "a good image was answered with 500" in result.stderr


def test_a_service_that_does_not_start_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def running(_: object) -> Iterator[None]:
        raise StartError("it did not start")
        yield

    monkeypatch.setattr(local_service, "running", running)
    result = soaked()
    assert (result.exit_code, result.stderr.strip().splitlines()[-1]) == (2, "it did not start")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--minutes", "1"), "--minutes"),
        (("--share", "2"), "--share"),
        (("--bad", "1"), "--bad"),
        (("--plot", "report.txt"), "--plot"),
    ],
)
def test_wrong_options_are_refused(options: tuple[str, ...], named: str) -> None:
    result = CliRunner().invoke(main, ["bench", "soak", str(STUB), *options])
    assert (result.exit_code, named in result.stderr) == (2, True)
