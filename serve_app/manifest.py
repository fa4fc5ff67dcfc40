"""A KubeRay manifest: the Ray Serve config inside its RayService, checked against what its pods offer.

The manifest around it is Kubernetes' to check: `kubectl apply` refuses keys that the CRD does not know.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import yaml

from serve_app import config_file, tls
from serve_app.config_file import Finding, Resources

KIND = "RayService"
GPU = "nvidia.com/gpu"
HAPROXY = ("RAY_SERVE_ENABLE_HA_PROXY", "1")
MILLI = "m"
"""Of a CPU, as Kubernetes writes it: 500m."""
UNKNOWN = Resources()


def is_manifest(documents: Sequence[Any]) -> bool:
    """Whether these are Kubernetes objects, and no Ray Serve config."""
    return any(isinstance(document, dict) and {"apiVersion", "kind"} & document.keys() for document in documents)


def check(documents: Sequence[Any], resources: Resources = UNKNOWN) -> list[Finding]:
    """Every finding about each RayService. `resources`: of the cluster, instead of what the pods have together."""
    services = [(i, each) for i, each in enumerate(documents) if isinstance(each, dict) and each.get("kind") == KIND]
    if not services:
        kinds = ", ".join(str(each.get("kind")) if isinstance(each, dict) else repr(each) for each in documents)
        return [Finding("error", "kind", f"no {KIND} here, only {kinds}; the Ray Serve config stands in one")]
    return [
        replace(finding, key=f"[{i}].{finding.key}" if len(services) > 1 else finding.key)
        for i, service in services
        for finding in _check_service(service, resources)
    ]


def _check_service(service: dict[str, Any], resources: Resources) -> Iterator[Finding]:
    key = "spec.serveConfigV2"
    text = _get(service, "spec", "serveConfigV2")
    if not isinstance(text, str):
        yield Finding("error", key, "no Ray Serve config: write it as a block of text, `serveConfigV2: |`")
        return
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        yield Finding("error", key, f"not YAML: {error}")
        return
    if not isinstance(content, dict):
        yield Finding("error", key, "not a Ray Serve config: it must be a mapping with `applications`")
        return
    offered = _offered(service)
    known = Resources(
        gpus=offered.gpus if resources.gpus is None else resources.gpus,
        cpus=offered.cpus if resources.cpus is None else resources.cpus,
    )
    for finding in [*config_file.check(content, known), *_check_tls(service, content)]:
        yield replace(finding, key=f"{key}.{finding.key}")


def _check_tls(service: dict[str, Any], content: dict[str, Any]) -> Iterator[Finding]:
    """Ray's HAProxy speaks no TLS, neither to clients nor to replicas, which with a certificate speak nothing else."""
    http = content.get("http_options")
    if isinstance(http, dict) and tls.is_on(http) and HAPROXY in _environment(service):
        yield Finding(
            "error",
            f"http_options.{tls.CERTIFICATE}",
            "behind Ray's HAProxy it would keep HAProxy from the replicas, and nobody would be answered; end TLS in "
            "front, at an Ingress or a gateway, or set RAY_SERVE_ENABLE_HA_PROXY to 0, for Ray's slower proxy",
        )


def _environment(service: dict[str, Any]) -> list[tuple[Any, str]]:
    """Names and values of every variable of the pods' first containers."""
    cluster = _get(service, "spec", "rayClusterConfig")
    workers = _get(cluster, "workerGroupSpecs")
    groups = [_get(cluster, "headGroupSpec"), *(workers if isinstance(workers, list) else [])]
    variables = [_get(group, "template", "spec", "containers", 0, "env") for group in groups]
    found = [each for some in variables if isinstance(some, list) for each in some]
    return [(_get(each, "name"), str(_get(each, "value"))) for each in found]


# --- what the pods offer -------------------------------------------------------------------------


def _offered(service: dict[str, Any]) -> Resources:
    """Of all pods that there may be; what a manifest does not say is not known."""
    cluster = _get(service, "spec", "rayClusterConfig")
    workers = _get(cluster, "workerGroupSpecs")
    most = "maxReplicas" if _get(cluster, "enableInTreeAutoscaling") is True else "replicas"
    groups: list[tuple[int | None, Any]] = [(1, _get(cluster, "headGroupSpec"))]
    groups += [(_pods(each, most), each) for each in workers] if isinstance(workers, list) else []
    return Resources(
        gpus=_total((number, _of_pod(group, "GPU", GPU, 0)) for number, group in groups),
        cpus=_total((number, _of_pod(group, "CPU", "cpu", None)) for number, group in groups),
    )


def _pods(group: Any, most: str) -> int | None:
    replicas, hosts = _get(group, most), _get(group, "numOfHosts")
    return replicas * (hosts if isinstance(hosts, int) else 1) if isinstance(replicas, int) else None


def _total(pods: Iterator[tuple[int | None, int | None]]) -> int | None:
    total = 0
    for number, each in pods:
        if number is None or each is None:
            return None
        total += number * each
    return total


def _of_pod(group: Any, rays: str, resource: str, default: int | None) -> int | None:
    """As KubeRay tells `ray start`: the group's resources, else the parameter (of `rays`, Ray's name), else the limit,
    else the request of the pod's first container."""
    container = _get(group, "template", "spec", "containers", 0)
    if container is None:
        return None
    places = (
        _get(group, "resources", rays),
        _get(group, "rayStartParams", f"num-{rays.lower()}s"),
        _get(container, "resources", "limits", resource),
        _get(container, "resources", "requests", resource),
    )
    given = next((each for each in places if each is not None), None)
    return default if given is None else _whole(given)


def _whole(quantity: Any) -> int | None:
    """A quantity of Kubernetes, rounded up as KubeRay does; None: not a number of CPUs or GPUs."""
    text = str(quantity)
    try:
        return math.ceil(float(text.removesuffix(MILLI)) / (1000 if text.endswith(MILLI) else 1))
    except (ValueError, OverflowError):
        return None


def _get(node: Any, *path: str | int) -> Any:
    """What stands there, or None: the manifest may be anything that YAML can say."""
    for step in path:
        if isinstance(step, int):
            node = node[step] if isinstance(node, list) and step < len(node) else None
        else:
            node = node.get(step) if isinstance(node, dict) else None
    return node
