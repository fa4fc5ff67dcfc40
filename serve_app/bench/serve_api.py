"""Ray Serve's REST API: a config in, and out comes which replica and which proxy runs where, and how it is."""

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

TIMEOUT_S = 10.0
DEPLOY_TIMEOUT_S = 60.0  # the first one starts Serve itself
RUNNING, HEALTHY = "RUNNING", "HEALTHY"
SERVING = (RUNNING, "UPDATING", "PENDING_MIGRATION")
"""States of a replica, those of one that is about to move included."""
PATH = "/api/serve/applications/"
TOKEN_FILE = Path("~/.ray/auth_token")
"""Where Ray keeps the token that it makes, unless its own variables say otherwise."""


class ServeApiError(RuntimeError):
    """Ray's dashboard does not answer, or refuses; the message says why."""


@dataclass(frozen=True)
class Replica:
    id: str
    state: str
    """Ray's: STARTING, UPDATING, RUNNING, STOPPING, PENDING_MIGRATION."""
    pid: int | None
    """None: it has no process yet."""
    node_id: str | None


@dataclass(frozen=True)
class Deployment:
    """The deployment of one application."""

    status: str
    """Ray's: UPDATING, HEALTHY, UNHEALTHY, DEPLOY_FAILED, ..."""
    message: str
    wanted: int
    """How many replicas there should be: the autoscaler's target, say."""
    replicas: tuple[Replica, ...]

    @property
    def num_serving(self) -> int:
        """One that takes a new user_config answers meanwhile."""
        return sum(replica.state in SERVING for replica in self.replicas)

    @property
    def running(self) -> tuple[Replica, ...]:
        return tuple(replica for replica in self.replicas if replica.state == RUNNING)


@dataclass(frozen=True)
class State:
    """What Ray says of the whole instance at one moment."""

    applications: dict[str, Deployment]
    """By the application's name."""
    statuses: dict[str, str]
    """Of applications: DEPLOYING, RUNNING, DEPLOY_FAILED, UNHEALTHY."""
    messages: dict[str, str]
    """Of applications."""
    proxies: dict[str, str]
    """Status by node id."""


@dataclass(frozen=True)
class ServeApi:
    """At `address`, that of Ray's dashboard."""

    address: str
    token: str

    def deploy(self, content: dict[str, Any]) -> None:
        """As `serve deploy`. Returns when Ray has taken it, not when it is in force. Raises ServeApiError."""
        self._call("PUT", DEPLOY_TIMEOUT_S, content)

    def state(self, timeout_s: float = TIMEOUT_S) -> State:
        """Raises ServeApiError."""
        details = self._call("GET", timeout_s)
        try:
            applications = details["applications"]
            return State(
                applications={name: _deployment(one) for name, one in applications.items()},
                statuses={name: one["status"] for name, one in applications.items()},
                messages={name: one["message"] for name, one in applications.items()},
                proxies={node: proxy["status"] for node, proxy in details["proxies"].items()},
            )
        except (LookupError, TypeError, AttributeError) as error:
            raise ServeApiError(f"GET {PATH}: not the Serve API's answer: {error!r}") from None

    def _authorisation(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def _call(self, method: str, timeout_s: float, content: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own http URL
            self.address + PATH,
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers=self._authorisation() | {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
                body = response.read()
            return json.loads(body) if body else None
        except urllib.error.HTTPError as error:
            raise ServeApiError(f"{method} {PATH}: {error.code} {error.read().decode('utf-8', 'replace')}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise ServeApiError(f"{method} {PATH}: {error}") from None


def users_token() -> str:
    """What Ray asks its user for, unless RAY_AUTH_MODE=disabled; nothing where there is none yet."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN_FILE).expanduser()
    return os.environ.get("RAY_AUTH_TOKEN") or (path.read_text("utf-8").strip() if path.is_file() else "")


def _deployment(application: dict[str, Any]) -> Deployment:
    """Of one that failed before it had any, an empty one."""
    for one in application["deployments"].values():
        replicas = tuple(Replica(r["replica_id"], r["state"], r.get("pid"), r.get("node_id")) for r in one["replicas"])
        return Deployment(one["status"], one["message"], one["target_num_replicas"], replicas)
    return Deployment(application["status"], application["message"], 0, ())
