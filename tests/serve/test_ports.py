"""Every socket that `serve-app run` listens on, with its address: beyond this machine only what `host` opens."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from serve_app.cli.haproxy import BINARY, FILES
from tests.serve.service import Service, config, running
from tests.waiting import eventually

# README, *Ports*: what listens, by role, whatever the number, and OPTIONAL. `Ray`: its own processes among themselves.
EXPECTED = {
    "1": {"HTTP", "gRPC", "HAProxy", "proxy", "replica", "dashboard", "Ray"},
    "0": {"HTTP", "gRPC", "proxy", "replica", "dashboard", "Ray"},
}
OPTIONAL = {"metrics"}
METRICS = {44217, 44227}
"""Of Ray's monitor and its dashboard; a second instance on the machine goes without."""
MODES = pytest.mark.parametrize("haproxy", ["1", "0"], ids=["haproxy", "ordinary proxy"])


@dataclass(frozen=True)
class Socket:
    role: str
    address: str
    port: int
    process: str

    @property
    def is_local(self) -> bool:
        found = ip_address(self.address)
        mapped = getattr(found, "ipv4_mapped", None)
        return (mapped or found).is_loopback


def listening(service: Service) -> Iterator[Socket]:
    """Of every process of this run, TCP, and UDP that anybody may send to."""
    for process in service.leftover_processes():
        with suppress(psutil.NoSuchProcess):
            name = " ".join(process.cmdline())
            for found in process.net_connections("inet"):
                if not found.raddr and found.status in (psutil.CONN_LISTEN, psutil.CONN_NONE):
                    yield Socket(role(service, name, found.laddr.port), *found.laddr, process=name[:80])


def role(service: Service, process: str, port: int) -> str:
    if port == service.content["http_options"]["port"]:
        return "HTTP"
    if port == service.grpc_port:
        return "gRPC"
    if port in METRICS:
        return "metrics"
    roles = {"/haproxy ": "HAProxy", "ProxyActor": "proxy", "ServeReplica": "replica"}
    roles |= {"dashboard.py": "dashboard", "ray::DashboardHead": "dashboard"}
    return next((role for part, role in roles.items() if part in process), "Ray")


def seen(service: Service, roles: set[str]) -> set[Socket]:
    """Once all of these are there: HAProxy, which is started anew when a replica comes, is between two at times."""
    found: set[Socket] = set()

    def look() -> bool:
        found.update(listening(service))
        return roles <= {each.role for each in found}

    eventually(look)
    return found


@MODES
def test_nothing_listens_beyond_this_machine_that_is_meant_for_it(haproxy: str) -> None:
    with running(config(), grpc=True, RAY_SERVE_ENABLE_HA_PROXY=haproxy) as service:
        sockets = seen(service, EXPECTED[haproxy])
        assert {each for each in sockets if not each.is_local} == set()
        assert {each.role for each in sockets} - OPTIONAL == EXPECTED[haproxy]


@MODES
def test_a_service_for_others_opens_http_and_grpc_and_nothing_else(haproxy: str) -> None:
    content = config()
    content["http_options"]["host"] = "0.0.0.0"
    with running(content, grpc=True, RAY_SERVE_ENABLE_HA_PROXY=haproxy) as service:
        opened = {each for each in seen(service, EXPECTED[haproxy]) if not each.is_local}
        assert {(each.role, each.port) for each in opened} == {
            ("HTTP", content["http_options"]["port"]),
            ("gRPC", service.grpc_port),
        }


def test_nobody_else_can_steer_haproxy_and_its_folder_goes_with_it() -> None:
    with running(config(), RAY_SERVE_ENABLE_HA_PROXY="1") as service:
        [environment] = [
            process.environ()
            for process in service.leftover_processes()
            if "/haproxy " in " ".join(process.cmdline()) and BINARY in process.environ()
        ][:1]
        folder = Path(environment[BINARY]).parent
        assert folder.stat().st_mode & 0o077 == 0
        assert folder.stat().st_uid == os.getuid()
        used = {path.name for path in folder.rglob("*")}
        written = {Path(environment[variable]).name for variable in FILES} - {folder.name, "log"}
        assert written <= used
        service.stop()
        assert not folder.exists()
