"""What `serve-app run` makes of its options before anything starts."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serve_app.cli.run import grpc_limits, override_ports
from serve_app.config_file import check, read
from serve_app.grpc import ADD_SERVICERS

DEPLOY = Path(__file__).parents[2] / "deploy"
MEBIBYTE = 1 << 20


def overridden(file: str, port: int | None = None, grpc_port: int | None = None, **content: Any) -> dict[str, Any]:
    found = {**read(DEPLOY / file), **content}
    override_ports(found, port, grpc_port)
    return found


def test_a_port_is_instead_of_the_files() -> None:
    assert overridden("local.yaml", port=1234)["http_options"]["port"] == 1234
    assert overridden("local.yaml")["http_options"]["port"] == 8000
    assert overridden("local.yaml", http_options={"request_timeout_s": 3})["http_options"]["port"] == 8000


def test_a_grpc_port_turns_grpc_on() -> None:
    content = overridden("local.yaml", grpc_port=8081)
    assert content["grpc_options"] == {
        "port": 8081,
        "request_timeout_s": 30,
        "grpc_servicer_functions": [ADD_SERVICERS],
    }
    assert check(content) == []


def test_a_grpc_port_is_instead_of_the_files() -> None:
    given = read(DEPLOY / "cpu.yaml")["grpc_options"]
    assert overridden("cpu.yaml")["grpc_options"] == given
    assert overridden("cpu.yaml", grpc_port=8081)["grpc_options"] == {**given, "port": 8081}
    assert "grpc_options" not in overridden("cpu.yaml", grpc_port=0)


@pytest.mark.parametrize("wrong", [None, [], "text", {"port": None}], ids=repr)
@pytest.mark.parametrize("key", ["http_options", "grpc_options"])
def test_options_that_are_none_are_left_to_the_check(key: str, wrong: Any) -> None:
    check(overridden("cpu.yaml", port=1234, grpc_port=8081, **{key: wrong}))


@pytest.mark.parametrize(
    ("max_request_bytes", "limit"),
    [
        (None, 64 * MEBIBYTE + (64 << 10)),
        (100 * MEBIBYTE, 100 * MEBIBYTE + (64 << 10)),
        (MEBIBYTE, 16 * MEBIBYTE),
        (4096 * MEBIBYTE, (1 << 31) - 1),
    ],
)
def test_a_message_may_be_as_large_as_a_request(max_request_bytes: int | None, limit: int) -> None:
    content = read(DEPLOY / "local.yaml")
    if max_request_bytes is not None:
        content["applications"][0]["args"] |= {"max_request_bytes": max_request_bytes, "max_image_bytes": 1}
    other = {"import_path": "other.app:app", "args": {"max_request_bytes": "all"}}
    content["applications"].append(other)
    assert set(grpc_limits(content).values()) == {str(limit)}


def test_two_protocols_on_one_port_start_nothing() -> None:
    command = [
        sys.executable,
        "-m",
        "serve_app",
        "run",
        str(DEPLOY / "local.yaml"),
        "--port",
        "81",
        "--grpc-port",
        "81",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert "grpc_options.port: HTTP has port 81" in result.stderr
