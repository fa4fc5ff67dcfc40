"""deploy/docker, as far as it can be tested without an engine to build it: each part of it is read, or run here."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pytest
from click import Group
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement
from packaging.version import Version

from serve_app import cli, config_file
from serve_app.cli.run import grpc_limits
from tests.conftest import REPOSITORY
from tests.deploy import environment

FILE = REPOSITORY / "deploy" / "docker" / "Dockerfile"
TARGETS = ("cpu", "gpu")
BIN = Path(sys.executable).parent
each_target = pytest.mark.parametrize("target", TARGETS)


class Instruction(NamedTuple):
    name: str
    value: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.value)


def stages() -> dict[str, list[Instruction]]:
    """The instructions of each stage, those of the stages that it builds on first."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for each in DockerfileParser(path=str(FILE)).structure:
        instruction = Instruction(each["instruction"], each["value"])
        if instruction.name == "FROM":
            base, _, name = instruction.words
            current = found[name] = [*found.get(base, [])]
        elif found and instruction.name != "COMMENT":
            current.append(instruction)
    return found


STAGES = stages()


def last(target: str, name: str) -> str:
    return [each.value for each in STAGES[target] if each.name == name][-1]


def image_environment(target: str) -> dict[str, str]:
    pairs = [word.split("=", 1) for each in STAGES[target] if each.name == "ENV" for word in each.words]
    return dict(pairs)


# --- what is written there ------------------------------------------------------------------------


def test_hadolint_finds_nothing() -> None:
    subprocess.run([BIN / "hadolint", "--failure-threshold", "style", FILE], check=True, timeout=60)


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    worse = tmp_path / "Dockerfile"
    worse.write_text(FILE.read_text().replace("# hadolint ignore=DL3008", "").replace("USER 1000:1000", "USER root"))
    result = subprocess.run([BIN / "hadolint", worse], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert {"DL3008", "DL3002"} <= set(result.stdout.replace(":", " ").split())


def test_the_base_is_one_pinned_version() -> None:
    lines = DockerfileParser(path=str(FILE)).structure
    (base,) = [each["value"].removeprefix("PYTHON=") for each in lines if each["instruction"] == "ARG"]
    assert len(Version(base.partition(":")[2].partition("-")[0]).release) == 3
    bases = {each["value"].split()[0] for each in lines if each["instruction"] == "FROM"}
    assert bases - STAGES.keys() == {"${PYTHON}"}


@each_target
def test_it_runs_as_a_user_without_rights(target: str) -> None:
    assert last(target, "USER") == "1000:1000"
    assert "useradd --uid 1000 " in " ".join(each.value for each in STAGES[target] if each.name == "RUN")


@each_target
def test_its_environment_is_that_of_the_command(target: str) -> None:
    """But for what depends on the config: the command would not set it where it is set."""
    content = config_file.read(REPOSITORY / "deploy" / f"{target}.yaml")
    expected = environment.of_service(content)
    for name in grpc_limits(content):
        del expected[name]
    found = image_environment(target)
    assert {name: value for name, value in found.items() if name.startswith(("RAY_", "MALLOC_"))} == expected


@each_target
def test_ray_and_the_command_are_on_the_path(target: str) -> None:
    """KubeRay replaces the command by `bash -c "ray start ..."`."""
    assert image_environment(target)["PATH"].startswith("/opt/venv/bin:")
    assert f"--from=dependencies-{target} /opt/venv /opt/venv" in [
        each.value for each in STAGES[target] if each.name == "COPY"
    ]


def test_only_the_gpu_image_has_a_compiler() -> None:
    installed = {target: " ".join(each.value for each in STAGES[target] if each.name == "RUN") for target in TARGETS}
    assert "gcc libc6-dev" in installed["gpu"]
    assert "gcc" not in installed["cpu"]


# --- the command ----------------------------------------------------------------------------------


@each_target
def test_its_command_is_one_that_serves_a_config_of_the_image(target: str) -> None:
    init, dashes, program = json.loads(last(target, "ENTRYPOINT"))
    name, config = json.loads(last(target, "CMD"))
    assert (init, dashes, program) == ("tini", "--", "serve-app")
    assert isinstance(cli.main, Group)
    cli.main.commands[name].make_context(name, [config])
    assert f"{config} deploy/" in [each.value for each in STAGES[target] if each.name == "COPY"]


@each_target
def test_its_config_listens_where_docker_publishes(target: str) -> None:
    content = config_file.read(REPOSITORY / json.loads(last(target, "CMD"))[1])
    assert config_file.check(content, config_file.Resources(gpus=target == "gpu", cpus=8)) == []
    assert content["http_options"]["host"] == "0.0.0.0"
    ports = [content["http_options"]["port"], content["grpc_options"]["port"]]
    assert last(target, "EXPOSE").split() == [str(port) for port in ports]
    assert f":{ports[0]}/v2/health/ready" in last(target, "HEALTHCHECK")


# --- health ---------------------------------------------------------------------------------------


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers `status` to the service's readiness, 404 to all else; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/v2/health/ready" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def health_check(port: int) -> int:
    program, option, script = json.loads(last("cpu", "HEALTHCHECK").partition(" CMD ")[2])
    assert program == "python"
    command = [sys.executable, option, script.replace(":8000/", f":{port}/")]
    return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=60).returncode


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1)])
def test_it_is_healthy_when_the_service_is_ready(status: int, exit_status: int) -> None:
    with answering(status) as port:
        assert health_check(port) == exit_status


