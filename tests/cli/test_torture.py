"""`serve-app bench torture`: its parts are commands that there are, and what they say is written down."""

import json
import sys
import tempfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from serve_app.bench.torture.report import Part
from serve_app.cli import main
from serve_app.cli.bench import bench
from serve_app.cli.bench.torture import long_parts, plot_beside, quick_parts
from tests.conftest import REPOSITORY

SAYS = [{"check": "c", "measured": 1.0, "relation": "<=", "bar": 2.0, "unit": "", "ok": True, "note": ""}]


WHERE = Path("corpus"), Path("a-soak.html")


@pytest.mark.parametrize("parts", [quick_parts(3, *WHERE), long_parts(3, *WHERE, Path("."))], ids=["quick", "long"])
def test_each_part_is_a_command_with_the_seed(parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    for part in parts:
        name, *arguments = part.arguments
        command = bench.commands[name]
        context = command.make_context(name, arguments, parent=click.Context(bench))
        assert (context.params["seed"], context.params["as_json"]) == (3, True)


@pytest.mark.parametrize(
    ("ends", "status", "counts"),
    [(2, 2, "3 bars hold, 0 do NOT, 1 not measured"), (1, 1, "3 bars hold, 1 do NOT, 0 not measured")],
    ids=["no service", "a service that is lost"],
)
def test_it_writes_after_each_part_and_ends_with_the_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: int, status: int, counts: str
) -> None:
    monkeypatch.chdir(REPOSITORY)
    report, as_json = tmp_path / "report.md", tmp_path / "report.json"
    fake = tmp_path / "python"
    fake.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\nreport = pathlib.Path({str(report)!r})\n"
        f"part = sys.argv[4]\nassert (part == 'fuzz') != report.exists()\n"
        f"part == 'soak' and sys.exit({ends})\nprint({json.dumps({'checks': SAYS})!r})\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    done = CliRunner().invoke(main, ["bench", "torture", "--quick", "--output", str(report), "--json", str(as_json)])
    assert done.exit_code == status, done.output
    assert counts in done.output
    assert report.read_text().count("| c | 1 | <= 2 | yes |") == 3
    parts = json.loads(as_json.read_text())["parts"]
    assert [part["status"] for part in parts] == [0, 0, 0, ends]


def test_the_plot_lies_beside_the_report() -> None:
    assert plot_beside(Path("torture-report.md")) == Path("torture-soak.html")
    assert plot_beside(Path("a/b.md")) == Path("a/b-soak.html")


@pytest.mark.parametrize("finds", [True, False])
def test_the_decoder_starts_from_no_corpus_and_what_ended_it_is_kept(
    finds: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fake = tmp_path / "python"
    fake.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\nprint({{}})\n"
        "if 'fuzz-decode' not in sys.argv:\n    sys.exit()\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--output') + 1])\n"
        "assert list(folder.iterdir()) == []\n(folder / 'corpus').mkdir()\n(folder / 'findings').mkdir()\n"
        f"{finds} and (folder / 'findings/crash').touch()\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    result = CliRunner().invoke(main, ["bench", "torture", "--quick", "--output", str(tmp_path / "report.md")])
    assert result.exit_code == 2, result.output
    assert len(list(tmp_path.glob("fuzz-decode-*/findings/crash"))) == finds
    assert len(list(tmp_path.glob("fuzz-decode-*"))) == finds


def test_outside_of_a_checkout_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["bench", "torture"])
    assert done.exit_code == 2
    assert "there is no deploy/local.yaml here" in done.output
