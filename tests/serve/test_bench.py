"""The commands that start services themselves, briefly: what they measure is no matter here."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.serve.service import BIN, config

SMALL = ("--weights", "bundled", "--image-size", "64x64")
BRIEF = (*("--duration-s", "1", "--warm-up-s", "0.5", "--repeats", "1"), "--rate", "20,40", "--concurrency", "4")
DURATION_S, REPEATS = 4, 2
VERIFY = ("--duration-s", str(DURATION_S), "--repeats", str(REPEATS))
TIMEOUT_S = 900


def serve_app(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "serve-app", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)


def test_compare_measures_what_others_do(tmp_path: Path) -> None:
    names = ["@serve.batch, 2 ms", "tutorial"]
    plot, table = tmp_path / "compared.html", tmp_path / "compared.csv"
    files = ("--plot", str(plot), "--csv", str(table))
    result = serve_app("bench", "compare", "--only", ";".join(names), "--threads", "1", *SMALL, *BRIEF, *files)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert [one["name"] for one in report["results"]] == names
    assert [loop["images_per_s"] > 0 for loop in report["bare"]] == [True] * 4
    for one in report["results"]:
        assert [row["rate_per_s"] for row in one["rows"]] == [None, 20, 40]
        assert all(row["errors"] == {} for row in one["rows"])
        assert all(row["completed_per_s"] > 0 for row in one["rows"])
    assert all(name in plot.read_text() for name in names)
    assert len(table.read_text().splitlines()) == 1 + 3 * len(names)


def test_weights_that_cannot_be_read_end_it_before_anything_is_started(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    result = serve_app("bench", "compare", "--weights", str(broken))
    assert result.returncode == 2
    assert "broken.safetensors" in result.stderr


def test_tune_serves_what_it_wrote_at_the_rate_that_it_predicts(tmp_path: Path) -> None:
    path = tmp_path / "tuned.yaml"
    result = serve_app("tune", *SMALL, "--p99-ms", "1000", "--output", str(path), "--verify", *VERIFY, "--json")
    assert result.returncode in (0, 1), result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    verified = report["verified"]
    assert verified["rate_per_s"] == pytest.approx(report["predicted"]["rate_per_s"], rel=0.01)
    assert verified["requests"] == pytest.approx(REPEATS * DURATION_S * verified["rate_per_s"], rel=0.01)
    assert verified["holds"] is (result.returncode == 0)
    assert path.read_text().startswith(f"# Verified: {'the bound holds' if verified['holds'] else 'IT DOES NOT HOLD'}")
    assert subprocess.run([BIN / "serve-app", "check", path]).returncode == 0


def test_hostile_images_and_http_hurt_nobody_on_a_real_instance(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config()))
    result = serve_app("bench", "fuzz", str(path), "--cases", "1500", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout)
    assert (report["cases"], report["failures"], report["wrong"], report["lost"]) == (1500, [], [], "")
    assert report["neighbours"] > 100
    assert report["peak_mib"] >= report["memory_mib"][-1] > 0  # the replica and its peak were found
    [ended] = [check for check in report["checks"] if check["check"] == "replicas that ended"]
    assert (ended["measured"], ended["note"]) == (0, "of 1")
    found = {outcome for kind in report["outcomes"].values() for outcome in kind}
    assert {"200", "400", "413", "415", "422"} <= found