def test_it_is_not_healthy_when_nobody_answers() -> None:
    with answering(200) as port:
        pass
    assert health_check(port) == 1


# --- what goes in ---------------------------------------------------------------------------------


def admitted() -> set[str]:
    """.dockerignore turns everything away but what it names."""
    lines = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not line.startswith("!")] == ["*", "**/__pycache__"]
    return {line.removeprefix("!") for line in lines if line.startswith("!")}


def test_what_is_copied_is_what_docker_is_given() -> None:
    copies = [each.words for stage in STAGES.values() for each in stage if each.name == "COPY"]
    sources = {source for *found, _ in copies for source in found if not found[0].startswith("--from=")}
    assert sources == admitted()
    assert all((REPOSITORY / source).exists() for source in sources)


def test_what_is_copied_from_a_stage_is_of_one() -> None:
    froms = {w.removeprefix("--from=") for s in STAGES.values() for i in s for w in i.words if w.startswith("--from=")}
    assert froms == {"dependencies-cpu", "dependencies-gpu"} <= STAGES.keys()


def test_the_wheel_of_what_docker_is_given_has_all_of_the_package(tmp_path: Path) -> None:
    given = tmp_path / "given"
    for source in admitted():
        (given / source).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (REPOSITORY / source).is_dir() else shutil.copy
        copy(REPOSITORY / source, given / source)
    (command,) = [each.value for each in STAGES["wheel"] if each.value.startswith("pip wheel")]
    command = command.replace("/wheel", str(tmp_path / "wheel"))
    subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        cwd=given,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = (tmp_path / "wheel").iterdir()
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("serve_app/")}
    tracked = subprocess.run(
        ["git", "ls-files", "serve_app"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert {name for name in tracked.stdout.split() if not name.endswith(".proto")} <= packed


# --- pins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["torch", "torchvision"])
def test_pytorchs_wheels_without_cuda_are_the_pinned_version(name: str) -> None:
    """So the lock of the GPU image is the CPU image's too: a local version matches a pin without one."""
    lines = (REPOSITORY / "deploy" / "constraints.txt").read_text().splitlines()
    (pin,) = [Requirement(line) for line in lines if Requirement(line).name == name]
    (specifier,) = pin.specifier
    assert pin.specifier.contains(Version(f"{specifier.version}+cpu"))


def test_every_package_is_installed_at_its_pinned_version() -> None:
    installs = {each.value for stage in STAGES.values() for each in stage if "pip install" in each.value}
    loose = {each for each in installs if "--constraint constraints.txt" not in each}
    assert {each.partition(" pip ")[2] for each in loose} == {"install --no-cache-dir --no-deps /wheel/*.whl"}
