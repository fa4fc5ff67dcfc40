"""The service that a config describes, as the command which serves it asks it on this machine.

By TLS it takes the config's own certificate alone, whatever host that is for, and never a proxy of the environment's:
a token sent here reaches nobody else.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve_app import tls
from serve_app.grpc import SERVICE
from serve_app.haproxy import EVERY_INTERFACE, LOOPBACK
from serve_app.tokens import authorization

if TYPE_CHECKING:
    import grpc

PROBE_TIMEOUT_S = 2.0
DIRECT = [("grpc.enable_http_proxy", 0)]


def names(content: dict[str, Any]) -> list[str]:
    """Of the applications."""
    return [application.get("name", "default") for application in content["applications"]]


def prefixes(content: dict[str, Any]) -> list[str]:
    """Of their routes."""
    return [application.get("route_prefix", "/").rstrip("/") for application in content["applications"]]


def grpc_port(content: dict[str, Any]) -> int | None:
    """None: without gRPC."""
    options = content.get("grpc_options") or {}
    return int(options["port"]) if options.get("grpc_servicer_functions") else None


def origin(content: dict[str, Any]) -> str:
    """Scheme, host and port, for a person: by TLS a name that the certificate speaks for."""
    http = content["http_options"]
    if not tls.is_on(http):
        return f"http://{_host(content)}:{http['port']}"
    host = next((name for name in _certified(http) if "*" not in name), _host(content))
    return f"https://{host}:{http['port']}"


def get(content: dict[str, Any], path: str) -> dict[str, Any] | None:
    """The JSON of an answer that is good."""
    try:
        with _open(content, path, authorization()) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except (OSError, ValueError):
        return None


def is_open(content: dict[str, Any], prefix: str) -> bool:
    """Whether everybody may call."""
    try:
        with _open(content, f"{prefix}/v2/models", {}):
            return True
    except urllib.error.HTTPError as error:
        return error.code != HTTPStatus.UNAUTHORIZED
    except OSError:
        return True


def answers_grpc(content: dict[str, Any]) -> bool:
    """Whether every application does, or there is no gRPC."""
    if grpc_port(content) is None:
        return True
    import grpc

    with _channel(content) as channel:
        ready: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ServerReady")
        try:
            for name in names(content):
                ready(b"", metadata=(("application", name),), timeout=PROBE_TIMEOUT_S)
        except grpc.RpcError:
            return False
    return True


def _host(content: dict[str, Any]) -> str:
    host: str = content["http_options"].get("host", EVERY_INTERFACE[0])
    return LOOPBACK if host in EVERY_INTERFACE else host


def _certified(http: dict[str, Any]) -> list[str]:
    """Hosts that the certificate speaks for."""
    return tls.names(Path(http[tls.CERTIFICATE]), Path(http[tls.KEY]))


def _open(content: dict[str, Any], path: str, headers: Mapping[str, str]) -> Any:
    """Raises OSError."""
    http = content["http_options"]
    scheme, context = ("https", tls.pinned(Path(http[tls.CERTIFICATE]))) if tls.is_on(http) else ("http", None)
    url = f"{scheme}://{_host(content)}:{http['port']}{path}"
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - our own URL
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    return direct.open(request, timeout=PROBE_TIMEOUT_S)


def _channel(content: dict[str, Any]) -> "grpc.Channel":
    import grpc

    http, target = content["http_options"], f"{_host(content)}:{grpc_port(content)}"
    if not tls.is_on(http):
        return grpc.insecure_channel(target, DIRECT)
    credentials = grpc.ssl_channel_credentials(Path(http[tls.CERTIFICATE]).read_bytes())
    name = next((name.replace("*", "any") for name in _certified(http)), _host(content))
    return grpc.secure_channel(target, credentials, [*DIRECT, ("grpc.ssl_target_name_override", name)])
