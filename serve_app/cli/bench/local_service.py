"""A config served on this machine by `serve-app run`, for as long as something is measured."""

import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil
import yaml

from serve_app import tls
from serve_app.bench.generator import Generator, default_processes
from serve_app.bench.images import Images
from serve_app.cli import ports
from serve_app.cli.bench import output
from serve_app.processes import sigterm_unwinds

PATH = "/v1/classify"
START_TIMEOUT_S = 600
STOP_TIMEOUT_S = 90
POLL_S = 0.2
PROBE_TIMEOUT_S = 10.0
LAST_LINES = 20
ANNOUNCE_TIMEOUT_S = 30.0
DASHBOARD = re.compile(r"serve deploy -a (http://\S+)")
"""In the last lines that `serve-app run` says."""


class StartError(RuntimeError):
    """The service did not start; the message ends in its last lines."""


@dataclass(frozen=True)
class Service:
    """One that runs, and is ready."""

    url: str
    log: Path
    """What it says."""
    pid: int
    """Of `serve-app run`: every process of the service is below it."""

    def dashboard_url(self) -> str:
        """Where Ray's REST API is: it says so a moment after it is ready. Raises StartError."""
        deadline = time.monotonic() + ANNOUNCE_TIMEOUT_S
        while not (found := DASHBOARD.search(self.log.read_text("utf-8", "replace"))):
            if time.monotonic() > deadline:
                raise StartError(f"{self.url} did not say where its dashboard is")
            time.sleep(POLL_S)
        return found[1]


def on_device(device: str) -> dict[str, str]:
    """The environment in which a service finds no other GPU than `device`, `cuda:1` say."""
    _, _, index = device.partition(":")
    if not index:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # torch counts within it
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[int(index)].strip() if visible else index}


@contextmanager
def under_load(
    content: dict[str, Any],
    pictures: Images,
    environment: Mapping[str, str] | None = None,
    processes: int | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
) -> Iterator[tuple[str, Generator]]:
    """Where images are posted, once the service that `content` describes is ready, and who posts them.

    `processes` are the generator's. Raises StartError.
    """
    with ExitStack() as stack:
        with output.stderr.status("starting"):
            service = stack.enter_context(running(content, environment, start_timeout_s))
        yield service.url + PATH, stack.enter_context(Generator(pictures.files, processes or default_processes()))


@contextmanager
def running(
    content: dict[str, Any],
    environment: Mapping[str, str] | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
) -> Iterator[Service]:
    """The service that `content` describes, ready, on a free port, in plain text. Raises StartError."""
    port = ports.free()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder, sigterm_unwinds():
        path, log = Path(folder, "config.yaml"), Path(folder, "output.txt")
        plain = {**content, "http_options": tls.without(content.get("http_options") or {})}
        path.write_text(yaml.safe_dump(plain), "utf-8")
        with log.open("wb") as log_file:
            process = subprocess.Popen(
                [sys.executable, "-m", "serve_app", "run", str(path), "--port", str(port)],
                stdout=log_file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # our Ctrl-C is ours; it is told to stop below
            )
        try:
            _wait_until_ready(url, process, log, start_timeout_s)
            yield Service(url, log, process.pid)
        finally:
            _stop(process)


def not_ready(url: str) -> str | None:
    """Why the service at `url` cannot be measured, or None."""
    try:
        with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=PROBE_TIMEOUT_S):  # noqa: S310 - the user's URL
            return None
    except urllib.error.HTTPError as error:
        return f"{url} is not ready: {url}/v2/health/ready answers {error.code}; wait, or see --url"
    except (OSError, ValueError, HTTPException) as error:
        if isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError):
            return f"{url}: {tls.UNTRUSTED}"
        return f"no service at {url} ({getattr(error, 'reason', error)}); start one: make serve, or see --url"


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while problem := not_ready(url):
        if process.poll() is not None or time.monotonic() > deadline:
            last = "\n".join(log.read_text("utf-8", "replace").splitlines()[-LAST_LINES:])
            raise StartError(f"{problem}\n{last}")
        time.sleep(POLL_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        left = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        for child in left:
            with suppress(psutil.Error):
                child.kill()
