"""A real Prometheus with the files of deploy/monitoring, which scrapes a running instance every second."""

import json
import math
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import psutil

from serve_app.cli import ports
from tests.serve.service import REPOSITORY, Service

MONITORING = REPOSITORY / "deploy" / "monitoring"
DISCOVERY = "/tmp/ray/prom_metrics_service_discovery.json"
HAPROXY_PORT = "RAY_SERVE_HAPROXY_METRICS_PORT"
START_TIMEOUT_S = 30
QUERY_TIMEOUT_S = 10
PATIENCE_S = 90


@dataclass
class Prometheus:
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def query(self, expression: str) -> list[float]:
        """The values of an instant query, without those that are no number."""
        with urlopen(f"{self.url}/api/v1/query?{urlencode({'query': expression})}", timeout=QUERY_TIMEOUT_S) as answer:
            result = json.load(answer)["data"]["result"]
        return [value for sample in result if not math.isnan(value := float(sample["value"][1]))]

    def wait_for(self, expression: str, present: bool = True) -> list[float]:
        """What the expression gives once it gives something; or, not `present`, once it gives nothing."""
        deadline = time.monotonic() + PATIENCE_S
        while bool(found := self.query(expression)) is not present:
            assert time.monotonic() < deadline, f"{found} in {PATIENCE_S} s of {expression}"
            time.sleep(0.5)
        return found

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with suppress(URLError, ConnectionError), urlopen(f"{self.url}/-/ready", timeout=QUERY_TIMEOUT_S):
                return
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)


@contextmanager
def scraping(service: Service) -> Iterator[Prometheus]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_config(folder, service)
        port = ports.free()
        log = folder / "log.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--log.level=warn",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        prometheus = Prometheus(f"http://127.0.0.1:{port}", process, log)
        try:
            prometheus.wait_until_ready()
            yield prometheus
        finally:
            process.terminate()
            try:
                process.wait(START_TIMEOUT_S)
            finally:
                process.kill()


def _write_config(folder: Path, service: Service) -> None:
    """deploy/monitoring, for this instance: it may not be the only one on this machine, and it has ports of its own."""
    config = (MONITORING / "prometheus.yml").read_text()
    for given, wanted in {
        "_interval: 10s": "_interval: 1s",
        f"files: [{DISCOVERY}]": f"files: [{_session_folder(service) / os.path.basename(DISCOVERY)}]",
        "127.0.0.1:9101": f"127.0.0.1:{_haproxy_port(service)}",
    }.items():
        assert given in config
        config = config.replace(given, wanted)
    (folder / "prometheus.yml").write_text(config)
    alerts, replaced = re.subn(r"\bfor: \w+", "for: 2s", (MONITORING / "alerts.yml").read_text())
    assert replaced
    (folder / "alerts.yml").write_text(alerts)


def _session_folder(service: Service) -> Path:
    found = re.search(r"logs in (\S+)/logs/serve", service.output)
    assert found is not None
    return Path(found[1])


def _haproxy_port(service: Service) -> str:
    for process in service.leftover_processes():
        with suppress(psutil.Error):
            if port := process.environ().get(HAPROXY_PORT):
                return port
    raise AssertionError(f"no process of this instance has {HAPROXY_PORT}")
