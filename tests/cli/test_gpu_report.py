"""`serve-app bench gpu-report --quick` without a GPU, and with services that were never started."""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from serve_app import engine
from serve_app.bench import isolated
from serve_app.bench.generator import Generator
from serve_app.bench.gpu_report import ceilings, leftovers, network, scale, subject, tasks
from serve_app.bench.images import Images
from serve_app.cli import main
from serve_app.cli.bench import local_service
from serve_app.cli.bench.local_service import PATH, StartError
from serve_app.config import Args
from serve_app.decode import Decoder, resize_and_crop
from serve_app.engine import Execution, Item, Outcome, gpu_decode
from serve_app.errors import RequestError
from serve_app.jpeg import Jpeg
from serve_app.weights import Checkpoint
from tests.bench import server

BUNDLED = ("--weights", "bundled")
NEEDS_A_GPU = "not measured: needs a GPU"


class Started:
    """The services that were to be, and whether they start."""

    def __init__(self) -> None:
        self.contents: list[dict[str, Any]] = []
        self.broken = False


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    found = Started()

    @contextmanager
    def under_load(
        content: dict[str, Any], pictures: Images, _: Mapping[str, str], processes: int, start_timeout_s: float
    ) -> Iterator[tuple[str, Generator]]:
        found.contents.append(content)
        if found.broken:
            raise StartError(f"it did not start in {start_timeout_s:.0f} s")
        with server.running() as url, Generator(pictures.files, processes) as generator:
            yield url + PATH, generator

    monkeypatch.setattr(local_service, "under_load", under_load)
    # In this process, which has torch already.
    monkeypatch.setattr(isolated, "stream", lambda function, *arguments, limit_s: function(*arguments))
    monkeypatch.setenv("COLUMNS", "1000")
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reported(*options: str) -> Result:
    quick = ("--quick", "--image-size", "96x64", "--processes", "1")
    return CliRunner().invoke(main, ["bench", "gpu-report", *quick, *options])


class OnTheCpu:
    """An engine that decodes JPEGs, and takes two batches at once; or the decoder in it: all on the CPU."""

    max_in_flight = 2

    def __init__(self, engine: Any, decoder: Decoder) -> None:
        self._engine = engine
        self._decoder = decoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def launch(self, images: Sequence[Item]) -> Execution:
        crops = [self._decoder(image.data) if isinstance(image, Jpeg) else image for image in images]
        execution: Execution = self._engine.launch(crops)
        return execution

    def infer(self, images: Sequence[Item]) -> list[Outcome]:
        return self.launch(images).results()

    def warm_up(self, *_: int) -> float:
        return float(self._engine.warm_up(*_)) if self._engine else 0.0

    def decode_into(self, images: Sequence[Jpeg], out: torch.Tensor) -> dict[int, RequestError]:
        for i, image in enumerate(images):
            out[i] = torch.from_numpy(np.array(self._decoder(image.data)))
        return {}


