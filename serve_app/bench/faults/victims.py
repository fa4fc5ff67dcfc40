"""Whom an event hits, and what it has in its hands."""

from collections.abc import Sequence

import psutil

from serve_app.bench.faults import haproxy
from serve_app.bench.faults.cluster import ClusterError, Node
from serve_app.bench.faults.event import Stage
from serve_app.bench.serve_api import Replica, State


def a_replica(stage: Stage) -> tuple[Replica, int]:
    """And its process. Raises ClusterError where it has none."""
    victim = stage.before.running[0]
    if victim.pid is None:
        raise ClusterError(f"replica {victim.id} has no process")
    return victim, victim.pid


def actor(node: Node, name: str) -> psutil.Process:
    """The process of this Ray actor, by its class. Raises ClusterError where there is none."""
    found = find_actor(node, name)
    if found is None:
        raise ClusterError(f"{node.name} has no {name}")
    return found


def find_actor(node: Node, name: str) -> psutil.Process | None:
    for process in node.processes():
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:  # gone meanwhile
            continue
        if title.startswith(f"ray::{name}"):
            return process
    return None


def on_replicas(stage: Stage, replicas: Sequence[Replica], but: Node | None = None) -> int:
    """Requests on them, through whichever node's HAProxy, `but` this one's."""
    servers = [haproxy.in_flight(each.node_id) for each in stage.cluster.nodes if each.alive and each is not but]
    wanted = tuple(each.id for each in replicas)
    return sum(count for one in servers for name, count in one.items() if name.endswith(wanted))


def ids(stage: Stage, state: State) -> set[str]:
    return {each.id for each in stage.deployment(state).replicas}
