"""What dies without a word, or is taken away: a replica, a node with all that is on it, a HAProxy."""

import time

import psutil

from serve_app import processes
from serve_app.bench.faults import haproxy
from serve_app.bench.faults.cluster import ClusterError, Node
from serve_app.bench.faults.event import Done, Stage
from serve_app.bench.serve_api import Replica, State

DRAIN_DEADLINE_S = 600
DEATH_TIMEOUT_S = 10.0


def replica(stage: Stage) -> Done:
    victim = stage.before.running[0]
    if victim.pid is None:
        raise ClusterError(f"replica {victim.id} has no process")
    began, in_flight = time.monotonic(), _on_replicas(stage, [victim])
    processes.kill([psutil.Process(victim.pid)], DEATH_TIMEOUT_S)
    return Done(began, lambda state: victim.id not in _ids(stage, state), in_flight)


def node(stage: Stage) -> Done:
    """The raylet, and all that runs on it."""
    victim, replicas = _node_with_replicas(stage)
    everything = victim.processes()  # found first: it takes a while
    began, through = time.monotonic(), sum(haproxy.in_flight(victim.node_id).values())
    in_flight = through + _on_replicas(stage, replicas, but=victim)
    processes.kill(everything, DEATH_TIMEOUT_S)
    ended = time.monotonic()
    victim.kill()
    lost = {each.id for each in replicas}
    return Done(began, lambda state: not lost & _ids(stage, state), in_flight, ended)


def head_haproxy(stage: Stage) -> Done:
    """That of the head."""
    victim = haproxy.pid(stage.cluster.head.node_id)
    if victim is None:
        raise ClusterError("the head has no HAProxy")
    began, in_flight = time.monotonic(), sum(haproxy.in_flight(stage.cluster.head.node_id).values())
    processes.kill([psutil.Process(victim)], DEATH_TIMEOUT_S)
    return Done(began, lambda _: haproxy.pid(stage.cluster.head.node_id) not in (None, victim), in_flight)


def drain(stage: Stage) -> Done:
    """A node is to go: its replicas move to another one first."""
    victim, replicas = _node_with_replicas(stage)
    began = time.monotonic()
    stage.cluster.drain(victim, DRAIN_DEADLINE_S)
    moving = {each.id for each in replicas}
    return Done(began, lambda state: not moving & _ids(stage, state) and victim.node_id not in state.proxies)


def _node_with_replicas(stage: Stage) -> tuple[Node, list[Replica]]:
    """The one that the first of them is on."""
    victim = stage.cluster.node(stage.before.running[0].node_id)
    return victim, [each for each in stage.before.running if each.node_id == victim.node_id]


def _on_replicas(stage: Stage, replicas: list[Replica], but: Node | None = None) -> int:
    """Requests on them, through whichever node's HAProxy, `but` this one's."""
    servers = [haproxy.in_flight(each.node_id) for each in stage.cluster.nodes if each.alive and each is not but]
    wanted = tuple(each.id for each in replicas)
    return sum(count for one in servers for name, count in one.items() if name.endswith(wanted))


def _ids(stage: Stage, state: State) -> set[str]:
    return {each.id for each in stage.deployment(state).replicas}
