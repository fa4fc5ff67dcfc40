"""What every node of a service must have in its environment, as `serve-app run` sets it."""

from typing import Any

from serve_app.cli.run import FAST_HTTP_PATH, service_environment


def of_service(content: dict[str, Any]) -> dict[str, str]:
    """For the service of this config, behind HAProxy."""
    return {**FAST_HTTP_PATH, **service_environment(content), "MALLOC_ARENA_MAX": "1"}
