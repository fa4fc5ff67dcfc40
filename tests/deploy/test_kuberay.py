"""deploy/kuberay: Kubernetes would take it as it is, and it says what the rest of the repository says."""

import copy
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from ray.scripts.scripts import drain_node

from serve_app import cli, config_file, manifest
from serve_app.config_file import Resources
from tests.conftest import REPOSITORY
from tests.deploy import environment
from tests.deploy.schemas import closed, refusals

FILE = REPOSITORY / "deploy" / "kuberay" / "rayservice.yaml"
CRD = REPOSITORY.parent / "shared" / "schemas" / "kuberay" / "ray.io_rayservices.yaml"
KUBERNETES = "1.34"
DOCUMENTS = config_file.read_documents(FILE)
(SERVICE,) = [each for each in DOCUMENTS if each["kind"] == manifest.KIND]
CLUSTER = SERVICE["spec"]["rayClusterConfig"]
HEAD, WORKERS = CLUSTER["headGroupSpec"], CLUSTER["workerGroupSpecs"]
GROUPS = [HEAD, *WORKERS]
CONTENT = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])
PODS = [group["template"]["spec"] for group in GROUPS]


def containers() -> list[dict[str, Any]]:
    return [container for pod in PODS for container in pod["containers"]]


# --- schemas --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crd() -> Draft202012Validator:
    """KubeRay's own schema, which refuses what it does not know, as `kubectl apply` does."""
    if not CRD.is_file():
        pytest.skip(f"needs KubeRay's CRD in {CRD}")
    versions = yaml.load(CRD.read_text(), yaml.CSafeLoader)["spec"]["versions"]
    (schema,) = [each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == "v1"]
    return Draft202012Validator(closed(schema))


def changed(document: Any, *path: str | int, value: Any) -> Any:
    document = copy.deepcopy(document)
    node = document
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return document


def test_the_service_is_what_the_crd_describes(crd: Draft202012Validator) -> None:
    assert refusals(crd, SERVICE) == set()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "serveConfigV3"), "x"),
        (("spec", "rayClusterConfig", "enableInTreeAutoscaler"), True),
        (("spec", "rayClusterConfig", "workerGroupSpecs", 0, "maxReplica"), 4),
        (("spec", "rayClusterConfig", "headGroupSpec", "template", "spec", "containers", 0, "resource"), {}),
        (("spec", "rayClusterConfig", "workerGroupSpecs", 0, "maxReplicas"), "four"),
        (("spec", "rayClusterConfig", "authOptions", "mode"), "yes"),
        (("spec", "rayClusterConfig", "headGroupSpec", "template", "spec", "containers", 0, "env"), {"A": "1"}),
        (("spec", "serveConfigV2"), {"applications": []}),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_the_crd_refuses_a_misspelt_key_and_a_wrong_type(
    crd: Draft202012Validator, path: tuple[str | int, ...], value: Any
) -> None:
    assert refusals(crd, changed(SERVICE, *path, value=value))


def as_pod(group: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}


@pytest.mark.parametrize(
    "document",
    [*(each for each in DOCUMENTS if each is not SERVICE), *map(as_pod, GROUPS)],
    ids=lambda document: document["kind"],
)
def test_what_kubernetes_itself_knows_is_as_it_knows_it(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(changed(document, "spec", "misspelt", value=1), KUBERNETES, strict=True)


# --- what must agree ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edits", "gpus"),
    [
        ({"rayClusterConfig.enableInTreeAutoscaling": False, "workers.replicas": 2}, 2),
        ({"workers.numOfHosts": 2, "workers.maxReplicas": 1}, 2),
        ({"workers.resources": {"GPU": "2", "CPU": "64"}, "workers.maxReplicas": 1}, 2),
    ],
)
def test_pods_are_counted_as_kuberay_makes_them(edits: dict[str, Any], gpus: int) -> None:
    service = SERVICE
    for where, value in edits.items():
        part, key = where.split(".")
        path = ("workerGroupSpecs", 0) if part == "workers" else ()
        service = changed(service, "spec", "rayClusterConfig", *path, key, value=value)
    assert f"need 4 GPUs and there are {gpus}:" in keys([service])[f"{ACTOR}.num_gpus"]


def test_the_config_inside_has_no_finding_on_the_pods_that_there_may_be() -> None:
    assert manifest.check(DOCUMENTS) == []
    fewer = changed(SERVICE, "spec", "rayClusterConfig", "workerGroupSpecs", 0, "maxReplicas", value=3)
    assert [finding.message.split(";")[0] for finding in manifest.check([fewer])] == [
        "15 replicas x 0.25 need 4 GPUs and there are 3: some replicas would never start",
        "15 replicas x 2 need 30 CPUs and there are 24: some replicas would never start",
    ]


