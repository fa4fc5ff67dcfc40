"""Serve a config file on this machine: a Ray instance of its own, up until a signal, then gone entirely.

What plain `serve run` leaves to its user is done here: the file is checked first, HAProxy's ports are
chosen free, a failed deployment ends the command, and after Ctrl-C no process and no port remains.
"""

import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from rich.console import Console
from rich.markup import escape

from serve_app import processes, tls
from serve_app.cli import endpoint, haproxy, ports
from serve_app.config import Args
from serve_app.grpc import ADD_SERVICERS, SERVICE, address
from serve_app.haproxy import EVERY_INTERFACE
from serve_app.middleware import HTTP_CALLBACK
from serve_app.tokens import CLIENT_VARIABLE

RUN_ID = "SERVE_APP_RUN_ID"
"""Environment variable that every process of this run inherits: how they are found at the end."""

# Ray Serve's fast HTTP path costs a twentieth of the CPU of its ordinary proxy (0.3 against 6-8 ms
# per request of 100 KB).
FAST_HTTP_PATH = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # With that, Ray writes its access log 1000 lines at a time, on the event loop: a stall of 48 ms for
    # everybody inside, every 1000 requests.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "32",
    # A stopping replica stays reachable for 30 s by default, for load balancers further out. HAProxy needs about a
    # second to be told: with one, of 1,200 requests while two replicas went one found none (500).
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    # Ray starts a new HAProxy after three failed checks. One that was killed was gone for 34 s with the 10 s between
    # checks that are the default.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
}
# Ray's exporter replaces each observation by the middle of its bucket. With borders at half numbers
# the middles are whole ones, and serve_actual_batch_size_sum is exact up to 64 (Ray's default
# buckets gave 54.5 for 74 images).
BATCH_SIZE_BUCKETS = ",".join(str(n + 0.5) for n in [*range(65), 128, 256, 512, 1024])
# Ray's own 15 lets any other process keep a replica off its core: of answers that were to come within 250 ms at
# three times the capacity, 5 to 7 % came late with it, 1 to 4 % with 0 (two cores, 350 requests/s).
REPLICA_NICENESS = "0"
# Ray then takes this machine's address to be 127.0.0.1, as it does on macOS, and what its processes have among
# themselves is not open to others: GCS, raylet, workers, agents, all metrics.
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Whatever the HTTP path.
ENVIRONMENT = {
    **HTTP_CALLBACK,
    "RAY_SERVE_BATCH_SIZE_BUCKETS": BATCH_SIZE_BUCKETS,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": REPLICA_NICENESS,
}
# Of a gRPC message, beyond the tensors of a request; and at least, for answers to 1024 images.
GRPC_SLACK_BYTES = 64 << 10
GRPC_SMALLEST_BYTES = 16 << 20
MAX_INT32 = (1 << 31) - 1
OBJECT_STORE_BYTES = 128 << 20  # images never pass through Ray's object store
STOP_TIMEOUT_S = 5.0
ANSI = re.compile(r"\x1b\[[0-9;]*m")
EXCEPTION = re.compile(r"^[\w.]*(?:Error|Exception)\b", re.MULTILINE)  # as the last lines of a traceback begin

console = Console(stderr=True, highlight=False)


def run_until_signal(path: Path, port: int | None, grpc_port: int | None, start_timeout_s: float) -> int:
    """Check, start, announce, wait, stop. Returns the exit status (see `serve-app run --help`)."""
    binary = _choose_http_path()
    os.environ[RUN_ID] = uuid4().hex
    try:
        content = _checked(path, port, grpc_port)
    except ValueError as error:
        _say_failure(str(error))
        return 2
    if busy := _busy(content):
        _say_failure(busy)
        return 1
    try:
        with ports.claimed() as chosen, _front(content, binary) as front:
            try:
                return _serve(content, front, chosen, start_timeout_s)
            finally:
                # Agents that outlive their raylet, an orphaned HAProxy.
                processes.end(processes.inheriting(RUN_ID), STOP_TIMEOUT_S)
    except ports.NoPorts as error:
        _say_failure(str(error))
        return 1


def _say_failure(message: str) -> None:
    console.print(message, style="red", markup=False, soft_wrap=True)


def _busy(content: dict[str, Any]) -> str | None:
    """Who has a port of this service."""
    for variable, number in (("PORT", content["http_options"]["port"]), ("GRPC_PORT", endpoint.grpc_port(content))):
        if number and (owner := ports.owner(number)):
            return (
                f"port {number} is in use by {owner}; stop that, or choose another: make serve {variable}={number + 1}"
            )
    return None


