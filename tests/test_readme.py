"""The README is true: its commands exist, its settings are those of the code, its files are there."""

import re
from pathlib import Path

import pytest

from serve_app.cli import main
from serve_app.config import Args, UserConfig

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
MAX_LINES = 250


def test_it_stays_a_page() -> None:
    assert len(README.splitlines()) < MAX_LINES


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make ([a-z-]+)", README))))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", sorted(set(re.findall(r"bin/serve-app ([a-z]+)", README))))
def test_every_command_exists(command: str) -> None:
    assert command in main.commands


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:deploy|serve_app)/[\w/-]+\.\w+", README))))
def test_every_file_exists(path: str) -> None:
    assert (REPOSITORY / path).is_file()


SETTINGS = {name: field.default for model in (Args, UserConfig) for name, field in model.model_fields.items()}
SHOWN = re.findall(r"^\| `(\w+)` \| (.*?) \|", README.partition("## Settings")[2].partition("\n## ")[0], re.MULTILINE)


def test_the_most_used_settings_are_shown() -> None:
    assert {"weights", "device", "max_batch_size", "latency_slo_ms"} <= dict(SHOWN).keys()


@pytest.mark.parametrize(("name", "written"), SHOWN)
def test_a_setting_that_is_shown_has_that_default(name: str, written: str) -> None:
    default = SETTINGS[name]
    if default is None:
        assert not re.fullmatch(r"[\d.]+", written)  # in words: what follows from what
    else:
        assert written.strip("`") == (f"{default:g}" if isinstance(default, float) else str(default))


@pytest.mark.parametrize(
    "alert", re.findall(r"alert: (\w+)", (REPOSITORY / "deploy/monitoring/alerts.yml").read_text())
)
def test_every_alert_stands_in_operate(alert: str) -> None:
    assert f"`{alert}`" in README.partition("## Operate")[2].partition("\n## ")[0]
