"""The alerts as promtool sees them: valid, each fires on made-up series that say why, none on healthy ones."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
CASES = Path(__file__).with_name("alerts_test.yml")
ALERTS = {rule["alert"]: rule for rule in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]}
TESTS: list[dict[str, Any]] = yaml.safe_load(CASES.read_text())["tests"]
METRIC = re.compile(r"\b(?:ray|haproxy)_\w+")
EVERY_ALERT = 'ALERTS{alertstate="firing"}'


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_valid() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", MONITORING / "alerts.yml")


def test_the_scrape_configs_are_valid(tmp_path: Path) -> None:
    promtool("check", "config", MONITORING / "prometheus.yml")
    # Debian's Prometheus is built without Kubernetes: all the rest of the file.
    text, found = re.subn(
        r"kubernetes_sd_configs: \[\{role: pod\}\]",
        "static_configs: [{targets: []}]",
        (MONITORING / "kubernetes.yml").read_text(),
    )
    assert found == 2
    (tmp_path / "alerts.yml").write_text((MONITORING / "alerts.yml").read_text())
    (tmp_path / "kubernetes.yml").write_text(text)
    promtool("check", "config", tmp_path / "kubernetes.yml")


def test_each_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", CASES)


def fired() -> set[str]:
    """Alerts that a case expects to fire."""
    return set(re.findall(r'alertname="(\w+)"', str([case["promql_expr_test"] for case in TESTS])))


def test_there_is_a_case_for_each() -> None:
    assert fired() == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_among_healthy_series_are_those_that_it_looks_at(alert: str) -> None:
    healthy = TESTS[0]
    assert healthy["promql_expr_test"] == [{"expr": EVERY_ALERT, "eval_time": "25m", "exp_samples": []}]
    given = METRIC.findall(str(healthy["input_series"]))
    assert set(METRIC.findall(ALERTS[alert]["expr"])) <= set(given)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_says_how_bad_it_is_what_it_is_and_where_to_look(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"README.md, Operate: {alert}"
