"""Several Ray nodes on this machine, each with the resources it is said to have, for as long as something is tried.

Every process of a node inherits an environment variable with the node's name: so a whole node can be killed at
once, and nothing is left behind.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from serve_app import processes
from serve_app.bench.faults import haproxy
from serve_app.bench.serve_api import ServeApi
from serve_app.cli import ports

NODE = "SERVE_APP_NODE"
"""Environment variable."""
START_TIMEOUT_S, START_TRIES = 120.0, 3
STOP_TIMEOUT_S, STOP_ROUNDS = 15.0, 3
COMMAND_TIMEOUT_S = 60.0
POLL_S = 0.2
OBJECT_STORE_BYTES = 80 << 20  # about the least that Ray takes; images never pass through it
STARTED = "Ray runtime started"
NODE_ID = re.compile(r"--node_id=(\w+)")


class ClusterError(RuntimeError):
    """A node did not start, or not do what it was told; the message says what it said."""


@dataclass(frozen=True)
class Resources:
    """What Ray is told that a node has, whatever the machine has."""

    cpus: int
    gpus: int = 0


@dataclass
class Node:
    """A raylet and all that it starts, below one `ray start --block`."""

    name: str
    http_port: int
    """Of its HAProxy."""
    command: "subprocess.Popen[bytes]"
    log: Path
    tag: str
    """Value of NODE in its processes."""
    node_id: str = ""
    """Ray's, once it is up."""
    drained: bool = False

    def wait_until_up(self) -> None:
        """Raises ClusterError."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while STARTED not in (said := self.log.read_text("utf-8", "replace")):
            if not self.alive or time.monotonic() > deadline:
                raise ClusterError(f"{self.name} did not start: {_last_line(said)}")
            time.sleep(POLL_S)
        self.node_id = self._raylets_id()

    @property
    def alive(self) -> bool:
        return self.command.poll() is None

    def processes(self) -> list[psutil.Process]:
        return processes.with_environment(NODE, self.tag)

    def kill(self) -> None:
        """SIGKILL to every process of it: the machine is gone. Returns when they are, their sockets closed."""
        processes.kill(self.processes(), STOP_TIMEOUT_S)
        self.command.wait()

    def _raylets_id(self) -> str:
        for process in self.processes():
            with suppress(psutil.Error):
                if found := NODE_ID.search(" ".join(process.cmdline())):
                    return found[1]
        raise ClusterError(f"{self.name} has no raylet: {_last_line(self.log.read_text('utf-8', 'replace'))}")


@dataclass
class Cluster:
    """A head and other nodes. Made by `running`."""

    environment: Mapping[str, str]
    folder: Path
    one_port: bool
    """The HAProxies of all nodes share one port, as machines behind a load balancer share its address."""
    name: str = field(default_factory=lambda: secrets.token_hex(4))
    gcs_port: int = field(default_factory=ports.free)
    dashboard_port: int = field(default_factory=ports.free)
    http_port: int = field(default_factory=ports.free)
    """Of the head; `http_options.port` of what is deployed."""
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    nodes: list[Node] = field(default_factory=list)
    deployed: dict[str, Any] | None = None
    """The last config that Serve took."""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def serve(self) -> ServeApi:
        return ServeApi(f"http://127.0.0.1:{self.dashboard_port}", self.token)

    @property
    def head(self) -> Node:
        return self.nodes[0]

    def deploy(self, content: dict[str, Any]) -> None:
        """Returns when Serve has taken it. Raises ServeApiError."""
        self.serve.deploy(content)
        self.deployed = content

    def add(self, *resources: Resources, **environment: str) -> list[Node]:
        """Nodes with these resources, one after the other: a start takes all of a small machine.

        Raises ClusterError.
        """
        return [self._up(each, environment) for each in resources]

    def node(self, node_id: str | None) -> Node:
        """Raises ClusterError if it is none of this cluster's."""
        for node in self.nodes:
            if node.node_id == node_id:
                return node
        raise ClusterError(f"{node_id} is no node of this cluster")

    def drain(self, node: Node, deadline_s: int) -> None:
        """What an autoscaler does before it takes a machine away: nothing new comes onto it, and what is there moves.

        Raises ClusterError where Ray refuses.
        """
        where = ["--address", f"127.0.0.1:{self.gcs_port}", "--node-id", node.node_id]
        until = ["--deadline-remaining-seconds", str(deadline_s)]
        why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the machine is needed elsewhere"]
        try:
            subprocess.run(  # noqa: S603
                [*_ray("drain-node"), *where, *until, *why],
                check=True,
                capture_output=True,
                env=self._environment(),
                timeout=COMMAND_TIMEOUT_S,
            )
        except subprocess.CalledProcessError as error:
            raise ClusterError(f"{node.name} is not drained: {error.stderr.decode('utf-8', 'replace')}") from None
        node.drained = True

    def replace_lost(self, resources: Resources) -> None:
        """A new node for each that was killed or drained; the latter's machine goes now. Raises ClusterError."""
        lost = [node for node in self.nodes if node.drained or not node.alive]
        for node in lost:
            node.kill()
            self._forget(node)
        self.add(*[resources] * len(lost))

    def processes(self) -> list[psutil.Process]:
        return [process for node in self.nodes for process in node.processes()]

    def stop(self) -> None:
        """The head last, or the others would report its death."""
        for nodes in (self.nodes[1:], self.nodes[:1]):
            for node in nodes:
                node.command.send_signal(signal.SIGTERM)
            for _ in range(STOP_ROUNDS):  # one may just be starting another when it is told
                if not (left := [process for node in nodes for process in node.processes()]):
                    break
                processes.end(left, STOP_TIMEOUT_S)
        for node in list(self.nodes):
            node.command.wait(STOP_TIMEOUT_S)
            self._forget(node)

    def _up(self, resources: Resources, environment: Mapping[str, str]) -> Node:
        """Tried again where it fails: Ray gives up after a time that a busy machine may need."""
        for left in reversed(range(START_TRIES)):
            node = self._start(resources, environment)
            try:
                node.wait_until_up()
                break
            except ClusterError:
                node.kill()
                self._forget(node)
                if not left:
                    raise
        return node

    def _forget(self, node: Node) -> None:
        if node.node_id:
            shutil.rmtree(haproxy.folder(node.node_id), ignore_errors=True)
        self.nodes.remove(node)

    def _start(self, resources: Resources, environment: Mapping[str, str]) -> Node:
        head = not self.nodes
        name = "head" if head else f"node {next(self._numbers)}"
        http_port = self.http_port if head or self.one_port else ports.free()
        log, tag = self.folder / f"{name}.txt", f"{self.name} {name}"
        with log.open("wb") as output:
            command = subprocess.Popen(  # noqa: S603
                [*_ray("start"), *self._place(head), *_declared(resources)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**self._environment(), **_of_node(http_port), **environment, NODE: tag},
                start_new_session=True,  # our Ctrl-C is ours; they are told to stop above
            )
        self.nodes.append(Node(name, http_port, command, log, tag))
        return self.nodes[-1]

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **self.environment,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "SERVE_SOCKET_REUSE_PORT_ENABLED": str(int(self.one_port)),
        }

    def _place(self, head: bool) -> list[str]:
        common = _options({"node-ip-address": "127.0.0.1", "dashboard-agent-listen-port": ports.free()})
        if not head:
            return [*common, "--address", f"127.0.0.1:{self.gcs_port}"]
        # A folder of its own: Ray's common one tells every other program of this user where the cluster is.
        folder = _options({"temp-dir": self.folder, "ray-client-server-port": ports.free()})
        return ["--head", *common, *folder, *_options({"port": self.gcs_port, "dashboard-port": self.dashboard_port})]


