"""What Ray 2.60 writes for HAProxy, corrected; and that what it does not write yet is refused."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions, gRPCOptions

from serve_app import haproxy
from serve_app.cli.haproxy import binary
from serve_app.grpc import ADD_SERVICERS
from serve_app.haproxy import LOOPBACK, Settings, UnknownConfigurationError, corrected
from tests.certificates import Authority

HTTP, GRPC, METRICS, STATISTICS = 8001, 9001, 9102, 8405
PROGRAM = binary()


def written(folder: Path, grpc: bool) -> Path:
    """By Ray itself, as for a service of one application."""
    config = HAProxyConfig(
        http_options=HTTPOptions(host=LOOPBACK, port=HTTP),
        grpc_options=gRPCOptions(port=GRPC, grpc_servicer_functions=[ADD_SERVICERS] if grpc else []),
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        metrics_socket_path=str(folder / "metrics.sock"),
        metrics_port=METRICS,
        stats_port=STATISTICS,
    )

    async def write() -> Path:
        api = HAProxyApi(config, config_file_path=str(folder / "haproxy.cfg"))
        server = ServerConfig(name="replica", host=LOOPBACK, port=30000)
        api.set_backend_configs({"app": BackendConfig(name="app", path_prefix="/", app_name="app", servers=[server])})
        api._generate_config_file_internal()
        return folder / "haproxy.cfg"

    return asyncio.run(write())


def addresses(configuration: str) -> set[str]:
    stripped = (line.strip() for line in configuration.splitlines())
    return {line.removeprefix("bind ") for line in stripped if line.startswith("bind ")}


@pytest.mark.parametrize("grpc", [True, False], ids=["with gRPC", "without"])
def test_ray_opens_what_is_closed_here(tmp_path: Path, grpc: bool) -> None:
    """The day this fails, Ray has another way, and serve_app/haproxy.py may have nothing left to do."""
    configuration = written(tmp_path, grpc).read_text()
    calls = {f"{LOOPBACK}:{HTTP}"} | ({f"{LOOPBACK}:{GRPC} proto h2"} if grpc else set())
    assert addresses(configuration) == {f":{METRICS}", f"*:{STATISTICS}"} | calls
    assert "mode 666 level admin" in configuration


@pytest.mark.parametrize(
    ("host", "public"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "*"), ("", "*"), ("::", "::"), ("192.0.2.7", "192.0.2.7")],
)
def test_requests_come_in_where_the_host_says_and_the_rest_is_on_loopback(
    tmp_path: Path, host: str, public: str
) -> None:
    text = corrected(written(tmp_path, True).read_text(), Settings("haproxy", host))
    assert addresses(text) == {
        f"{public}:{HTTP}",
        f"{public}:{GRPC} proto h2",
        f"{LOOPBACK}:{METRICS}",
        f"{LOOPBACK}:{STATISTICS}",
    }
    assert "mode 600 level admin" in text
    assert "666" not in text


def test_tls_is_for_requests_over_http_and_grpc(tmp_path: Path) -> None:
    text = corrected(written(tmp_path, True).read_text(), Settings("haproxy", "0.0.0.0", "/x/tls.pem"))
    tls = "ssl crt /x/tls.pem ssl-min-ver TLSv1.2"
    assert addresses(text) == {
        f"*:{HTTP} {tls} alpn http/1.1",
        f"*:{GRPC} proto h2 {tls} alpn h2",
        f"{LOOPBACK}:{METRICS}",
        f"{LOOPBACK}:{STATISTICS}",
    }


@pytest.mark.parametrize(
    ("known", "new"),
    [
        (f"bind :{METRICS}", f"bind :{METRICS}\n    bind :{METRICS + 1}"),
        (f"bind :{METRICS}", "bind /run/metrics.sock"),
        (f"bind *:{STATISTICS}", f"bind *:{STATISTICS} ssl"),
        (f"bind *:{STATISTICS}", "# none"),
        (f"bind {LOOPBACK}:{HTTP}", f"bind 0.0.0.0:{HTTP}"),
        ("mode 666 level admin", "mode 660 level admin"),
    ],
)
def test_what_ray_did_not_write_before_is_refused(tmp_path: Path, known: str, new: str) -> None:
    configuration = written(tmp_path, True).read_text()
    assert known in configuration
    with pytest.raises(UnknownConfigurationError):
        corrected(configuration.replace(known, new), Settings("haproxy", LOOPBACK))


def started(folder: Path, settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "settings.json").write_text(json.dumps(vars(settings)))
    command = [sys.executable, "-I", "-S", haproxy.__file__, str(folder / "settings.json"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(PROGRAM is None, reason="there is no HAProxy for this machine")
@pytest.mark.parametrize("grpc", [True, False], ids=["with gRPC", "without"])
def test_haproxy_takes_what_comes_out(tmp_path: Path, grpc: bool) -> None:
    assert PROGRAM is not None
    pair = Authority(tmp_path).signed("tls", "localhost")
    pair.key.rename(f"{pair.certificate}.key")
    result = started(
        tmp_path, Settings(PROGRAM, "::1", str(pair.certificate)), "-c", "-f", str(written(tmp_path, grpc))
    )
    assert (result.returncode, result.stdout.strip().splitlines()[-1]) == (0, "Configuration file is valid")


def test_it_becomes_the_program_with_the_arguments_it_was_given(tmp_path: Path) -> None:
    path = written(tmp_path, False)
    result = started(tmp_path, Settings("/bin/echo", LOOPBACK), "-db", "-f", str(path), "-sf", "7")
    assert result.stdout == f"-db -f {path} -sf 7\n"
    assert f"bind {LOOPBACK}:{METRICS}" in path.read_text()


def test_an_unknown_configuration_starts_nothing_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text("frontend new\n    bind :1\n")
    result = started(tmp_path, Settings("/bin/echo", LOOPBACK), "-f", str(path))
    assert (result.returncode, result.stdout) == (1, "")
    assert "RAY_SERVE_ENABLE_HA_PROXY=0" in result.stderr
