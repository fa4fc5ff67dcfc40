import csv
import json
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from serve_app import cli
from serve_app.bench import forward, isolated, machine
from serve_app.bench.generator import Generator, GeneratorError
from serve_app.bench.samples import Samples
from serve_app.engine.base import STAGES
from tests.bench import server
from tests.bench.server import Answer

SHORT = ("--duration-s", "0.2", "--warm-up-s", "0.1", "--processes", "1", "--image-size", "32x24")
TOLD = {"timings_ms": {"decode": 0.1, "queue": 0.2, "device": 0.3}, "images": [{"batch_size": 4}]}


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a table breaks no lines."""
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.fixture
def url() -> Iterator[str]:
    """Of a service that answers at once, in our format."""

    async def reply(_: bytes) -> Answer:
        return Answer(body=json.dumps(TOLD).encode())

    with server.running(reply) as url:
        yield url


def bench(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.main, ["bench", *map(str, arguments)])


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("load", "--rate, --sweep or --concurrency"),
        ("load --sweep --rate 10", "--p99-ms"),
        ("load --sweep --p99-ms 50 --rate 10,20", "one --rate"),
        *((f"load --rate {rates}", "--rate") for rates in ("0", "-1", "ten", "10,,20", "inf", "nan")),
        ("load --concurrency 1.5", "--concurrency"),
        ("load --rate 10 --p99-ms 0", "--p99-ms"),
        ("load --rate 10 --p99-ms nan", "--p99-ms"),
        ("load --rate 10 --duration-s inf", "--duration-s"),
        ("compare --warm-up-s nan", "--warm-up-s"),
        ("load --rate 10 --tolerance 0", "--tolerance"),
        ("load --rate 10 --deadline-ms 100,0", "--deadline-ms"),
        ("load --rate 10 --deadline-ms 100 --deadlines later", "--deadlines"),
        ("load --rate 10 --deadlines both", "--deadlines both: say which: --deadline-ms"),
        ("load --concurrency 2 --deadline-ms 100", "--deadline-ms is of --rate alone"),
        ("load --sweep --p99-ms 50 --deadline-ms 100", "--deadline-ms is of --rate alone"),
        *((f"load --rate 10 --image-size {size}", "--image-size") for size in ("500", "0x5", "9000x1", "axb")),
        ("load --rate 10 --images {folder}/missing", "--images"),
        ("load --rate 10 --images {folder}", "there is no image in it"),
        ("load --rate 10 --csv {folder}/missing/rows.csv", "--csv"),
        ("load --rate 10 --plot {folder}/missing/report.html", "--plot"),
        ("load --rate 10 --plot {folder}/report.txt", "--plot"),
        ("forward --plot {folder}/report.jpg", "--plot"),
        ("forward --csv {folder}/missing/rows.csv", "--csv"),
        ("forward --arch ,", "--arch"),
        ("forward --arch resnet18,resnet19", "arch: no ResNet is called 'resnet19'; did you mean resnet18"),
        ("forward --device cuda:99", "--device cuda:99: there is none here; there is cpu"),
        ("forward --device tpu", "--device tpu"),
        ("forward --max-batch-size 0", "--max-batch-size"),
        ("forward --images {folder}", "there is no image in it"),
        ("generator --processes 0", "--processes"),
        ("generator --image-size 500", "--image-size"),
    ],
)
def test_what_cannot_be_measured_is_refused_and_says_what_to_change(tmp_path: Path, command: str, named: str) -> None:
    result = bench(*(word.format(folder=tmp_path) for word in command.split(" ")))
    assert result.exit_code == 2
    assert named in result.stderr
    assert result.stdout == ""


def test_a_file_that_could_not_be_written_is_refused_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    result = bench("load", "--rate", "10", "--csv", tmp_path / "rows.csv")
    assert result.exit_code == 2
    assert "may not be written" in result.stderr


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serve_app.bench.figures", None)
    result = bench("load", "--rate", "10", "--plot", "report.html")
    assert result.exit_code == 2
    assert "pip install 'serve-app[bench]'" in result.stderr


def test_without_a_service_the_url_is_named(tmp_path: Path) -> None:
    with socket.socket() as bound:  # nobody else gets the port, and nobody listens
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        result = bench("load", "--rate", "10", "--url", url, *SHORT)
    assert result.exit_code == 2
    assert f"no service at {url}" in result.stderr
    assert "--url" in result.stderr


def test_a_service_that_is_not_ready_is_not_measured() -> None:
    with server.running(readiness=Answer(503)) as url:
        result = bench("load", "--rate", "10", "--url", url, *SHORT)
    assert result.exit_code == 2
    assert "answers 503" in result.stderr


class Greeting(Answer):
    """What no HTTP server says."""

    def as_bytes(self) -> bytes:
        return b"SSH-2.0-OpenSSH_9.9\r\n"


def test_a_server_that_speaks_no_http_is_refused() -> None:
    with server.running(readiness=Greeting()) as url:
        result = bench("load", "--rate", "10", "--url", url, *SHORT)
    assert (result.exit_code, url in result.stderr) == (2, True)


@pytest.mark.parametrize("url", ["nonsense", "http://", "http://127.0.0.1:abc", "http://a b"])
def test_what_is_no_url_is_refused(url: str) -> None:
    result = bench("load", "--rate", "10", "--url", url, *SHORT)
    assert (result.exit_code, "see --url" in result.stderr) == (2, True)


# --- load ----------------------------------------------------------------------------------------


def test_a_load_test_prints_json_and_writes_its_rows_and_its_figure(url: str, tmp_path: Path) -> None:
    rows_path, page_path = tmp_path / "rows.csv", tmp_path / "report.html"
    result = bench(
        *("load", "--url", f"{url}/", "--rate", "50,100", "--concurrency", "2", "--repeats", "2", "--p99-ms", "60000"),
        *("--json", "--csv", rows_path, "--plot", page_path, *SHORT),
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    rows = report["rows"]
    assert [(row["rate_per_s"], row["concurrency"]) for row in rows] == [(50, None), (100, None), (None, 2)]
    assert [row["requests"] for row in rows[:2]] == [2 * 10, 2 * 20]
    assert [(row["errors"], len(row["repeats"]), row["mean_batch"]) for row in rows] == [({}, 2, 4)] * 3
    assert (report["url"], report["p99_bound_ms"], report["sweep"]) == (url, 60000, None)

    with rows_path.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [(line["p99_ms"], line["stages_ms.http"]) for line in written] == [
        (str(row["p99_ms"]), str(row["stages_ms"]["http"])) for row in rows
    ]
    page = page_path.read_text()
    assert "<td>100</td>" in page
    assert "<td>2 at once</td>" in page


def test_a_bound_that_does_not_hold_is_exit_status_1_with_the_figures(url: str) -> None:
    result = bench("load", "--url", url, "--rate", "50", "--repeats", "1", "--p99-ms", "0.0001", *SHORT)
    assert result.exit_code == 1
    row = next(line.split() for line in result.stdout.splitlines() if line.lstrip().startswith("50.0"))
    assert (row[2], row[-2:]) == ("0.0", ["4.0", "0"])  # none of them good, batches of 4, none failed
    assert "generator: 1 process" in result.stderr


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_generator_that_sent_late_is_told(
    url: str, monkeypatch: pytest.MonkeyPatch, as_json: tuple[str, ...]
) -> None:
    run = Generator.run

    def late(*arguments: Any) -> tuple[Samples, float]:
        samples, cores = run(*arguments)
        return replace(samples, intended_s=samples.intended_s - 60), cores

    monkeypatch.setattr(Generator, "run", late)
    monkeypatch.setattr(Samples, "counted", lambda samples: samples)
    result = bench("load", "--url", url, "--rate", "50,100", "--repeats", "1", *as_json, *SHORT)
    assert result.exit_code == 0
    assert "in 2 of these runs the generator sent late" in result.stderr


def test_without_any_answer_the_exit_status_is_1_and_the_failures_are_shown() -> None:
    async def reply(_: bytes) -> Answer:
        return Answer(503)

    with server.running(reply) as url:
        result = bench("load", "--url", url, "--rate", "50", "--repeats", "1", *SHORT)
    assert result.exit_code == 1
    assert ["50.0", "503", "10"] in [line.split() for line in result.stdout.splitlines()]


def test_a_sweep_that_finds_no_rate_says_so(url: str) -> None:
    result = bench("load", "--url", url, "--sweep", "--rate", "2", "--p99-ms", "0.0001", "--repeats", "1", *SHORT)
    assert result.exit_code == 1
    assert "no rate was confirmed to hold a p99 of 0.0001 ms; the lowest that failed was 0.5/s" in result.stderr


def test_a_generator_that_fails_ends_the_command(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise GeneratorError("a process ended")

    monkeypatch.setattr(Generator, "run", fail)
    result = bench("load", "--url", url, "--rate", "50", *SHORT)
    assert (result.exit_code, result.stderr.strip()) == (2, "a process ended")


# --- generator -----------------------------------------------------------------------------------


def test_the_generator_measures_itself_against_a_server_that_does_nothing() -> None:
    result = bench("generator", "--duration-s", "0.2", "--processes", "1", "--image-size", "32x24", "--json")
    assert result.exit_code == 0, result.output
    closed, opened = json.loads(result.stdout)["rows"]
    assert (closed["concurrency"], opened["concurrency"]) == (32, None)
    assert opened["rate_per_s"] == pytest.approx(closed["completed_per_s"] / 2, rel=0.01)
    assert closed["completed_per_s"] > 0
    assert opened["completed_per_s"] > 0
    assert closed["errors"] == opened["errors"] == {}


# --- forward -------------------------------------------------------------------------------------


def here(function: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
    """Instead of `isolated.stream`: in this process, which has torch already."""
    return function(*arguments)


def test_forward_measures_every_lever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "stream", here)
    monkeypatch.setattr(forward, "_limit_memory", lambda _: None)  # it would be ours
    monkeypatch.setattr(forward, "timed_ms", partial(forward.timed_ms, min_measure_s=0))
    rows_path, page_path = tmp_path / "rows.csv", tmp_path / "report.html"
    result = bench(
        *("forward", "--arch", "resnet10_narrow,resnet18", "--device", "cpu", "--max-batch-size", "2"),
        *("--count", "4", "--repeats", "1", "--image-size", "64x48", "--json"),
        *("--csv", rows_path, "--plot", page_path),
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    batches = report["batch"]["rows"]
    assert [(row["batch_size"], row["error"]) for row in batches] == [(1, None), (2, None)]
    assert [row["batch_size"] for row in batches if row["knee"]] == [report["batch"]["knee"]]
    assert report["lesson"]["images"] == 4
    assert [row["arch"] for row in report["archs"]] == ["resnet10_narrow", "resnet18"]
    on_the_cpu = [(row["how"], row["precision"]) for row in report["precisions"] if row["device"] == "cpu"]
    assert on_the_cpu == [(how, precision) for how in ("eager", "engine") for precision in ("fp32", "bf16")]
    assert list(report["stages"]["ms_per_image"]) == ["decode", "resize", *STAGES]
    assert sum(report["stages"]["share"].values()) == pytest.approx(1, abs=0.001)
    with rows_path.open(newline="") as file:
        assert [line["images_per_s"] for line in csv.DictReader(file)] == [str(row["images_per_s"]) for row in batches]
    assert "<td>eager bf16, cpu</td>" in page_path.read_text()


@pytest.mark.parametrize(("taken", "warned"), [(0.1, False), (1.3, True)])
def test_a_busy_machine_is_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, taken: float, warned: bool
) -> None:
    def died(*_: object) -> Iterator[Any]:
        raise isolated.Died(1)

    monkeypatch.setattr(machine, "num_cores", lambda: 2)
    monkeypatch.setattr(machine, "cores_taken", lambda: taken)
    monkeypatch.setattr(isolated, "stream", died)
    result = bench("forward", "--arch", "resnet10_narrow", "--device", "cpu", "--image-size", "32x24")
    assert ("other programs take 1.3 of the 2 cores" in result.stderr) is warned


@pytest.mark.parametrize(("exit_code", "message"), [(-9, "not even one image fits"), (1, "ended with 1")])
def test_forward_without_a_figure_ends_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, exit_code: int, message: str
) -> None:
    def died(*_: object) -> Iterator[Any]:
        raise isolated.Died(exit_code)

    monkeypatch.setattr(isolated, "stream", died)
    result = bench("forward", "--arch", "resnet10_narrow", "--device", "cpu", "--image-size", "32x24")
    assert result.exit_code == 2
    assert message in result.stderr
