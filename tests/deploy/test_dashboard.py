"""The dashboard: as Grafana wants it, readable, and right where only a GPU has figures."""

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

DASHBOARD = json.loads((Path(__file__).parents[2] / "deploy/monitoring/dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
GRAPHS = [panel for panel in PANELS if panel["type"] != "row"]
BY_TITLE = pytest.mark.parametrize("panel", GRAPHS, ids=lambda panel: panel["title"])
WIDTH = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
KNOWN = {"$application", "$deployment", "$__rate_interval"}
# One GPU of one node.
GPU_SERIES = {
    'ray_node_gpus_utilization{ip="10.0.0.1", GpuIndex="0"}': 55,
    'ray_node_gram_used{ip="10.0.0.1", GpuIndex="0"}': 30_000,
    'ray_node_gram_available{ip="10.0.0.1", GpuIndex="0"}': 10_000,
}
ON_A_GPU = {"GPU utilisation": 55.0, "GPU memory": 0.75}


def test_panels_have_ids_and_places_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for one, other in combinations(PANELS, 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= WIDTH for panel in PANELS)


def overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    return all(a[at] < b[at] + b[size] and b[at] < a[at] + a[size] for at, size in (("x", "w"), ("y", "h")))


@BY_TITLE
def test_a_panel_says_what_it_shows_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in {
        *("bytes", "ms", "ops", "percent", "percentunit", "reqps", "short"),
    }


@BY_TITLE
def test_a_panel_asks_whatever_prometheus_and_deployment_is_chosen(panel: dict[str, Any]) -> None:
    assert panel["datasource"] == SOURCE
    variables = {v["name"] for v in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "application", "deployment"}
    for target in panel["targets"]:
        assert set(re.findall(r"\$\w+", target["expr"])) <= KNOWN
        ours = re.findall(r"\bray_serve_app_\w+(.*?})", target["expr"])
        assert all('application=~"$application", deployment=~"$deployment"' in labels for labels in ours)


@pytest.mark.parametrize("title", ON_A_GPU)
def test_what_only_a_gpu_has_is_right_on_made_up_series(title: str, tmp_path: Path) -> None:
    [panel] = [panel for panel in GRAPHS if panel["title"] == title]
    [target] = panel["targets"]
    case = {
        "interval": "10s",
        "input_series": [{"series": name, "values": f"{value}x6"} for name, value in GPU_SERIES.items()],
        "promql_expr_test": [
            {
                "expr": target["expr"],
                "eval_time": "1m",
                "exp_samples": [{"labels": '{ip="10.0.0.1", GpuIndex="0"}', "value": ON_A_GPU[title]}],
            }
        ],
    }
    path = tmp_path / "case.yml"
    path.write_text(yaml.safe_dump({"tests": [case]}))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
