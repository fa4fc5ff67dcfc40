"""What happens to a service under load, and how it is known that the service has got over it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from serve_app.bench.faults.cluster import Cluster
from serve_app.bench.faults.layout import APPLICATION, Layout
from serve_app.bench.serve_api import HEALTHY, Deployment, State


class Bar(Enum):
    """What an event may cost."""

    NOTHING = "0 failed"
    VICTIM = "only what was in flight on the victim"
    UNATTENDED = "back unattended"


@dataclass
class Stage:
    """A cluster with what is deployed on it, healthy before the event."""

    cluster: Cluster
    before: Deployment

    @property
    def content(self) -> dict[str, Any]:
        """What is deployed now."""
        if self.cluster.deployed is None:
            raise ValueError("nothing is deployed")
        return self.cluster.deployed

    def deployment(self, state: State) -> Deployment:
        return state.applications[APPLICATION]


Recovered = Callable[[State], bool]
"""Whether what an event took is back, once every replica and every proxy that there is, is well."""


@dataclass(frozen=True)
class Done:
    """An event that has been brought about. Times are of `time.monotonic()`."""

    began: float
    """Before anybody looked what is in flight."""
    recovered: Recovered
    in_flight: int | None = None
    """Requests on the victim when it began; None: nobody is killed."""
    ended: float = field(default_factory=time.monotonic)
    mend: Callable[[], None] | None = None
    """Puts right what does not pass by itself: the disk has room again, the file is back. Nothing else is done."""
    was_in_force: Callable[[], bool] = field(default=lambda: True)
    """Whether what `mend` puts right can be seen to be there; asked until it can. Raises OSError where nobody answers.
    """
    wrong_weights: Callable[[], set[str]] = field(default=set)
    """sha256 of weights that answer, and may not. Asked from the event on; raises OSError where nobody answers."""


@dataclass(frozen=True)
class Event:
    name: str
    layout: Layout
    bar: Bar
    act: Callable[[Stage], Done]
    duration_s: float
    """Of the load, from some seconds before it."""
    mended_after_s: float = 0.0
    """When `Done.mend` is called, if there is one; counted from the event."""


def is_whole(state: State, replicas: int) -> bool:
    """Whether so many replicas run and no other is on its way in or out, and every proxy is well."""
    deployment = state.applications.get(APPLICATION)
    return (
        deployment is not None
        and state.statuses[APPLICATION] == "RUNNING"
        and deployment.status == HEALTHY
        and len(deployment.running) == len(deployment.replicas) == replicas
        and set(state.proxies.values()) == {HEALTHY}
    )