def pretend_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every path that a GPU takes, on the CPU."""

    def load(args: Args, num_threads: int) -> tuple[Checkpoint, Any]:
        checkpoint, loaded = engine.load(args.model_copy(update={"decode": "cpu"}), num_threads)
        return checkpoint, OnTheCpu(loaded, Decoder(checkpoint.spec.geometry, args.max_image_pixels))

    def resize_into(images: Sequence[torch.Tensor], _: object, rows: Sequence[int], out: torch.Tensor, of: Any) -> None:
        for row, photo in zip(rows, images, strict=True):
            crop = np.array(resize_and_crop(Image.fromarray(photo.permute(1, 2, 0).numpy()), of))
            out[row] = torch.from_numpy(crop ^ 1)  # one level off, everywhere

    event = SimpleNamespace(record=lambda: None, synchronize=lambda: None, elapsed_time=lambda _: 1.0)
    monkeypatch.setattr(subject.Subject, "on_gpu", True)
    monkeypatch.setattr(subject, "load", load)
    monkeypatch.setattr(gpu_decode, "GpuDecoder", lambda _, decoder, __: OnTheCpu(None, decoder))
    kernel = SimpleNamespace(resize_into=resize_into)
    monkeypatch.setitem(sys.modules, "serve_app.engine.resize_kernel", kernel)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "Event", lambda **_: event)
    monkeypatch.setattr(ceilings, "SIDE", 8)
    monkeypatch.setattr(ceilings, "COPIED_BYTES", 64)
    monkeypatch.setattr(network, "BAR_AT", max(scale.QUICK.forward_sizes))


def every_verdict(report: dict[str, Any]) -> list[str]:
    return [line["verdict"] for part in (report, *report["rows"]) for line in part.get("lines", part.get("verdicts"))]


def unmeasured(verdicts: Sequence[str]) -> list[str]:
    """But for the open loop's: which rate holds is the machine's affair, and of what else it does meanwhile."""
    no_rate = ("not measured: none that was tried", "not measured: no rate was found")
    return [verdict for verdict in verdicts if verdict.startswith("not measured") and not verdict.startswith(no_rate)]


def rows(report: dict[str, Any]) -> dict[str, list[str]]:
    return {row["row"]: [line["verdict"] for line in row["lines"]] for row in report["rows"]}


def test_on_a_cpu_every_row_is_measured_that_needs_no_gpu(started: Started, folder: Path) -> None:
    result = reported("--device", "cpu", *BUNDLED, "--json", "report.json", "--output", "report.md")
    report = json.loads((folder / "report.json").read_text())
    assert result.exit_code == (1 if "NOT met" in every_verdict(report) else 2)
    found = rows(report)
    assert len(found) == len(tasks.tasks(scale.QUICK))
    without = [name for name, verdicts in found.items() if verdicts == [NEEDS_A_GPU]]
    assert without == [
        "ceilings of the GPU",
        "the network alone, compiled",
        "decode on the GPU beside the network",
        "start-up, compiled, its cache full",
    ]
    in_part = [name for name, verdicts in found.items() if NEEDS_A_GPU in verdicts[1:]]
    assert in_part == ["decode and resize on the GPU", "fidelity with decode on the GPU"]
    measured = [verdict for name in set(found) - set(without) for verdict in found[name] if verdict != NEEDS_A_GPU]
    assert unmeasured(measured) == [], report
    assert [row["failure"] for row in report["rows"]] == [""] * len(report["rows"])
    assert [content["applications"][0]["args"]["arch"] for content in started.contents] == ["resnet10_narrow"] * 2
    assert leftovers.MARK not in os.environ


def test_with_a_gpu_every_row_is_measured(started: Started, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_a_gpu(monkeypatch)
    result = reported("--device", "cpu", *BUNDLED, "--json", "report.json")
    report = json.loads((folder / "report.json").read_text())
    assert [row["failure"] for row in report["rows"]] == [""] * len(report["rows"])
    assert unmeasured(every_verdict(report)) == []
    assert result.exit_code in (0, 1, 2)
    lines = {line["what"]: line["value"] for row in report["rows"] for line in row["lines"]}
    assert lines["largest difference: GPU decode and resize"] == 0
    assert lines["mean difference: the GPU's resize alone"] == 1
    assert lines["same first class: bf16, decode on the GPU"] == 100
    ours, _ = started.contents
    assert ours["applications"][0]["args"]["decode"] == "gpu"
    assert ours["applications"][0]["deployments"][0]["ray_actor_options"]["num_gpus"] == 1


def test_the_markdown_says_what_the_table_does(started: Started, folder: Path) -> None:
    result = reported("--device", "stub")
    text = (folder / "gpu-report.md").read_text()
    assert text.startswith("# GPU report: resnet18 on stub\n")
    assert "## 7. Served over HTTP, closed loop" in text
    assert "not measured: the stub is no network" in text
    assert "| served over the slowest stage alone |" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1
    assert "7. Served over HTTP, closed loop" in result.stdout
    assert result.stdout.rstrip().endswith("all of it in gpu-report.md")
    assert not list(folder.glob("*.part"))
    assert "1 of " in result.stderr


def test_services_that_do_not_start_stop_nothing_else(started: Started, folder: Path) -> None:
    started.broken = True
    result = reported("--device", "stub", "--json")
    assert result.exit_code == 2
    report = json.loads(result.stdout)
    found = rows(report)
    assert found["served, 1 replica"][0].startswith("not measured: StartError: it did not start in ")
    assert found["decode on the CPU beside the network"] == ["no bar"]
    failed = [row["failure"] for row in report["rows"] if row["failure"]]
    assert "StartError" in failed[0]
    assert "## What ended: served, 1 replica" in (folder / "gpu-report.md").read_text()


def test_without_time_nothing_is_measured_and_nothing_is_started(started: Started, folder: Path) -> None:
    result = reported("--device", "stub", "--budget-s", "0.001", "--json")
    assert result.exit_code == 2
    assert all("not measured: takes" in verdict for row in rows(json.loads(result.stdout)).values() for verdict in row)
    assert started.contents == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--arch", "vgg16"), "no ResNet is called"),
        (("--device", "cuda:7"), "--device cuda:7"),
        (("--weights", "missing.pth"), "missing.pth"),
        (("--output", "missing/report.md"), "--output"),
        (("--json", "missing/report.json"), "--json"),
        (("--budget-s", "0"), "--budget-s"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_measured(
    started: Started, folder: Path, options: tuple[str, ...], named: str
) -> None:
    result = reported(*options)
    assert (result.exit_code, named in result.stderr) == (2, True), result.output
    assert started.contents == []
    assert list(folder.iterdir()) == []