def test_the_fewest_replicas_fill_the_fewest_pods() -> None:
    (deployment,) = CONTENT["applications"][0]["deployments"]
    fewest = deployment["autoscaling_config"]["min_replicas"]
    assert fewest * deployment["ray_actor_options"]["num_gpus"] == WORKERS[0]["minReplicas"]


def test_every_ray_container_has_the_environment_of_the_service() -> None:
    for container in containers():
        assert {each["name"]: each["value"] for each in container["env"]} == environment.of_service(CONTENT)


def test_no_replica_lands_on_the_head() -> None:
    assert HEAD["rayStartParams"]["num-cpus"] == "0"
    assert manifest.GPU not in str(HEAD)


def test_ray_is_the_version_of_the_image() -> None:
    assert CLUSTER["rayVersion"] == ray.__version__
    assert f"ray=={ray.__version__}\n" in (REPOSITORY / "deploy" / "constraints.txt").read_text()


def test_the_image_is_the_one_that_the_dockerfile_says_how_to_build() -> None:
    (image,) = {container["image"] for container in containers()}
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert image == f"serve-app:{version}-gpu"
    assert f"--target gpu --tag {image} ." in (REPOSITORY / "deploy" / "docker" / "Dockerfile").read_text()


def test_ports_are_those_of_the_config_and_make_a_service() -> None:
    """KubeRay takes the Service's ports from the head, by their names; the probe names one too."""
    for container in containers():
        named = {each["name"]: each["containerPort"] for each in container["ports"]}
        assert named["serve"] == CONTENT["http_options"]["port"]
        assert named["serve-grpc"] == CONTENT["grpc_options"]["port"]


def test_requests_and_only_they_may_come_from_anywhere() -> None:
    (policy,) = [each["spec"] for each in DOCUMENTS if each["kind"] == "NetworkPolicy"]
    labels = policy["podSelector"]["matchLabels"].items()
    assert all(labels <= group["template"]["metadata"]["labels"].items() for group in GROUPS)
    from_anywhere = [rule["ports"] for rule in policy["ingress"] if "from" not in rule]
    assert from_anywhere == [[{"port": CONTENT["http_options"]["port"]}, {"port": CONTENT["grpc_options"]["port"]}]]


def test_no_container_may_more_than_it_must() -> None:
    for pod in PODS:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for context in [
        CLUSTER["autoscalerOptions"]["securityContext"],
        *(each["securityContext"] for each in containers()),
    ]:
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_memory_and_gpus_are_limited_to_what_is_requested() -> None:
    for container in containers():
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert limits == {name: amount for name, amount in requests.items() if name != "cpu"}


def test_weights_are_read_from_the_volume() -> None:
    weights = Path(CONTENT["applications"][0]["args"]["weights"])
    (claim,) = [each["metadata"]["name"] for each in DOCUMENTS if each["kind"] == "PersistentVolumeClaim"]
    for pod in (group["template"]["spec"] for group in WORKERS):
        (volume,) = [each for each in pod["volumes"] if each["name"] == "weights"]
        assert volume["persistentVolumeClaim"] == {"claimName": claim, "readOnly": True}
        (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "weights"]
        assert weights.is_relative_to(mount["mountPath"])


def drain_script() -> str:
    *shell, script = WORKERS[0]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert shell == ["bash", "-c"]
    return str(script)


def test_a_pod_that_ends_has_the_time_to_hand_over() -> None:
    """Its script asks Ray for as long as it waits itself, and ends before Kubernetes ends it."""
    (command,) = re.findall(r"^ray drain-node (.*)", drain_script().replace("\\\n", ""), re.MULTILINE)
    told = drain_node.make_context("ray drain-node", shlex.split(command)).params["deadline_remaining_seconds"]
    (deployment,) = CONTENT["applications"][0]["deployments"]
    grace = WORKERS[0]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert deployment["graceful_shutdown_timeout_s"] < told < grace
    assert f"i < {told};" in drain_script()


def test_a_pod_that_ends_waits_for_replicas_and_not_for_its_own_script(tmp_path: Path) -> None:
    (pattern,) = re.findall(r"grep -qs '(.*?)'", drain_script())
    replica = tmp_path / "cmdline"
    replica.write_text("ray::ServeReplica:serve-app:Classifier\0")
    assert subprocess.run(["grep", "-qs", pattern, replica], timeout=30).returncode == 0
    replica.write_text(drain_script())
    assert subprocess.run(["grep", "-qs", pattern, replica], timeout=30).returncode == 1


# --- serve-app check ------------------------------------------------------------------------------


