"""`serve-app tune` with times that were made up; tests/serve/test_bench.py measures and serves."""

import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from serve_app import architectures, config_file
from serve_app.bench import forward
from serve_app.bench.forward import Curve, Setup, doublings
from serve_app.bench.generator import Run
from serve_app.bench.images import Images
from serve_app.bench.load import Row
from serve_app.bench.samples import STAGES, Samples, summarise
from serve_app.bench.times import Times
from serve_app.cli import main
from tests.bench import made_up


@pytest.fixture(autouse=True)
def _made_up_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def curve(_: Setup, sizes: Sequence[int], repeats: int, on_step: Callable[[int], None]) -> Curve:
        # The knee is where the made-up pipeline's sizes end.
        times = {size: [float(min(size, 16))] * repeats for size in sizes if size <= 16}
        times_ms = {size: [5.0 + ms for ms in found] for size, found in times.items()}
        return Curve("bf16", times_ms, dict.fromkeys(times_ms))

    def measured(_: Setup, max_batch_size: int, pictures: Images) -> Times:
        assert pictures.files
        return made_up.times({size: made_up.CPU_LIKE[size] for size in doublings(max_batch_size)})

    monkeypatch.setattr(forward, "curve", curve)
    monkeypatch.setattr(importlib.import_module("serve_app.cli.tune"), "_times", measured)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tuned(*options: str) -> Result:
    return CliRunner().invoke(main, ["tune", "--device", "cpu", "--threads", "2", *options])


def test_it_writes_a_config_that_passes_the_check(folder: Path) -> None:
    result = tuned("--weights", "bundled", "--p99-ms", "250")
    assert result.exit_code == 0, result.output
    content = config_file.read(folder / "tuned.yaml")
    assert config_file.check(content) == []
    args = content["applications"][0]["args"]
    assert args == {"arch": architectures.NARROW, "weights": "bundled", "device": "cpu", "precision": "bf16"}
    assert "serve-app bench load --rate" in result.output


def test_as_json_it_says_what_it_wrote(folder: Path) -> None:
    result = tuned("--weights", "bundled", "--p99-ms", "250", "--json", "--output", "here.yaml")
    report = json.loads(result.stdout)
    deployment = yaml.safe_load((folder / report["path"]).read_text())["applications"][0]["deployments"][0]
    assert deployment["user_config"]["max_batch_size"] == report["settings"]["max_batch_size"]
    assert deployment["user_config"]["batch_buckets"] == report["settings"]["batch_buckets"]
    assert [size["max_batch_size"] for size in report["sizes"] if size["chosen"]] == [
        report["settings"]["max_batch_size"]
    ]
    assert report["predicted"]["p99_ms"] <= 250
    assert report["predicted"]["limited_by"] in ("bound", "device", "process")
    assert report["verified"] is None


@pytest.mark.parametrize(("late", "exit_code"), [(0, 0), (5, 1)])
def test_the_file_says_what_became_of_its_prediction(
    folder: Path, monkeypatch: pytest.MonkeyPatch, late: int, exit_code: int
) -> None:
    count = 200
    sent, done = np.zeros(count), np.repeat([0.9, 0.05], [late, count - late])
    status = np.array(["503"] + ["200"] * (count - 1))
    stages_ms, no = np.ones((count, len(STAGES))), np.full(count, np.nan)
    samples = Samples(sent, sent, done, status, np.ones(count), stages_ms, no, np.zeros(count, np.bool_))
    row = Row(Run("", 10, rate_per_s=20), (summarise(samples, 10, 250.0, 0),))
    monkeypatch.setattr(importlib.import_module("serve_app.cli.tune"), "_verified", lambda *_: row)
    result = tuned("--weights", "bundled", "--p99-ms", "250", "--verify")
    assert result.exit_code == exit_code, result.output
    first = (folder / "tuned.yaml").read_text().splitlines()[0]
    assert first.startswith("# Verified: the bound holds" if exit_code == 0 else "# Verified: IT DOES NOT HOLD 250 ms")
    assert "1 with 503" in result.output
    assert ("bench load --sweep" in result.output) is (exit_code == 1)
    assert config_file.check(config_file.read(folder / "tuned.yaml")) == []


def test_a_file_that_is_there_is_kept(folder: Path) -> None:
    (folder / "tuned.yaml").write_text("mine")
    result = tuned("--weights", "bundled", "--p99-ms", "250")
    assert result.exit_code == 2
    assert "--force" in result.output
    assert (folder / "tuned.yaml").read_text() == "mine"
    assert tuned("--weights", "bundled", "--p99-ms", "250", "--force").exit_code == 0
    assert (folder / "tuned.yaml").read_text() != "mine"


def test_a_bound_that_one_image_cannot_meet_is_refused_with_what_could(folder: Path) -> None:
    result = tuned("--weights", "bundled", "--p99-ms", "14")
    assert result.exit_code == 2
    assert not (folder / "tuned.yaml").exists()
    output = " ".join(result.output.split())
    assert "one image takes 3.0 ms to decode, 9.0 ms on the device" in output
    smallest_ms = output.partition("what could: --p99-ms ")[2].partition(",")[0]
    assert tuned("--weights", "bundled", "--p99-ms", smallest_ms).exit_code == 0


def test_a_bound_below_the_device_alone_is_refused_before_the_service_is_started(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("serve_app.cli.tune"), "_times", None)
    result = tuned("--weights", "bundled", "--p99-ms", "5")
    assert result.exit_code == 2
    assert "what could: a bound well above that" in result.output
    assert not (folder / "tuned.yaml").exists()


def test_a_rate_beyond_this_machine_is_for_a_cluster(folder: Path) -> None:
    result = tuned("--weights", "bundled", "--p99-ms", "250", "--rate", "100000", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["settings"]["min_replicas"] > 100
    (folder / "tuned.yaml").unlink()
    result = tuned("--weights", "bundled", "--p99-ms", "250", "--rate", "100000", "--verify")
    assert result.exit_code == 2
    assert "this machine holds" in result.output
    assert not (folder / "tuned.yaml").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--p99-ms", "0"], "--p99-ms"),
        (["--p99-ms", "250", "--rate", "nan"], "--rate"),
        (["--weights", "bundled"], "--p99-ms"),
        (["--p99-ms", "250", "--weights", "nowhere.pth"], "nowhere.pth"),
        (["--p99-ms", "250", "--arch", "resnet19"], "resnet19"),
        (["--p99-ms", "250", "--output", "no/such/folder.yaml"], "--output"),
        (["--p99-ms", "250", "--weights", "bundled", "--images", "."], "no image"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_is_refused_before_anything_is_measured(options: list[str], message: str) -> None:
    result = tuned(*options)
    assert result.exit_code == 2
    assert message in result.output
