"""`serve-app settings`: every key of a config that is ours, its default, and what it is for."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.table import Table

from serve_app.config import MEBIBYTE, Args, Scaling, Stub, UserConfig

MODELS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("applications[].args", "what a replica is; a change starts new replicas", Args),
    ("applications[].args.stub", "how long the device of `device: stub` takes, and on what it fails", Stub),
    ("applications[].deployments[].user_config", "how it batches; a change is live", UserConfig),
    (
        "applications[].deployments[].autoscaling_config.policy.policy_kwargs",
        "when serve_app.autoscaling:BatchingAware adds and removes replicas",
        Scaling,
    ),
)


@dataclass(frozen=True)
class Setting:
    section: str
    key: str
    default: Any
    description: str


def settings() -> Iterator[Setting]:
    """All of them, in the order of a file."""
    for section, _, model in MODELS:
        for key, field in model.model_fields.items():
            if not isinstance(field.default, BaseModel):  # a section of its own
                yield Setting(section, key, field.default, field.description or "")


def print_settings(as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(setting) for setting in settings()], indent=2))
        return
    console = Console()
    for section, what, _ in MODELS:
        console.print(f"[bold]{section.replace('[', chr(92) + '[')}[/]: {what}", highlight=False)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0))
        for name in ("key", "default", ""):
            table.add_column(name, no_wrap=name != "")
        for setting in settings():
            if setting.section == section:
                table.add_row(setting.key, _written(setting.default), setting.description)
        console.print(table, "")


def _written(default: Any) -> str:
    """As it would stand in a file."""
    if isinstance(default, int) and default >= MEBIBYTE and default % MEBIBYTE == 0:
        return f"{default} ({default // MEBIBYTE} MiB)"
    return json.dumps(default)
