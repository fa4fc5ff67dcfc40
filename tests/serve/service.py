"""A real service in a process of its own: `serve-app run` on a free port, stopped by Ctrl-C."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from serve_app.cli import ports
from serve_app.cli.run import RUN_ID

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 60
METRICS_TIMEOUT_S = 60

# Replicas that stop are not waited for: each test's service would take four seconds more.
ENVIRONMENT = {"RAY_metrics_report_interval_ms": "1000", "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1"}

Answer = tuple[int, dict[str, Any]]


def config(args: dict[str, Any] | None = None, **deployment: Any) -> dict[str, Any]:
    """deploy/local.yaml on a free port, with other `args` and deployment keys."""
    content: dict[str, Any] = yaml.safe_load((REPOSITORY / "deploy/local.yaml").read_text())
    content["http_options"]["port"] = ports.free()
    application = content["applications"][0]
    application["args"] = {"weights": "bundled", **(args or {})}
    application["deployments"][0].update(deepcopy(deployment))
    return content


@dataclass
class Service:
    """A running instance, seen from outside."""

    content: dict[str, Any]
    process: subprocess.Popen[bytes]
    log: Path
    grpc_port: int | None = None

    @property
    def grpc_address(self) -> str:
        assert self.grpc_port is not None
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.content['http_options']['port']}"

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_until(self, text: str, timeout_s: float = START_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.output:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.output}"
            assert time.monotonic() < deadline, f"no {text!r} in {timeout_s} s: {self.output}"
            time.sleep(0.1)

    def wait_until_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """For a command that does not say so itself."""
        deadline = time.monotonic() + timeout_s
        while True:
            with suppress(aiohttp.ClientError, ValueError):
                if self.get("/v2/health/ready")[0] == 200:
                    return
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.output}"
            assert time.monotonic() < deadline, f"not ready in {timeout_s} s: {self.output}"
            time.sleep(0.2)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signal the command alone, as a supervisor would, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT_S)

    def leftovers(self) -> list[str]:
        return [str(process) for process in self.leftover_processes()]

    def leftover_processes(self) -> list[psutil.Process]:
        """Processes of this run that are still there, by the environment they inherited."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TEST_SERVICE") == str(self.log):
                    found.append(process)
        return found

    # --- requests ---------------------------------------------------------------------------

    def get(self, path: str) -> Answer:
        return asyncio.run(self._get(path))

    def post(self, *images: bytes, query: str = "") -> list[Answer]:
        """All at once, one request each; the answers in order."""
        return asyncio.run(self._post(images, query))

    def send(self, *requests: "Sent") -> "list[Received]":
        """All at once, each on a connection of its own; what came back, in order."""

        async def send_all() -> list[Received]:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                return await asyncio.gather(*(send(session, self.url + "/v1/classify", each) for each in requests))

        return asyncio.run(send_all())

    async def _get(self, path: str) -> Answer:
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as response:
            return response.status, await response.json()

    async def _post(self, images: Sequence[bytes], query: str) -> list[Answer]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            return await asyncio.gather(*(post(session, self.url + "/v1/classify" + query, i) for i in images))

    @property
    def dashboard(self) -> str:
        """Where `serve deploy` finds this instance."""
        address = re.search(r"serve deploy -a (\S+)", self.output)
        assert address is not None
        return address[1]

    def deploy(self, content: dict[str, Any]) -> None:
        """`serve deploy`, to this instance. Returns when Ray has taken it, not when it is in force."""
        path = self.log.with_name("changed.yaml")
        path.write_text(yaml.safe_dump(content))
        subprocess.run(
            [BIN / "serve", "deploy", "-a", self.dashboard, path],
            env={**os.environ, "RAY_AUTH_MODE": "token"},
            check=True,
            capture_output=True,
            timeout=60,
        )

    def status(self) -> dict[str, Any]:
        """What Ray says of its applications."""
        token = (Path.home() / ".ray" / "auth_token").read_text().strip()
        request = urllib.request.Request(
            self.dashboard + "/api/serve/applications/", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            found: dict[str, Any] = json.load(response)
            return found

    def replica_states(self) -> list[str]:
        """Of the first application: STARTING, RUNNING, STOPPING."""
        [application, *_] = self.status()["applications"].values()
        return [each["state"] for each in application["deployments"]["Classifier"]["replicas"]]

    def replica_pids(self) -> set[int]:
        found = set()
        for process in self.leftover_processes():
            with suppress(psutil.Error):
                if "ServeReplica" in " ".join(process.cmdline()):
                    found.add(process.pid)
        return found

    # --- metrics ----------------------------------------------------------------------------

    def metric(self, name: str) -> float:
        """The sum of a sample over all its labels, from Ray's own metrics endpoints."""
        return asyncio.run(self._metric(name))

    def settled_metric(self, name: str, at_least: float) -> float:
        """The sample once it has reached `at_least`: metrics arrive some seconds after the fact."""
        deadline = time.monotonic() + METRICS_TIMEOUT_S
        while (value := self.metric(name)) < at_least:
            assert time.monotonic() < deadline, f"{name} is {value}, not {at_least}"
            time.sleep(0.5)
        return value

    async def _metric(self, name: str) -> float:
        session_folder = re.search(r"logs in (\S+)/logs/serve", self.output)
        assert session_folder is not None
        targets = json.loads((Path(session_folder[1]) / "prom_metrics_service_discovery.json").read_text())
        total = 0.0
        async with aiohttp.ClientSession() as session:
            for target in targets[0]["targets"]:
                # Ray lists endpoints that may not be up: its monitor's fixed port, with two instances.
                families: list[Metric] = []
                with suppress(aiohttp.ClientConnectorError):
                    async with session.get(f"http://{target}/metrics") as response:
                        families = list(text_string_to_metric_families(await response.text()))
                samples = [s for family in families for s in family.samples if s.name == f"ray_{name}"]
                total += sum(sample.value for sample in samples)
        return total


@dataclass(frozen=True)
class Sent:
    """A request: an image, and what it asks for. `leaves_after_s`: its client closes the connection then."""

    image: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    leaves_after_s: float | None = None


@dataclass(frozen=True)
class Received:
    """An answer. `status` 0: the client left before there was one."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> str | None:
        return self.body.get("code")


async def send(session: aiohttp.ClientSession, url: str, sent: Sent) -> Received:
    timeout = aiohttp.ClientTimeout(total=sent.leaves_after_s)
    try:
        async with session.post(url, data=sent.image, headers=sent.headers, timeout=timeout) as response:
            return Received(response.status, response.headers, await response.json())
    except TimeoutError:
        return Received(0)


async def post(session: aiohttp.ClientSession, url: str, image: bytes) -> Answer:
    async with session.post(url, data=image) as response:
        return response.status, await response.json()


@contextmanager
def running(content: dict[str, Any], grpc: bool = False, **environment: str) -> Iterator[Service]:
    """`serve-app run` with this config, ready; afterwards stopped, with nothing left behind.

    `grpc`: on a free port too.
    """
    with started(content, grpc=grpc, **environment) as service:
        service.wait_until("stop  Ctrl-C")
        yield service


@contextmanager
def started(
    content: dict[str, Any],
    command: Sequence[str] = ("serve-app", "run"),
    grpc: bool = False,
    **environment: str,
) -> Iterator[Service]:
    """As `running`, without waiting for readiness."""
    grpc_port = ports.free() if grpc else None
    options = ["--grpc-port", str(grpc_port)] if grpc else []
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder, "config.yaml"), Path(folder, "output.txt")
        path.write_text(yaml.safe_dump(content))
        inherited = {k: v for k, v in os.environ.items() if k != RUN_ID and not k.startswith("RAY_")}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [BIN / command[0], *command[1:], path, *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**inherited, **ENVIRONMENT, **environment, "TEST_SERVICE": str(log)},
            )
        service = Service(content, process, log, grpc_port)
        try:
            yield service
            service.stop()
            if command[0] == "serve-app":  # Ray alone leaves agents behind for a minute
                assert service.leftovers() == []
                assert all(map(ports.is_free, [content["http_options"]["port"], *([grpc_port] if grpc_port else [])]))
        finally:
            process.kill()
            for left in service.leftover_processes():
                left.kill()


def mean_batch(answers: Sequence[Answer]) -> float:
    """Images per execution, as the answers tell it: an execution of n images is named by n answers."""
    sizes = [image["batch_size"] for status, body in answers if status == 200 for image in body["images"]]
    return float(len(sizes) / sum(1 / size for size in sizes))


def statuses(answers: Sequence[Answer]) -> dict[int, int]:
    return dict(Counter(status for status, _ in answers))