def _choose_http_path() -> str | None:
    """Set Ray's environment, before Ray is imported. Returns HAProxy's program, None: Ray's ordinary proxy."""
    for name, value in ON_LOOPBACK.items():
        os.environ.setdefault(name, value)
    binary = haproxy.binary() if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY", "1") == "1" else None
    if binary is None:
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "0"
        return None
    for name, value in FAST_HTTP_PATH.items():
        os.environ.setdefault(name, value)
    return binary


@dataclass(frozen=True)
class _Front:
    """What stands before the replicas, and what of Ray's environment and config follows from it."""

    name: str
    http_options: dict[str, Any]
    """For Ray."""
    environment: dict[str, str]


@contextmanager
def _front(content: dict[str, Any], binary: str | None) -> Iterator[_Front]:
    """Nothing is open to other machines but what `http_options.host` opens, HTTP and gRPC; TLS ends here, for both."""
    http = content["http_options"]
    if binary is None:
        pair = (http.get(tls.CERTIFICATE), http.get(tls.KEY))
        port = endpoint.grpc_port(content)
        public = address.Public(http.get("host", EVERY_INTERFACE[0]), port, *pair) if port else None
        name = "Ray's ordinary proxy (slower: HAProxy is not to be had here, or turned off)"
        yield _Front(name, http, address.variable(public))
        return
    with haproxy.confined(binary, http) as environment:
        yield _Front("HAProxy", haproxy.behind(http), {**environment, **address.variable(None)})


def has_haproxy() -> bool:
    return haproxy.binary() is not None


def _checked(path: Path, port: int | None, grpc_port: int | None) -> dict[str, Any]:
    from serve_app import config_file
    from serve_app.cli.check import print_findings, visible_gpus

    content = config_file.read(path)
    override_ports(content, port, grpc_port)
    resources = config_file.Resources(gpus=visible_gpus() or 0, cpus=os.cpu_count())
    findings = config_file.check(content, resources)
    if findings:
        print_findings(path, findings, console)
    if any(finding.level == "error" for finding in findings):
        raise ValueError("nothing was started: correct the file first")
    if content["http_options"].get(tls.PASSWORD):
        raise ValueError(
            "neither HAProxy nor gRPC opens a key with a password: without it, readable for this user alone, openssl "
            "pkey -in KEY -out NEW writes it"
        )
    return content


def override_ports(content: dict[str, Any], port: int | None, grpc_port: int | None) -> None:
    """The command's ports instead of the file's; what is wrong with that is found later."""
    http = content.setdefault("http_options", {})
    if not isinstance(http, dict):
        return
    http.setdefault("port", 8000)
    if port is not None:
        http["port"] = port
    if grpc_port == 0:
        content.pop("grpc_options", None)
    elif grpc_port is not None:
        given = content.get("grpc_options")
        content["grpc_options"] = {
            "grpc_servicer_functions": [ADD_SERVICERS],
            "request_timeout_s": http.get("request_timeout_s"),
            **(given if isinstance(given, dict) else {}),
            "port": grpc_port,
        }


def grpc_limits(content: dict[str, Any]) -> dict[str, str]:
    """Ray's variables for the size of a gRPC message: from a client, and from the fallback proxy to a replica."""
    from serve_app.config_file import IMPORT_PATH

    ours = [each.get("args", {}) for each in content["applications"] if each["import_path"] == IMPORT_PATH]
    size = max((Args.model_validate(args).max_request_bytes for args in ours), default=0) + GRPC_SLACK_BYTES
    limit = str(min(max(size, GRPC_SMALLEST_BYTES), MAX_INT32))
    return {"RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": limit, "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": limit}


def service_environment(content: dict[str, Any]) -> dict[str, str]:
    """What every process of the service needs in its environment, on whichever node, beside the HTTP path."""
    return {**ENVIRONMENT, **grpc_limits(content)}


