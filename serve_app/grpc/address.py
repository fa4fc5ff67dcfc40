"""Where the gRPC servers of a process listen: on loopback, but for the one that clients are to call.

Ray has no setting for it. Its servers for clients, and those for calls between its own processes, which are pickled,
are at `[::]`, in plain text. What `serve-app run` wants instead, its processes find in VARIABLE; without it, in a
cluster, all is as Ray has it.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

VARIABLE = "SERVE_APP_GRPC"
LOOPBACK = "127.0.0.1"
EVERY_INTERFACE = ("[::]", "0.0.0.0")  # noqa: S104 - as Ray writes it


@dataclass(frozen=True)
class Public:
    """The server of clients, where that is one of Ray's own: HAProxy takes their calls itself."""

    host: str
    port: int
    certfile: str | None = None
    """PEM. None: no TLS."""
    keyfile: str | None = None


def variable(public: Public | None) -> dict[str, str]:
    return {VARIABLE: json.dumps(asdict(public) if public else None)}


@cache
def confine() -> None:
    """For the servers that this process opens from now on. Raises RuntimeError where grpc is not what it was."""
    told = os.environ.get(VARIABLE)
    if told is None:
        return
    from grpc.aio import _server

    plain: Callable[[Any, str], int] | None = getattr(_server.Server, "add_insecure_port", None)
    if plain is None:
        raise RuntimeError("this grpc has no aio._server.Server.add_insecure_port, of which Ray's servers were made")
    found = json.loads(told)
    public = Public(**found) if found else None

    def add_insecure_port(server: Any, address: str) -> int:
        host, _, port = address.rpartition(":")
        if host not in EVERY_INTERFACE:
            return plain(server, address)
        if public is None or int(port) != public.port:
            return plain(server, f"{LOOPBACK}:{port}")
        return _open(server, public, plain)

    _server.Server.add_insecure_port = add_insecure_port  # type: ignore[method-assign, assignment]


def _open(server: Any, public: Public, plain: Callable[[Any, str], int]) -> int:
    import grpc

    host = public.host or "0.0.0.0"  # noqa: S104 - as HTTP takes an empty one
    address = f"[{host}]:{public.port}" if ":" in host else f"{host}:{public.port}"
    if public.certfile is None or public.keyfile is None:
        return plain(server, address)
    pair = (Path(public.keyfile).read_bytes(), Path(public.certfile).read_bytes())
    opened: int = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    return opened
