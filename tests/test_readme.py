"""The README is true: its commands exist, its settings are those of the code, its files are there."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

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


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:deploy|serve_app)/[\w/]+\.\w+", README))))
def test_every_file_exists(path: str) -> None:
    assert (REPOSITORY / path).is_file()


@pytest.mark.parametrize(
    ("model", "name"),
    [(model, name) for model in (Args, UserConfig) for name in model.model_fields if name != "stub"],
)
def test_every_setting_stands_in_a_table_with_its_default(model: type[BaseModel], name: str) -> None:
    row = re.search(rf"^\| `{name}` \| (.*?) \|", README, re.MULTILINE)
    assert row is not None
    default = model.model_fields[name].default
    written = row[1].strip("`").replace(",", "").replace(" MiB", "")
    if default is None or isinstance(default, bool):
        return
    in_mebibytes = isinstance(default, int) and "MiB" in row[1]
    assert (
        float(written) == (default >> 20 if in_mebibytes else default)
        if not isinstance(default, str)
        else (written == default)
    )
