"""`serve-app run`: what it says, how it fails, and that nothing is left when it ends."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from serve_app.cli import ports
from serve_app.grpc import ADD_SERVICERS, SERVICE
from serve_app.grpc import inference_pb2 as pb
from tests.serve.service import Service, config, running, started


def test_ctrl_c_ends_with_status_0_and_leaves_no_process_and_no_port() -> None:
    with running(config()) as service:
        assert service.stop(signal.SIGINT) == 0
        assert service.leftovers() == []
        assert ports.is_free(service.content["http_options"]["port"])


def test_two_instances_run_side_by_side(samples: dict[int, bytes]) -> None:
    with running(config()) as one, running(config()) as other:
        assert [service.post(samples[7])[0][0] for service in (one, other)] == [200, 200]
        assert other.stop(signal.SIGTERM) == 0
        assert one.post(samples[7])[0][0] == 200


def test_two_that_start_at_the_same_moment_each_answer_for_themselves() -> None:
    contents = [config({"model_name": name}) for name in ("one", "other")]
    with started(contents[0], grpc=True) as one, started(contents[1], grpc=True) as other:
        for service in (one, other):
            service.wait_until("stop  Ctrl-C")
        for service, content in zip((one, other), contents, strict=True):
            name = content["applications"][0]["args"]["model_name"]
            for _ in range(10):
                assert service.get("/v2/models")[1] == {"models": [name]}
                assert model_of(service) == name


def model_of(service: Service) -> str:
    """The model that its gRPC answers for."""
    with grpc.insecure_channel(service.grpc_address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/RepositoryIndex")
        (model,) = pb.RepositoryIndexResponse.FromString(call(b"", timeout=30)).models
        return str(model.name)


def test_a_busy_grpc_port_is_named_with_its_owner() -> None:
    content = config()
    content["grpc_options"] = {
        "port": ports.free(),
        "request_timeout_s": 30,
        "grpc_servicer_functions": [ADD_SERVICERS],
    }
    with port_held(content["grpc_options"]["port"]) as holder, started(content) as service:
        assert service.process.wait(60) == 1
        assert f"port {content['grpc_options']['port']} is in use by process {holder.pid}" in service.output
        assert "make serve GRPC_PORT=" in service.output


def test_a_busy_port_is_named_with_its_owner_before_anything_starts() -> None:
    content = config()
    with port_held(content["http_options"]["port"]) as holder, started(content) as service:
        assert service.process.wait(60) == 1
        assert f"in use by process {holder.pid}" in service.output
        holder.kill()  # `started` asserts that the port is free afterwards
        holder.wait()


def test_a_model_that_cannot_load_ends_the_command_and_says_why() -> None:
    with started(config({"weights": "/nowhere/model.pth", "arch": "resnet18"})) as service:
        assert service.process.wait(120) == 1
        assert "did not start: serve_app.weights.WeightsError" in service.output
        assert "there is no file /nowhere/model.pth" in service.output


def test_a_wrong_config_starts_nothing() -> None:
    content = config(max_ongoing_request=7)
    with started(content) as service:
        assert service.process.wait(60) == 2
        assert "max_ongoing_request" in service.output
        assert "did you mean `max_ongoing_requests`?" in service.output


def test_fallback_weights_are_announced(tmp_path: Path, samples: dict[int, bytes]) -> None:
    content = config({"arch": "resnet18", "weights": "DEFAULT", "fallback_weights": "bundled"})
    # An empty cache, and a proxy that refuses: a machine without network, wherever this test runs.
    with running(content, TORCH_HOME=str(tmp_path), HTTPS_PROXY="http://127.0.0.1:9") as service:
        assert "Serving the bundled digits checkpoint instead" in service.output
        _, model = service.get("/v2/models/digits")
        assert "Serving the bundled digits checkpoint instead" in model["notice"]
        assert service.post(samples[4])[0][1]["images"][0]["classes"][0]["label"] == "four"


def test_plain_serve_run_takes_the_same_file(samples: dict[int, bytes]) -> None:
    with started(config(), command=("serve", "run", "--address", "local")) as service:
        service.wait_until_ready()
        assert service.post(samples[7])[0][1]["images"][0]["classes"][0]["label"] == "seven"
        assert service.stop(signal.SIGINT) == 0


@contextmanager
def port_held(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which listens on `port`."""
    script = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()
