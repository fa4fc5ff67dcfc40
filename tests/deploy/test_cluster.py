"""deploy/cluster: what `ray up` takes, by Ray's own schema; its commands are Ray's, and its environment is ours."""

import copy
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import ray.autoscaler
import yaml
from jsonschema import Draft202012Validator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from serve_app import config_file
from tests.conftest import REPOSITORY
from tests.deploy import environment
from tests.deploy.schemas import closed, refusals

FOLDER = REPOSITORY / "deploy" / "cluster"
SCRIPT = FOLDER / "environment.sh"
FILES = {path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yaml")}
SCHEMA = Draft202012Validator(
    closed(json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text()))
)
each_file = pytest.mark.parametrize("name", FILES)


def test_there_is_one_for_machines_and_one_for_a_cloud() -> None:
    assert {content["provider"]["type"] for content in FILES.values()} == {"local", "aws"}


@each_file
def test_ray_takes_it(name: str) -> None:
    validate_config(prepare_config(copy.deepcopy(FILES[name])))


@each_file
def test_it_has_no_key_that_rays_schema_does_not_know(name: str) -> None:
    assert refusals(SCHEMA, FILES[name]) == set()


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("machines", ("max_worker",), 2),
        ("machines", ("provider", "worker_ip"), []),
        ("machines", ("auth", "user"), "ubuntu"),
        ("machines", ("setup_commands",), "pip install ray"),
        ("aws", ("available_node_types", "gpu", "min_worker"), 1),
        ("aws", ("available_node_types", "gpu", "resources"), {"GPU": 0.5}),
        ("aws", ("idle_timeout_minutes",), "ten"),
    ],
    ids=str,
)
def test_a_misspelt_key_and_a_wrong_type_are_found(name: str, path: tuple[str, ...], value: Any) -> None:
    content = copy.deepcopy(FILES[name])
    node = content
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    assert refusals(SCHEMA, content)


@each_file
@pytest.mark.parametrize("node", ["head", "worker"])
def test_every_node_starts_ray_in_the_environment_of_the_service(name: str, node: str) -> None:
    for command in FILES[name][f"{node}_start_ray_commands"]:
        assert command.startswith(f". ~/serve-app/{SCRIPT.relative_to(REPOSITORY)}; ")
    (words,) = [shlex.split(command.partition(" ray start ")[2]) for command in commands_of(name, node, "ray start")]
    options = start.make_context("ray start", words).params
    assert options["head"] == (node == "head")
    assert options["num_cpus"] == (0 if node == "head" else None)


def commands_of(name: str, node: str, part: str) -> list[str]:
    return [command for command in FILES[name][f"{node}_start_ray_commands"] if part in command]


def test_the_environment_is_that_of_the_command() -> None:
    printed = subprocess.check_output(["env", "-i", "HOME=/root", "bash", "-c", f"set -eu; PATH=/bin; . {SCRIPT}; env"])
    found = dict(line.split("=", 1) for line in printed.decode().splitlines())
    expected = environment.of_service(config_file.read(REPOSITORY / "deploy" / "gpu.yaml"))
    names = [name for name in found if name.startswith(("RAY_", "MALLOC_"))]
    assert {name: found[name] for name in names} == {**expected, "RAY_AUTH_MODE": "token"}
    assert found["PATH"].startswith("/root/venv/bin:")


@each_file
def test_what_it_names_of_the_repository_is_there(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    named = set(re.findall(r"(?:serve-app/)?(deploy/[\w/.-]+\w)", text))
    assert {f"deploy/cluster/{name}.yaml", "deploy/cluster/environment.sh", "deploy/constraints.txt"} < named
    assert [path for path in named if not (REPOSITORY / path).is_file()] == []


def test_a_node_of_the_cloud_has_what_the_replicas_of_one_gpu_take() -> None:
    nodes = FILES["aws"]["available_node_types"]
    assert nodes[FILES["aws"]["head_node_type"]]["resources"] == {"CPU": 0}
    there = config_file.Resources(gpus=nodes["gpu"]["resources"]["GPU"], cpus=nodes["gpu"]["resources"]["CPU"])
    assert config_file.check(config_file.read(REPOSITORY / "deploy" / "gpu.yaml"), there) == []