Surroundings = Callable[[Path], AbstractContextManager[Mapping[str, str]]]
"""What is done to a cluster's folder before its first node starts, and undone after its last; gives variables."""


@contextmanager
def nothing_special(_: Path) -> Iterator[Mapping[str, str]]:
    yield {}


@contextmanager
def running(
    resources: Sequence[Resources],
    environment: Mapping[str, str],
    one_port: bool = False,
    surroundings: Surroundings = nothing_special,
) -> Iterator[Cluster]:
    """A cluster of nodes with these resources, the head first; afterwards no process of it is left.

    `environment` has Ray's variables for Serve and its ports. Raises ClusterError.
    """
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        processes.sigterm_unwinds(),
        surroundings(Path(folder)) as variables,
    ):
        cluster = Cluster({**environment, **variables}, Path(folder), one_port)
        try:
            cluster.add(resources[0])
            cluster.add(*resources[1:])
            yield cluster
        finally:
            cluster.stop()


def _last_line(text: str) -> str:
    """What a traceback says in the end."""
    return text.strip().rpartition("\n")[2]


def _ray(command: str) -> list[str]:
    return [sys.executable, "-m", "ray.scripts.scripts", command]


def _declared(resources: Resources) -> list[str]:
    own = {"num-cpus": resources.cpus, "num-gpus": resources.gpus, "object-store-memory": OBJECT_STORE_BYTES}
    return ["--block", "--disable-usage-stats", *_options({**own, "include-log-monitor": "false"})]


def _options(values: Mapping[str, object]) -> list[str]:
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def _of_node(http_port: int) -> dict[str, str]:
    """Variables of one node: HAProxy's ports are one per machine unless they are set. The head needs no first one."""
    return {
        "RAY_raylet_start_wait_time_s": str(int(START_TIMEOUT_S)),  # 30 s of its own are little on a busy machine
        "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(http_port),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.free()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.free()),
    }
