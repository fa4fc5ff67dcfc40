"""What a node's HAProxy has in its hands, from its own statistics."""

import csv
import os
import socket
from pathlib import Path

TIMEOUT_S = 5.0
CHUNK = 1 << 16
FOLDER = Path(os.environ.get("RAY_SERVE_HAPROXY_SOCKET_PATH", "/tmp/haproxy-serve/admin.sock")).parent  # noqa: S108


def folder(node_id: str) -> Path:
    """Where Ray keeps the configuration and the socket of that node's HAProxy."""
    return FOLDER / node_id


def pid(node_id: str) -> int | None:
    """Of the process that answers; None while there is none."""
    try:
        told = _ask(node_id, "show info")
    except OSError:
        return None
    return next((int(line.split()[1]) for line in told.splitlines() if line.startswith("Pid:")), None)


def in_flight(node_id: str) -> dict[str, int]:
    """Requests that it has given to each server, by the server's name, and that are not answered yet.

    A server is a replica, whose id its name ends in. Empty while there is no HAProxy.
    """
    try:
        told = _ask(node_id, "show stat")
    except OSError:
        return {}
    rows = csv.DictReader(told.lstrip("# ").splitlines())
    return {
        row["svname"]: int(row["scur"]) for row in rows if row["svname"] not in ("FRONTEND", "BACKEND") and row["scur"]
    }


def _ask(node_id: str, command: str) -> str:
    """Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect(str(folder(node_id) / "admin.sock"))
        connection.sendall(f"{command}\n".encode())
        parts = []
        while part := connection.recv(CHUNK):
            parts.append(part)
    return b"".join(parts).decode()
