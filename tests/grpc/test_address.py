"""Where servers made as Ray makes them listen. In processes of their own: it is for good."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serve_app.cli import ports
from serve_app.grpc.address import Public, variable
from tests.certificates import Authority

# Two servers at [::], one of them at the port of an argument: what they listen on, and who can call that port.
SCRIPT = """
import asyncio, json, sys
import grpc, psutil
from serve_app.middleware import middlewares

async def main():
    middlewares()
    middlewares()
    server = grpc.aio.server()
    server.add_insecure_port(f"[::]:{sys.argv[1]}")
    server.add_insecure_port("[::]:0")
    server.add_insecure_port("127.0.0.2:0")
    await server.start()
    listening = {c.laddr.ip for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN}
    at = {c.laddr.ip for c in psutil.Process().net_connections() if c.laddr.port == int(sys.argv[1])}
    told = grpc.ssl_channel_credentials(open(sys.argv[2], "rb").read()) if len(sys.argv) > 2 else None
    target = f"127.0.0.1:{sys.argv[1]}"
    channel = grpc.aio.secure_channel(target, told) if told else grpc.aio.insecure_channel(target)
    try:
        await asyncio.wait_for(channel.channel_ready(), 5)
        answers = True
    except TimeoutError:
        answers = False
    await channel.close()
    await server.stop(0)
    print(json.dumps([sorted(listening), sorted(at), answers]))

asyncio.run(main())
"""


def listening(environment: dict[str, str], port: int, *ca: str) -> tuple[set[str], set[str], bool]:
    """All addresses, those of `port`, and whether that answers on loopback."""
    command = [sys.executable, "-c", SCRIPT, str(port), *ca]
    root = str(Path(__file__).parents[2])
    result = subprocess.run(command, env={**environment, "PYTHONPATH": root}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    every: Any
    every, at, answers = json.loads(result.stdout)
    return plain(every), plain(at), answers


def plain(addresses: list[str]) -> set[str]:
    """gRPC has IPv4 in IPv6's clothes, where there is IPv6."""
    return {address.removeprefix("::ffff:").replace("0.0.0.0", "::") for address in addresses}


@pytest.fixture
def port() -> int:
    return ports.free()


def test_without_a_word_of_serve_app_run_nothing_changes(port: int) -> None:
    assert listening({}, port) == ({"::", "127.0.0.2"}, {"::"}, True)


def test_every_interface_becomes_loopback(port: int) -> None:
    assert listening(variable(None), port) == ({"127.0.0.1", "127.0.0.2"}, {"127.0.0.1"}, True)


@pytest.mark.parametrize(("host", "address"), [("0.0.0.0", "::"), ("", "::"), ("::", "::"), ("127.0.0.1", "127.0.0.1")])
def test_but_for_the_one_that_clients_call(port: int, host: str, address: str) -> None:
    every, at, answers = listening(variable(Public(host, port)), port)
    assert (every, at, answers) == ({address, "127.0.0.1", "127.0.0.2"}, {address}, True)


def test_which_may_have_tls(port: int, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    pair = authority.signed("service", "127.0.0.1")
    environment = variable(Public("127.0.0.1", port, str(pair.certificate), str(pair.key)))
    assert listening(environment, port, str(authority.path))[2]
    # As `serve-app run` asks it: the certificate itself is all that it trusts.
    assert listening(environment, port, str(pair.certificate))[2]
    assert not listening(environment, port, str(other.path))[2]
    assert not listening(environment, port)[2]
