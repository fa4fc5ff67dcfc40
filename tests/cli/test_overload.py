"""`serve-app bench overload` with services that were never started: what it sends, says and returns."""

import asyncio
import csv
import importlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from serve_app.bench import overload, resident
from serve_app.bench.generator import Generator
from serve_app.bench.images import Images
from serve_app.cli import main
from serve_app.cli.bench import local_service
from serve_app.cli.bench.local_service import PATH, StartError
from tests.bench import server
from tests.bench.server import Answer, Reply

SHORT = ("--overload-s", "2", "--duration-s", "0.4", "--image-size", "32x24", "--processes", "1", "--timeout-s", "5")
DEPLOY = Path(__file__).parents[2] / "deploy" / "local.yaml"
LONE_S, CAPACITY_PER_S = 0.02, 100.0
CHECKS = 8


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr(overload, "QUIET_S", 1.0)
    monkeypatch.setattr(overload, "settle", lambda *_: None)
    monkeypatch.setattr(importlib.import_module("serve_app.cli.bench.overload"), "WARM_UP_S", 0.1)
    monkeypatch.setattr(resident, "replicas_bytes", lambda: 1 << 30)
    monkeypatch.setattr("serve_app.bench.resident.PERIOD_S", 0.3)


def config(**changes: Any) -> dict[str, Any]:
    """deploy/local.yaml with these in its user_config, None: without."""
    content: dict[str, Any] = yaml.safe_load(DEPLOY.read_text("utf-8"))
    deployment = content["applications"][0]["deployments"][0]
    changed = {**deployment["user_config"], **changes}
    deployment["user_config"] = {key: value for key, value in changed.items() if value is not None}
    return content


def elsewhere() -> dict[str, Any]:
    content = config(latency_slo_ms=2000)
    content["applications"][0]["route_prefix"] = "/a"
    return content


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "service.yaml"
    path.write_text(yaml.safe_dump(config(latency_slo_ms=2000)), "utf-8")
    return path


def refusing() -> Reply:
    """Admits what it can answer at its capacity, and refuses the rest at once."""
    free_at = 0.0

    async def reply(_: bytes) -> Answer:
        nonlocal free_at
        now = time.monotonic()
        if free_at > now + 0.05:
            return server.REFUSAL
        free_at = max(free_at, now) + 1 / CAPACITY_PER_S
        await asyncio.sleep(LONE_S)
        return Answer()

    return reply


async def broken(_: bytes) -> Answer:
    return Answer(500)


def serve(monkeypatch: pytest.MonkeyPatch, reply: Reply) -> list[dict[str, Any]]:
    """What is served instead of any config; the configs that were to be."""
    served: list[dict[str, Any]] = []

    @contextmanager
    def under_load(content: dict[str, Any], pictures: Images, *, processes: int) -> Iterator[tuple[str, Generator]]:
        served.append(content)
        with server.running(reply) as url, Generator(pictures.files, processes) as generator:
            yield url + PATH, generator

    monkeypatch.setattr(local_service, "under_load", under_load)
    return served


def overloaded(file: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["bench", "overload", str(file), *options, *SHORT])


def test_the_report_has_every_phase_and_every_check(
    monkeypatch: pytest.MonkeyPatch, file: Path, tmp_path: Path
) -> None:
    served = serve(monkeypatch, refusing())
    rows_path, page_path = tmp_path / "rows.csv", tmp_path / "report.html"
    files = ("--csv", str(rows_path), "--plot", str(page_path))
    result = overloaded(file, "--json", "--deadline-ms", "2000,1", *files)
    report = json.loads(result.stdout)
    assert served == [config(latency_slo_ms=2000)]
    phases = [phase["phase"] for phase in report["phases"]]
    assert list(dict.fromkeys(phases)) == ["alone", "peak", "quiet", "overload", "mixed deadlines"]
    assert [phase["deadlines_told"] for phase in report["phases"][-2:]] == [False, True]
    flood = report["phases"][phases.index("overload")]
    assert flood["offered_per_s"] == pytest.approx(3 * report["peak_per_s"], rel=0.01)
    assert flood["refusals"]["with_retry_after"] == flood["refusals"]["count"] > 0
    assert [second["at_s"] for second in report["timeline"]] == [0, 1, 2, 3]
    assert len(report["checks"]) == CHECKS + 1
    verdicts = {check["check"]: check["ok"] for check in report["checks"]}
    for held in ("p99 of answers", "refused with Retry-After", "memory growth"):
        assert verdicts[held] is True
    assert result.exit_code == int(False in verdicts.values())
    with rows_path.open(newline="") as opened:
        assert [line["check"] for line in csv.DictReader(opened)] == list(verdicts)
    page = page_path.read_text()
    assert "<td>refused with Retry-After</td>" in page
    assert "Overload of service.yaml" in page


def test_the_table_says_what_was_measured_against_which_bar(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    serve(monkeypatch, refusing())
    result = overloaded(file)
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "refused with Retry-After 100 % >= 100 % yes" in lines
    assert "failed or lost 0 <= 0 yes" in lines
    assert "mixed deadlines" not in result.stdout
    assert any(line.startswith("peak: ") and "within 2000 ms" in line for line in lines)


def test_a_service_that_answers_nothing_cannot_be_measured(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    serve(monkeypatch, broken)
    result = overloaded(file)
    assert result.exit_code == 2
    assert "not one lone request was answered" in result.stderr
    assert result.stdout == ""


def test_a_service_that_does_not_start_ends_the_command(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    @contextmanager
    def under_load(*_: object, **__: object) -> Iterator[None]:
        raise StartError("it did not start")
        yield

    monkeypatch.setattr(local_service, "under_load", under_load)
    result = overloaded(file)
    assert (result.exit_code, result.stderr.strip().splitlines()[-1]) == (2, "it did not start")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (config(latency_slo_ms=None), "user_config.latency_slo_ms is not set"),
        (config(latency_slo_ms=-1), "latency_slo_ms"),
        ({"applications": []}, "there is no application serve_app.app:build_app"),
        (elsewhere(), "with route_prefix /"),
        ({"aplications": []}, "did you mean `applications`"),
        ("text", "it must be a mapping"),
    ],
)
def test_a_file_that_has_no_service_with_an_objective_is_refused(tmp_path: Path, content: object, named: str) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    result = overloaded(path)
    assert result.exit_code == 2
    assert "FILE" in result.stderr
    assert named in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--times", "1"), "--times"),
        (("--overload-s", "1"), "--overload-s"),
        (("--deadline-ms", "soon"), "--deadline-ms"),
        (("--plot", "report.txt"), "--plot"),
    ],
)
def test_wrong_options_are_refused(file: Path, options: tuple[str, ...], named: str) -> None:
    result = CliRunner().invoke(main, ["bench", "overload", str(file), *options])
    assert (result.exit_code, named in result.stderr) == (2, True)


def test_a_file_that_is_not_there_is_refused() -> None:
    result = overloaded(Path("missing.yaml"))
    assert (result.exit_code, "missing.yaml" in result.stderr) == (2, True)