def _serve(content: dict[str, Any], front: _Front, chosen: dict[str, str], start_timeout_s: float) -> int:
    for name, value in {**service_environment(content), **chosen}.items():
        os.environ.setdefault(name, value)
    os.environ.update(front.environment)
    import ray
    from ray import serve
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    stop = threading.Event()
    deadline = time.monotonic() + start_timeout_s
    try:
        with console.status("starting Ray"):
            context = ray.init(
                address="local",
                namespace="serve",
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        with _signals_set(stop), console.status("loading and warming the model"):
            ServeSubmissionClient(f"http://{context.dashboard_url}").deploy_applications(
                {**content, "http_options": front.http_options}
            )
            if failure := _wait_until_running(content, deadline, stop):
                _say_failure(failure)
                return 1
        if stop.is_set():
            return 0
        with _signals_set(stop):
            _announce(content, front.name, context.dashboard_url)
            stop.wait()
        console.print("stopping")
        return 0
    except KeyboardInterrupt:
        return 0
    finally:
        # From here on a second Ctrl-C must not leave half of it behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if ray.is_initialized():
            serve.shutdown()
            ray.shutdown()


@contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`, also where a shell started this in the background with SIGINT ignored."""

    def handle(_: int, __: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until_running(content: dict[str, Any], deadline: float, stop: threading.Event) -> str | None:
    """Until every application answers, over gRPC too, or `stop` is set; else why it does not."""
    from ray import serve

    names = endpoint.names(content)
    while not stop.is_set():
        states = {name: state for name, state in serve.status().applications.items() if name in names}
        for name, state in states.items():
            if state.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                return f"{name} did not start: {_reason(state)}"
        running = len(states) == len(names) and all(state.status == "RUNNING" for state in states.values())
        ready = running and all(
            endpoint.get(content, prefix + "/v2/health/ready") is not None for prefix in endpoint.prefixes(content)
        )
        if ready and endpoint.answers_grpc(content):
            return None
        if time.monotonic() > deadline:
            return f"not ready in time; the logs are in {_log_folder()}"
        stop.wait(0.2)
    return None


def _reason(state: Any) -> str:
    """The replica's own exception where Ray's message ends in one, else the message.

    The traceback around it, of Ray's frames for the most part, is in the controller's log too.
    """
    messages = [deployment.message for deployment in state.deployments.values() if deployment.message]
    message = ANSI.sub("", "\n".join(messages) or state.message)
    last = max(EXCEPTION.finditer(message), key=re.Match.start, default=None)
    return f"{message[last.start() :].strip()}\nthe traceback is in {_log_folder()}" if last else message


def _log_folder() -> str:
    from ray._private.worker import global_worker

    return f"{global_worker.node.get_session_dir_path()}/logs/serve"  # type: ignore[union-attr]


def _announce(content: dict[str, Any], proxy: str, dashboard: str | None) -> None:
    """The last lines of `make serve`: what runs where, how to try it, how to change it."""
    origin = endpoint.origin(content)
    for application, prefix in zip(endpoint.names(content), endpoint.prefixes(content), strict=True):
        console.print(
            f"[green]ready[/] [bold]{origin}{prefix}[/] through {proxy}; logs in {escape(_log_folder())}",
            soft_wrap=True,
        )
        names = endpoint.get(content, f"{prefix}/v2/models")
        for name in names["models"] if names else ():
            # None: the service is slow, or this token may not ask so often.
            if (model := endpoint.get(content, f"{prefix}/v2/models/{name}")) is None:
                continue
            console.print(
                f"      {model['arch']} with weights {escape(model['weights'])}, {model['precision']} on "
                f"{model['device']}, {model['num_classes']} classes",
                soft_wrap=True,
            )
            if model["notice"]:
                console.print(f"[yellow]note[/]  {escape(model['notice'])}", soft_wrap=True)
        if grpc_port := endpoint.grpc_port(content):
            host = urlsplit(origin).hostname
            told = f" with metadata application: {application}" if len(content["applications"]) > 1 else ""
            how = "by TLS" if tls.is_on(content["http_options"]) else "in plain text"
            console.print(f"gRPC  {host}:{grpc_port}, {SERVICE}{told}; {how}", soft_wrap=True)
        token = "" if endpoint.is_open(content, prefix) else f'-H "Authorization: Bearer ${CLIENT_VARIABLE}" '
        console.print(f"try   curl {token}--data-binary @photo.jpg {origin}{prefix}/v1/classify", soft_wrap=True)
    serve = Path(sys.executable).with_name("serve")
    serve = serve.relative_to(Path.cwd()) if serve.is_relative_to(Path.cwd()) else serve
    console.print(f"live  RAY_AUTH_MODE=token {escape(str(serve))} deploy -a http://{dashboard} CONFIG", soft_wrap=True)
    console.print("stop  Ctrl-C")
    sys.stderr.flush()
