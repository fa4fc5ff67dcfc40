"""Ranges of ports that instances on one machine do not share."""

import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest

from serve_app.cli import ports
from serve_app.cli.ports import HAPROXY_PORTS, NoPorts, claimed

HOLD = """
import sys
from serve_app.cli.ports import claimed
with claimed() as environment:
    print(*environment.values(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _ranges_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no service of this machine is."""
    monkeypatch.setattr(ports, "SIZE", 10)
    monkeypatch.setattr(ports, "RANGES", range(18_040, 17_999, -20))


def replica_ports(environment: dict[str, str], protocol: str) -> set[int]:
    low, high = (int(environment[f"RAY_SERVE_DIRECT_INGRESS_{limit}_{protocol}_PORT"]) for limit in ("MIN", "MAX"))
    return set(range(low, high + 1))


def every_port(environment: dict[str, str]) -> list[int]:
    return [
        *replica_ports(environment, "HTTP"),
        *replica_ports(environment, "GRPC"),
        *(int(environment[name]) for name in HAPROXY_PORTS),
    ]


def test_no_two_claims_share_a_port() -> None:
    with claimed() as one, claimed() as other:
        both = [*every_port(one), *every_port(other)]
        assert len(set(both)) == len(both)
        assert len(replica_ports(one, "HTTP")) == 10


def test_a_claim_is_over_with_its_end() -> None:
    with claimed() as one:
        pass
    with claimed() as other:
        assert other == one


def test_haproxy_has_rays_own_ports_only_in_the_first_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda _: True)
    with claimed() as one, claimed() as other:
        assert {name: int(one[name]) for name in HAPROXY_PORTS} == HAPROXY_PORTS
        assert not {int(other[name]) for name in HAPROXY_PORTS} & set(HAPROXY_PORTS.values())


def test_a_port_of_haproxys_that_is_taken_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: port != 9101)
    with claimed() as environment:
        assert environment["RAY_SERVE_HAPROXY_METRICS_PORT"] != "9101"
        assert environment["RAY_SERVE_HAPROXY_STATS_PORT"] == "8404"


def test_a_range_with_a_port_in_use_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 18_045)), claimed() as environment:
        assert 18_045 not in every_port(environment)
        assert 18_020 in replica_ports(environment, "HTTP")


def test_where_every_range_is_in_use_it_says_so() -> None:
    with ExitStack() as held:
        for _ in ports.RANGES:
            held.enter_context(claimed())
        with pytest.raises(NoPorts, match="takes 20 of 18000 to 18059"):
            held.enter_context(claimed())


def test_processes_that_start_at_the_same_moment_share_no_port() -> None:
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        claims = [holder.stdout.readline().split() for holder in holders if holder.stdout is not None]
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()
    taken = [port for claim in claims for port in claim]
    assert len(taken) == len(set(taken)) == 4 * 8


def test_an_error_of_the_instance_is_its_own() -> None:
    with pytest.raises(ConnectionError, match="gone"), claimed():
        raise ConnectionError("gone")


def test_a_free_port_is_neither_an_instances_nor_one_that_the_system_gives_to_a_connection() -> None:
    assert {ports.free() for _ in range(100)} <= set(range(31_000, 32_768))


def test_a_free_port_is_one_that_nobody_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "SINGLE", range(18_061, 18_063))
    with socket.create_server(("127.0.0.1", 18_061)):
        assert {ports.free() for _ in range(20)} == {18_062}
        with socket.create_server(("127.0.0.1", 18_062)), pytest.raises(NoPorts, match="18061 to 18062"):
            ports.free()
