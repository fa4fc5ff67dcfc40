"""What is told to end, dies without a word, or is taken away: replica, node, HAProxy, what Serve itself runs."""

import signal
import time
from functools import partial

import psutil

from serve_app import processes
from serve_app.bench.faults import haproxy
from serve_app.bench.faults.cluster import ClusterError, Node
from serve_app.bench.faults.event import Done, Stage
from serve_app.bench.faults.victims import a_replica, actor, find_actor, ids, on_replicas
from serve_app.bench.serve_api import Replica

DRAIN_DEADLINE_S = 600
DEATH_TIMEOUT_S = 10.0
CONTROLLER, MANAGER, FALLBACK = "ServeController", "HAProxyManager", "ProxyActor"


def _replica(number: signal.Signals, stage: Stage) -> Done:
    victim, pid = a_replica(stage)
    began, in_flight = time.monotonic(), on_replicas(stage, [victim])
    _send(number, psutil.Process(pid))
    return Done(began, lambda state: victim.id not in ids(stage, state), in_flight)


replica = partial(_replica, signal.SIGKILL)
end_replica = partial(_replica, signal.SIGTERM)


def node(stage: Stage) -> Done:
    """The raylet, and all that runs on it."""
    victim, replicas = _node_with_replicas(stage)
    everything = victim.processes()  # found first: it takes a while
    began, through = time.monotonic(), sum(haproxy.in_flight(victim.node_id).values())
    in_flight = through + on_replicas(stage, replicas, but=victim)
    processes.kill(everything, DEATH_TIMEOUT_S)
    ended = time.monotonic()
    victim.kill()
    lost = {each.id for each in replicas}
    return Done(began, lambda state: not lost & ids(stage, state), in_flight, ended)


def _head_haproxy(number: signal.Signals, stage: Stage) -> Done:
    """That of the head."""
    victim = haproxy.pid(stage.cluster.head.node_id)
    if victim is None:
        raise ClusterError("the head has no HAProxy")
    began, in_flight = time.monotonic(), sum(haproxy.in_flight(stage.cluster.head.node_id).values())
    _send(number, psutil.Process(victim))
    return Done(began, lambda _: haproxy.pid(stage.cluster.head.node_id) not in (None, victim), in_flight)


head_haproxy = partial(_head_haproxy, signal.SIGKILL)
end_head_haproxy = partial(_head_haproxy, signal.SIGTERM)


def _actor(name: str, number: signal.Signals, stage: Stage) -> Done:
    """One of Serve's own, on the head: no request goes through it. SIGTERM may be nothing to it."""
    head = stage.cluster.head
    victim = actor(head, name)
    began = time.monotonic()
    stays = not _is_gone_after(number, victim)

    def recovered(_: object) -> bool:
        found = find_actor(head, name)
        return found is not None and (stays or found.pid != victim.pid)

    return Done(began, recovered)


controller = partial(_actor, CONTROLLER, signal.SIGKILL)
end_controller = partial(_actor, CONTROLLER, signal.SIGTERM)
manager = partial(_actor, MANAGER, signal.SIGKILL)
"""Of the head's HAProxy, whose parent it is."""
fallback = partial(_actor, FALLBACK, signal.SIGKILL)
"""The proxy in Python that HAProxy has for when no replica is up."""


def drain(stage: Stage) -> Done:
    """A node is to go: its replicas move to another one first."""
    victim, replicas = _node_with_replicas(stage)
    began = time.monotonic()
    stage.cluster.drain(victim, DRAIN_DEADLINE_S)
    moving = {each.id for each in replicas}
    return Done(began, lambda state: not moving & ids(stage, state) and victim.node_id not in state.proxies)


def _node_with_replicas(stage: Stage) -> tuple[Node, list[Replica]]:
    """The one that the first of them is on."""
    victim = stage.cluster.node(stage.before.running[0].node_id)
    return victim, [each for each in stage.before.running if each.node_id == victim.node_id]


def _send(number: signal.Signals, process: psutil.Process) -> None:
    """Returns when it is gone. Raises ClusterError for one that stays."""
    if not _is_gone_after(number, process):
        raise ClusterError(f"{process.pid} is still there {DEATH_TIMEOUT_S:g} s after {number.name}")


def _is_gone_after(number: signal.Signals, process: psutil.Process) -> bool:
    process.send_signal(number)
    try:
        process.wait(DEATH_TIMEOUT_S)
    except psutil.TimeoutExpired:
        return False
    return True