ACTOR = "spec.serveConfigV2.applications[0].deployments[0].ray_actor_options"


def with_config(text: Any) -> dict[str, Any]:
    found: dict[str, Any] = changed(SERVICE, "spec", "serveConfigV2", value=text)
    return found


def keys(documents: Any, resources: Resources = manifest.UNKNOWN) -> dict[str, str]:
    return {finding.key: finding.message for finding in manifest.check(documents, resources)}


def test_the_command_takes_the_manifest() -> None:
    result = CliRunner().invoke(cli.main, ["check", str(FILE)])
    assert (result.exit_code, result.output) == (0, f"{FILE}: valid\n")
    on_fewer = CliRunner().invoke(cli.main, ["check", "--gpus", "3", str(FILE)])
    assert on_fewer.exit_code == 1
    assert f"error {ACTOR}.num_gpus: 15 replicas" in on_fewer.output


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (None, "", "write it as a block of text"),
        ({"applications": []}, "", "write it as a block of text"),
        ("a: [", "", "not YAML"),
        ("- a", "", "must be a mapping with `applications`"),
        ("application: []", ".application", "did you mean `applications`?"),
        (
            SERVICE["spec"]["serveConfigV2"].replace("num_gpus: 0.25", "num_gpu: 0.25"),
            ".applications[0].deployments[0].ray_actor_options.num_gpu",
            "did you mean `num_gpus`?",
        ),
    ],
)
def test_a_finding_says_where_in_the_manifest(text: Any, key: str, words: str) -> None:
    assert words in keys([with_config(text)])[f"spec.serveConfigV2{key}"]


def test_a_manifest_without_a_service_is_named_by_its_kinds() -> None:
    others = [{"kind": "ConfigMap"}, {"apiVersion": "v1"}, "text"]
    assert manifest.is_manifest(others)
    assert keys(others) == {
        "kind": "no RayService here, only ConfigMap, None, 'text'; the Ray Serve config stands in one"
    }


def test_of_two_services_each_is_checked() -> None:
    assert list(keys([SERVICE, with_config("a: ["), with_config("- a")])) == [
        "[1].spec.serveConfigV2",
        "[2].spec.serveConfigV2",
    ]


def test_what_the_command_says_of_the_cluster_is_instead_of_the_pods() -> None:
    assert "there are 1" in str(keys([SERVICE], Resources(gpus=1)))


@pytest.mark.parametrize(("written", "there"), [("7500m", 8), (7.5, 8), ("8", 8), (1, 1)])
def test_a_quantity_counts_as_kuberay_counts_it(written: Any, there: int) -> None:
    service = changed(SERVICE, "spec", "rayClusterConfig", "workerGroupSpecs", 0, "rayStartParams", value={})
    path = ("spec", "rayClusterConfig", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "resources")
    service = changed(service, *path, value={"requests": {"cpu": written}, "limits": {manifest.GPU: "1"}})
    service = changed(service, "spec", "rayClusterConfig", "workerGroupSpecs", 0, "maxReplicas", value=1)
    found = keys([service], Resources(gpus=4))
    assert (
        f"there are {there}:" in found["spec.serveConfigV2.applications[0].deployments[0].ray_actor_options.num_cpus"]
    )


@pytest.mark.parametrize("wrong", [[None], [{"maxReplicas": "x"}], [{"template": []}], None, []], ids=repr)
def test_what_pods_do_not_say_is_not_checked_against(wrong: Any) -> None:
    assert keys([changed(SERVICE, "spec", "rayClusterConfig", value=wrong)]) == {}
    found = keys([changed(SERVICE, "spec", "rayClusterConfig", "workerGroupSpecs", value=wrong)])
    assert found.keys() == (set() if wrong else {f"{ACTOR}.num_gpus", f"{ACTOR}.num_cpus"})


def test_a_certificate_behind_rays_haproxy_is_refused() -> None:
    http = {**CONTENT["http_options"], "ssl_certfile": "/tls/tls.crt", "ssl_keyfile": "/tls/tls.key"}
    service = changed(SERVICE, "spec", "serveConfigV2", value=yaml.safe_dump({**CONTENT, "http_options": http}))
    assert "nobody would be answered" in keys([service])["spec.serveConfigV2.http_options.ssl_certfile"]
    for i in range(len(GROUPS)):
        group = ("headGroupSpec",) if i == 0 else ("workerGroupSpecs", i - 1)
        path = ("spec", "rayClusterConfig", *group, "template", "spec", "containers", 0, "env")
        service = changed(service, *path, value=[{"name": manifest.HAPROXY[0], "value": "0"}])
    assert keys([service]) == {}
