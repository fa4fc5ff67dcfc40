"""The config of a service that is to be measured, read from its file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.config import Args, ConfigError, UserConfig, parse_user_config

DEFAULT_NAME = "default"
"""Ray's, of an application."""


@dataclass(frozen=True)
class Served:
    """One of our applications, at the address that is measured."""

    content: dict[str, Any]
    """The whole file."""
    application: dict[str, Any]
    deployment: dict[str, Any]
    """As far as the file says."""
    user_config: UserConfig

    @property
    def name(self) -> str:
        """The application's."""
        return str(self.application.get("name", DEFAULT_NAME))

    @property
    def args(self) -> Args:
        return Args.model_validate(self.application.get("args", {}))


def read(file: Path) -> Served:
    """Raises ConfigError where `serve-app check` finds errors, or there is no service of ours at /."""
    from serve_app import config_file  # Ray, which takes seconds

    content = config_file.read(file)
    if errors := [finding for finding in config_file.check(content) if finding.level == "error"]:
        raise ConfigError("; ".join(f"{finding.key}: {finding.message}" for finding in errors))
    ours = [one for one in content["applications"] if one["import_path"] == config_file.IMPORT_PATH]
    if not ours or ours[0].get("route_prefix", "/") != "/":
        raise ConfigError(f"there is no application {config_file.IMPORT_PATH} with route_prefix / in it")
    deployments = ours[0].get("deployments") or []
    named = {one["name"]: one for one in deployments}
    deployment = named.get(config_file.DEPLOYMENT, {"name": config_file.DEPLOYMENT})
    return Served(content, ours[0], deployment, parse_user_config(deployment.get("user_config")))
