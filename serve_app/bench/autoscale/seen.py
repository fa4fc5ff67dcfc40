"""The replicas of a deployment at one moment, and how many there should be."""

from collections.abc import Mapping
from dataclasses import dataclass

from serve_app.bench.serve_api import State


@dataclass(frozen=True)
class Seen:
    wanted: int
    """The autoscaler's target."""
    states: Mapping[str, str]
    """STARTING, RUNNING or STOPPING (or another of Ray's), by the replica's id."""


def seen(state: State, application: str) -> Seen:
    """Raises ValueError where Ray does not tell of the application."""
    if application not in state.applications:
        raise ValueError(f"the Serve API does not tell of {application}")
    deployment = state.applications[application]
    return Seen(deployment.wanted, {replica.id: replica.state for replica in deployment.replicas})
