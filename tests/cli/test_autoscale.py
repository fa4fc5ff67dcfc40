"""`serve-app bench autoscale` with services that were never started: what it sends, says and returns."""

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from serve_app.bench.autoscale import bars, traffic
from serve_app.cli import main
from serve_app.cli.bench import local_service
from serve_app.cli.bench.local_service import Service, StartError
from tests.bench import server
from tests.bench.server import Answer

SHORT = ("--after-s", "1", "--image-size", "32x24", "--processes", "1", "--timeout-s", "5", "--rate", "20")
DEPLOY = Path(__file__).parents[2] / "deploy" / "stub.yaml"
AUTOSCALING = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 12}
REPLICA = {"replica_id": "kcyz1oua", "state": "RUNNING"}
SEEN = {"status": "HEALTHY", "message": "", "target_num_replicas": 1, "replicas": [REPLICA]}
APPLICATION = {"status": "RUNNING", "message": "", "deployments": {"Classifier": SEEN}}
API = {"applications": {"serve-app": APPLICATION}, "proxies": {}}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr(traffic, "STEADY_S", 1.0)
    monkeypatch.setattr(traffic, "SPIKE_S", 1.0)


def config(autoscaling: dict[str, Any] | None = AUTOSCALING, **args: Any) -> dict[str, Any]:
    """deploy/stub.yaml with an autoscaler."""
    content: dict[str, Any] = yaml.safe_load(DEPLOY.read_text("utf-8"))
    application = content["applications"][0]
    application["args"].update(args)
    if autoscaling is not None:
        del application["deployments"][0]["num_replicas"]
        application["deployments"][0]["autoscaling_config"] = autoscaling
    return content


def written(path: Path, content: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return written(tmp_path / "ours.yaml", config()), written(tmp_path / "stock.yaml", config())


def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, api: dict[str, Any] = API) -> list[dict[str, Any]]:
    """One replica that never gets company, instead of any config; the configs that were to be served."""
    served: list[dict[str, Any]] = []

    async def reply(_: bytes) -> Answer:
        return Answer(body=json.dumps({"replica": REPLICA["replica_id"]}).encode())

    @contextmanager
    def running(content: dict[str, Any]) -> Iterator[Service]:
        served.append(content)
        with server.running(reply, readiness=Answer(body=json.dumps(api).encode())) as url:
            log = tmp_path / "output.txt"
            log.write_text(f"ready {url}\nlive  RAY_AUTH_MODE=token .venv/bin/serve deploy -a {url} CONFIG\n")
            yield Service(url, log, os.getpid())

    monkeypatch.setattr(local_service, "running", running)
    return served


def scaled(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["bench", "autoscale", *map(str, arguments)])


def test_each_config_is_served_under_the_same_traffic(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path], tmp_path: Path
) -> None:
    monkeypatch.setitem(traffic.SHAPES, "step", traffic.SHAPES["spike"])  # as short
    monkeypatch.setattr(bars, "DECISION_S", 0.5)
    served = serve(monkeypatch, tmp_path)
    rows_path, page_path = tmp_path / "rows.csv", tmp_path / "report.html"
    result = scaled(*files, "--shape", "step", "--json", "--csv", rows_path, "--plot", page_path, *SHORT)
    report = json.loads(result.stdout)
    assert served == [config()] * 2
    assert [(one["shape"], one["service"]) for one in report["trials"]] == [("step", "ours"), ("step", "stock")]
    for one in report["trials"]:
        assert [round(phase["offered_per_s"]) for phase in one["phases"].values()] == [20, 100, 20]
        assert [second["offered"] for second in one["timeline"]] == [20, 100, 20]
        assert one["replicas"][0]["running"] == one["most_running"] == 1
        assert one["decided_s"] is None
        assert {check["check"]: check["ok"] for check in one["checks"]} == {
            "new replica ready, less start-up": False,
            "reversals": True,
            "failed or lost": True,
        }
    assert result.exit_code == 1
    with rows_path.open(newline="") as opened:
        assert [line["service"] for line in csv.DictReader(opened)] == ["ours", "stock"]
    page = page_path.read_text()
    assert "Autoscaling of ours, stock" in page
    assert "<td>failed or lost</td>" in page


def test_the_low_rate_is_half_of_what_a_stub_can_do(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path], tmp_path: Path
) -> None:
    serve(monkeypatch, tmp_path)
    result = scaled(files[0], "--shape", "spike", "--times", "1.5", *SHORT[:-2])
    assert result.exit_code == 0, result.output
    assert "60.606/s and 1.5 times that" in result.stdout  # 8 images in 50 + 8 x 2 ms
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "spike ours reversals 0 <= 1 yes" in lines


def test_where_nothing_is_seen_of_the_replicas_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path], tmp_path: Path
) -> None:
    serve(monkeypatch, tmp_path, api={"applications": {}, "proxies": {}})
    result = scaled(files[0], "--shape", "spike", *SHORT)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "does not tell of serve-app" in result.stderr


def test_a_service_that_does_not_start_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path]
) -> None:
    @contextmanager
    def running(_: object) -> Iterator[None]:
        raise StartError("it did not start")
        yield

    monkeypatch.setattr(local_service, "running", running)
    result = scaled(*files)
    assert (result.exit_code, result.stderr.strip().splitlines()[-1]) == (2, "it did not start")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (config(autoscaling=None), "the number of replicas is fixed"),
        (config(autoscaling={"max_replica": 4}), "max_replica"),
        (config(device="cpu"), "give --rate"),
        ("text", "it must be a mapping"),
    ],
)
def test_a_file_that_cannot_be_measured_is_refused(tmp_path: Path, content: object, named: str) -> None:
    result = scaled(written(tmp_path / "service.yaml", content))
    assert (result.exit_code, named in " ".join(result.stderr.split())) == (2, True)


def test_two_files_of_one_name_could_not_be_told_apart(tmp_path: Path) -> None:
    result = scaled(*(written(tmp_path / folder / "service.yaml", config()) for folder in ("a", "b")))
    assert (result.exit_code, "two of them are named service" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--shape", "sine"), "there is step, ramp, spike"),
        (("--times", "1"), "--times"),
        (("--rate", "0"), "--rate"),
        (("--high-s", "1"), "--high-s"),
        (("--plot", "report.txt"), "--plot"),
    ],
)
def test_wrong_options_are_refused(files: tuple[Path, Path], options: tuple[str, ...], named: str) -> None:
    result = scaled(files[0], *options)
    assert (result.exit_code, named in result.stderr) == (2, True)


def test_a_file_that_is_not_there_is_refused() -> None:
    result = scaled("missing.yaml")
    assert (result.exit_code, "missing.yaml" in result.stderr) == (2, True)
