"""A `deploy/*.yaml` file, checked strictly: what Ray Serve would ignore or contradict is found here.

Ray accepts misspelt keys without a word (`max_ongoing_request`, `num_gpu`, `min_replica`), and its
coupled knobs contradict each other by default. Each finding names the key and says the fix.
"""

import difflib
import math
import pkgutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ValidationError
from ray.runtime_env import RuntimeEnv
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import HTTPOptionsSchema, ServeDeploySchema, gRPCOptionsSchema

from serve_app import architectures, tls
from serve_app.config import (
    MAX_BATCH_OVER_TARGET,
    Args,
    ConfigError,
    Scaling,
    UserConfig,
    max_ongoing_requests,
    max_queued_requests,
)
from serve_app.grpc import ADD_SERVICERS

IMPORT_PATH = "serve_app.app:build_app"
POLICY = "serve_app.autoscaling:BatchingAware"
EXPORTER = "serve_app.otlp:span_processors"
DEPLOYMENT = "Classifier"
# Ray's own defaults (ray.serve: schema.py, _private/constants.py), for the keys a file leaves out.
RAY_AUTO = {"max_replicas": 100}
RAY_GRACEFUL_SHUTDOWN_TIMEOUT_S = 20
SLOWEST_METRICS_S = 2
"""A new replica within ten seconds needs a load that is no older."""
LONGEST_LOOK_BACK_S = 5
RAY_SMALLEST_SHARE = 1e-4


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (`error`) or worth knowing (`warning`) at `key`."""

    level: Literal["error", "warning"]
    key: str
    message: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Resources:
    """What the file will run on; None: not known, so nothing is checked against it."""

    gpus: int | None = None
    cpus: int | None = None


def read(path: Path) -> dict[str, Any]:
    """The file as a mapping. Raises ConfigError if it cannot be read, or is no one YAML mapping."""
    documents = read_documents(path)
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise ConfigError(f"{path}: not a Ray Serve config: it must be a mapping with `applications`")
    return documents[0]


def read_documents(path: Path) -> list[Any]:
    """Every YAML document of the file that is not empty. Raises ConfigError if it cannot be read."""
    try:
        return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document is not None]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None


def check(content: dict[str, Any], resources: Resources = Resources()) -> list[Finding]:
    """Every finding, in the file's order; an empty list means that the file will do what it says."""
    findings = list(_unknown_keys(ServeDeploySchema, content, ""))
    for name, ours in (("policy_function", POLICY), ("exporter_import_path", EXPORTER)):
        for key, path in _values_of(name, content, ""):
            findings += _check_function(path, key, ours)
    if not any(finding.key.endswith("policy_function") for finding in findings):  # which Ray's schema imports
        findings += _type_errors(ServeDeploySchema, content, "", but=findings)
    if any(finding.level == "error" for finding in findings):
        return findings
    findings += _check_grpc(content)
    findings += _check_tls(content.get("http_options", {}))
    for i, application in enumerate(content.get("applications", [])):
        if application["import_path"] == IMPORT_PATH:
            findings += _check_application(application, f"applications[{i}]", content, resources)
    if not any(finding.level == "error" for finding in findings):
        findings += _check_together(content, resources)
    return findings


# --- keys and types ------------------------------------------------------------------------------


def _unknown_keys(model: type[BaseModel], value: Any, at: str) -> Iterator[Finding]:
    if not isinstance(value, dict):
        return
    known = {name for key, field in model.model_fields.items() for name in (key, field.alias) if name}
    for key, inner in value.items():
        where = f"{at}.{key}" if at else str(key)
        if key not in known:
            yield Finding("error", where, _did_you_mean(key, known))
        elif key == "runtime_env":
            yield from _unknown_runtime_env_keys(inner, where)
        elif key in model.model_fields:
            yield from _unknown_keys_within(model.model_fields[key].annotation, inner, where)


def _unknown_keys_within(annotation: Any, value: Any, at: str) -> Iterator[Finding]:
    for nested in _models_in(annotation):
        if isinstance(value, list):
            for i, item in enumerate(value):
                yield from _unknown_keys(nested, item, f"{at}[{i}]")
        else:
            yield from _unknown_keys(nested, value, at)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The pydantic models named anywhere in a type such as `Optional[Union[Dict, Model]]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _unknown_runtime_env_keys(value: Any, at: str) -> Iterator[Finding]:
    for key in value if isinstance(value, dict) else ():
        if key not in RuntimeEnv.known_fields:
            yield Finding("error", f"{at}.{key}", _did_you_mean(key, RuntimeEnv.known_fields))


def _did_you_mean(key: object, known: set[str]) -> str:
    near = difflib.get_close_matches(str(key), sorted(known), n=1, cutoff=0.6)
    hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(sorted(known))}"
    return f"unknown key `{key}`, which would be ignored or refused; {hint}"


def _type_errors(model: type[BaseModel], value: Any, at: str, but: list[Finding] = []) -> list[Finding]:  # noqa: B006
    """What pydantic finds in `value`, except at keys that are already among the findings `but`."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        found = [
            Finding(
                "error",
                _join(at, _key_in(value, e["loc"])) or "applications",
                e["msg"].removeprefix("Value error, "),
            )
            for e in error.errors()
        ]
        return [finding for finding in found if finding.key not in {f.key for f in but}]
    except (TypeError, AttributeError) as error:  # some of Ray's own validators trip over a wrong type
        return [Finding("error", at or "applications", str(error))]
    return []


def _key_in(value: Any, location: tuple[int | str, ...]) -> str:
    """The part of pydantic's location that stands in the file: it also names the members of a union."""
    steps: list[int | str] = []
    for step in location:
        inside = step in value if isinstance(value, dict) else isinstance(value, list) and isinstance(step, int)
        if inside:
            value = value[step]
        elif not isinstance(value, dict) or step != location[-1]:
            break
        steps.append(step)
    return _as_path(tuple(steps))


def _as_path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _join(at: str, key: str) -> str:
    return ".".join(part for part in (at, key) if part)


# --- what is named by its path --------------------------------------------------------------------


def _values_of(name: str, value: Any, at: str) -> Iterator[tuple[str, Any]]:
    """Where a key of this name stands, however deep, and what it holds."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, below in inner:
        where = f"{at}[{step}]" if isinstance(value, list) else _join(at, str(step))
        if step == name:
            yield where, below
        yield from _values_of(name, below, where)


def _check_function(path: Any, key: str, ours: str) -> Iterator[Finding]:
    try:
        found = pkgutil.resolve_name(path)
    except Exception as error:
        yield Finding("error", key, f"`{path}` cannot be imported ({error}); ours is {ours}")
        return
    if not callable(found):
        yield Finding("error", key, f"`{path}` is no function; ours is {ours}")


# --- gRPC -----------------------------------------------------------------------------------------


def _check_grpc(content: dict[str, Any]) -> Iterator[Finding]:
    """Ray starts no gRPC server where no functions are named, and none that works where one cannot be imported."""
    given = content.get("grpc_options", {})
    functions = given.get("grpc_servicer_functions", [])
    for i, path in enumerate(functions):
        yield from _check_function(path, f"grpc_options.grpc_servicer_functions[{i}]", ours=ADD_SERVICERS)
    if not functions:
        return
    options = gRPCOptionsSchema.model_validate(given)
    http = HTTPOptionsSchema.model_validate(content.get("http_options", {}))
    if "port" not in given:
        yield Finding("error", "grpc_options.port", "write it down: 9000, say")
    elif not 1 <= options.port <= 65535:
        yield Finding("error", "grpc_options.port", f"{options.port} is no port; set it to 9000, say")
    elif options.port == http.port:
        yield Finding("error", "grpc_options.port", f"HTTP has port {http.port}; set another")
    if options.request_timeout_s != http.request_timeout_s is not None:
        yield Finding(
            "error",
            "grpc_options.request_timeout_s",
            f"a replica counts with one timeout, for HTTP and gRPC; set it to {http.request_timeout_s:g}",
        )


# --- TLS ------------------------------------------------------------------------------------------


def _check_tls(http_options: dict[str, Any]) -> Iterator[Finding]:
    """Ray looks at none of it before its HTTP server starts, and at half of it never."""
    at = "http_options"
    given = {key: http_options[key] for key in tls.OPTIONS if http_options.get(key) is not None}
    if tls.CLIENTS_CA in given:
        yield Finding(
            "error",
            f"{at}.{tls.CLIENTS_CA}",
            "Ray still asks no client for a certificate, and everybody may call; drop it, and see args.tokens_file",
        )
    relative = [key for key in (tls.CERTIFICATE, tls.KEY) if key in given and not Path(given[key]).is_absolute()]
    for key in relative:
        yield Finding(
            "error", f"{at}.{key}", f"Ray's processes have folders of their own: {Path(given[key]).resolve()}"
        )
    if tls.KEY in given and tls.CERTIFICATE not in given:
        yield Finding("error", f"{at}.{tls.CERTIFICATE}", f"{tls.KEY} without it: HTTP would be in plain text")
    elif given and tls.CERTIFICATE not in given:
        yield Finding("error", f"{at}.{next(iter(given))}", f"no effect without {tls.CERTIFICATE} and {tls.KEY}")
    elif given and not relative:
        yield from _check_certificate(Path(given[tls.CERTIFICATE]), Path(given[tls.KEY]), given.get(tls.PASSWORD))


def _check_certificate(certificate: Path, key: Path, password: str | None) -> Iterator[Finding]:
    """Where their folders are on this machine: the file may be meant for others."""
    if not (certificate.parent.is_dir() and key.parent.is_dir()):
        return
    try:
        tls.names(certificate, key, password)
    except ConfigError as error:
        yield Finding("error", f"http_options.{tls.CERTIFICATE}", str(error))


# --- knobs that must agree -----------------------------------------------------------------------


def _check_application(
    application: dict[str, Any], at: str, content: dict[str, Any], resources: Resources
) -> Iterator[Finding]:
    raw_args = application.get("args", {})
    findings = [*_unknown_keys(Args, raw_args, f"{at}.args")]
    findings += _type_errors(Args, raw_args, f"{at}.args", but=findings)
    yield from findings or _check_arch(raw_args.get("arch"), f"{at}.args.arch")
    for i, deployment in enumerate(application.get("deployments") or [{"name": DEPLOYMENT}]):
        where = f"{at}.deployments[{i}]"
        if deployment["name"] != DEPLOYMENT:
            yield Finding("error", f"{where}.name", f"there is one deployment, `{DEPLOYMENT}`")
            continue
        raw_user_config = deployment.get("user_config") or {}
        wrong = [*_unknown_keys(UserConfig, raw_user_config, f"{where}.user_config")]
        wrong += _type_errors(UserConfig, raw_user_config, f"{where}.user_config", but=wrong)
        yield from wrong
        if not findings and not wrong:
            knobs = _Knobs(Args.model_validate(raw_args), UserConfig.model_validate(raw_user_config), deployment)
            yield from _check_queue(knobs, where)
            yield from _check_times(knobs, where, content.get("http_options", {}))
            invalid = _type_errors(AutoscalingConfig, knobs.autoscaling or {}, f"{where}.autoscaling_config")
            yield from invalid
            if not invalid:
                yield from _check_autoscaling(knobs, where)
                yield from _check_resources(knobs, where, at, resources)


def _check_arch(arch: str | None, key: str) -> Iterator[Finding]:
    try:
        if arch is not None:
            architectures.check(arch)
    except ConfigError as error:
        yield Finding("error", key, str(error).removeprefix("arch: "))


@dataclass(frozen=True)
class _Knobs:
    args: Args
    user_config: UserConfig
    deployment: dict[str, Any]

    @property
    def max_batch_size(self) -> int:
        return self.user_config.max_batch_size

    @property
    def max_ongoing_requests(self) -> int:
        default = max_ongoing_requests(UserConfig().max_batch_size)
        return int(self.deployment.get("max_ongoing_requests", default))

    @property
    def autoscaling(self) -> dict[str, Any] | None:
        """The autoscaling settings, over Ray's defaults for `num_replicas: auto`; None: a fixed number."""
        explicit = self.deployment.get("autoscaling_config") or {}
        auto = RAY_AUTO if self.deployment.get("num_replicas") == "auto" else {}
        return {**auto, **explicit} or None

    @property
    def replicas_key(self) -> str:
        return "num_replicas" if self.autoscaling is None else "max_replicas"

    @property
    def max_replicas(self) -> int:
        if self.autoscaling is None:
            return int(self.deployment.get("num_replicas") or 1)
        return int(self.autoscaling.get("max_replicas", 1))

    @property
    def surges(self) -> bool:
        """Whether an update starts a replica before it stops one."""
        return int(self.deployment.get("max_surge_percent", 0)) > 0

    def actor_option(self, name: str, default: float) -> float:
        value = self.deployment.get("ray_actor_options", {}).get(name)
        return default if value is None else float(value)


def _check_queue(knobs: _Knobs, at: str) -> Iterator[Finding]:
    size, ongoing = knobs.max_batch_size, knobs.max_ongoing_requests
    if ongoing < size:
        yield Finding(
            "error",
            f"{at}.max_ongoing_requests",
            f"max_batch_size ({size}) is above max_ongoing_requests ({ongoing}), so no batch could ever be "
            f"full; set max_ongoing_requests to {max_ongoing_requests(size)}",
        )
    elif ongoing < (needed := knobs.user_config.queue_size + 2 * size):
        yield Finding(
            "warning",
            f"{at}.max_ongoing_requests",
            f"Ray holds back what is above {ongoing} requests, unseen by admission, whatever their deadlines; for a "
            f"queue of {knobs.user_config.queue_size} and two batches set max_ongoing_requests to at least {needed}",
        )
    if (images := knobs.args.max_images) > knobs.user_config.queue_size:
        yield Finding(
            "warning",
            f"{at}.user_config.max_queue_size",
            f"a request of max_images ({images}) never fits into a queue of {knobs.user_config.queue_size}; set "
            f"max_queue_size to {images} at least, or args.max_images lower",
        )
    if knobs.deployment.get("max_queued_requests", 0) == -1:
        yield Finding(
            "error",
            f"{at}.max_queued_requests",
            f"-1 queues without bound until memory ends; set it to {max_queued_requests(size)}, say",
        )
    if knobs.user_config.top_k > knobs.args.max_top_k:
        yield Finding(
            "error",
            f"{at}.user_config.top_k",
            f"top_k ({knobs.user_config.top_k}) is above args.max_top_k ({knobs.args.max_top_k})",
        )


def _check_autoscaling(knobs: _Knobs, at: str) -> Iterator[Finding]:
    """Ray's stock policy, ours, or another one, of which we know nothing."""
    if knobs.autoscaling is None:
        return
    policy = AutoscalingConfig.model_validate(knobs.autoscaling).policy
    if policy.is_default_policy_function():
        yield from _check_stock_policy(knobs, at)
    elif str(policy.policy_function).replace(":", ".") == POLICY.replace(":", "."):
        yield from _check_our_policy(knobs.autoscaling, policy.policy_kwargs, f"{at}.autoscaling_config")


def _check_our_policy(autoscaling: dict[str, Any], kwargs: dict[str, Any], at: str) -> Iterator[Finding]:
    findings = [*_unknown_keys(Scaling, kwargs, f"{at}.policy.policy_kwargs")]
    yield from findings
    yield from _type_errors(Scaling, kwargs, f"{at}.policy.policy_kwargs", but=findings)
    config = AutoscalingConfig.model_validate(autoscaling)
    if "target_ongoing_requests" in autoscaling:
        yield Finding("warning", f"{at}.target_ongoing_requests", "the policy does not look at it; drop it")
    if config.metrics_interval_s > SLOWEST_METRICS_S:
        yield Finding(
            "warning",
            f"{at}.metrics_interval_s",
            f"replicas tell of their load only every {config.metrics_interval_s:g} s; set it to 1, and "
            "look_back_period_s to 3, for the first new replica to come at once",
        )
    if config.look_back_period_s > LONGEST_LOOK_BACK_S:
        yield Finding(
            "warning",
            f"{at}.look_back_period_s",
            f"loads are averaged over {config.look_back_period_s:g} s, and each step up waits for that; set it to 3",
        )
    for key, seconds in (("upscale_delay_s", config.upscale_delay_s), ("downscale_delay_s", config.downscale_delay_s)):
        if seconds:
            yield Finding(
                "warning",
                f"{at}.{key}",
                f"the policy waits for itself (policy_kwargs), and then Ray for {seconds:g} s more; set it to 0",
            )


def _check_stock_policy(knobs: _Knobs, at: str) -> Iterator[Finding]:
    assert knobs.autoscaling is not None  # noqa: S101 - asked by the caller
    key = f"{at}.autoscaling_config.target_ongoing_requests"
    given = "target_ongoing_requests" in knobs.autoscaling
    target = AutoscalingConfig.model_validate(knobs.autoscaling).get_target_ongoing_requests()
    if target is None:  # written as null
        yield Finding("error", key, f"set it to {math.ceil(1.5 * knobs.max_batch_size)}: without it nothing scales")
        return
    # A target of less than a batch may be meant, for a bound on latency; one so low that hardly any batch
    # is formed, or Ray's own of 2, has not met the batch size.
    if target < knobs.max_batch_size and (not given or target * MAX_BATCH_OVER_TARGET <= knobs.max_batch_size):
        yield Finding(
            "error",
            key,
            f"a target of {target:g} makes one full batch of {knobs.max_batch_size} look like an overload "
            f"{knobs.max_batch_size / target:.0f} times the target; set it to {math.ceil(1.5 * knobs.max_batch_size)}",
        )
    most = min(knobs.max_ongoing_requests, knobs.user_config.queue_size + knobs.max_batch_size)
    if target > most:
        yield Finding(
            "error",
            key,
            f"a replica never has more than {most} requests inside (max_ongoing_requests, or its queue and a batch), "
            f"so it never reaches a target of {target:g}, and nothing scales up; lower the target or raise those",
        )


def _check_times(knobs: _Knobs, at: str, http_options: dict[str, Any]) -> Iterator[Finding]:
    request_timeout_s = HTTPOptionsSchema.model_validate(http_options).request_timeout_s
    if request_timeout_s is None:
        yield Finding(
            "error",
            "http_options.request_timeout_s",
            "without it a request may hang for ever; set it to 30, say",
        )
        return
    wait_s = knobs.user_config.batch_wait_timeout_s
    if wait_s >= request_timeout_s:
        yield Finding(
            "error",
            f"{at}.user_config.batch_wait_timeout_s",
            f"a wait of {wait_s:g} s is not below request_timeout_s ({request_timeout_s:g}): a lone request "
            "would time out waiting for company",
        )
    shutdown_s = float(knobs.deployment.get("graceful_shutdown_timeout_s", RAY_GRACEFUL_SHUTDOWN_TIMEOUT_S))
    if shutdown_s < request_timeout_s:
        yield Finding(
            "error",
            f"{at}.graceful_shutdown_timeout_s",
            f"{shutdown_s:g} s is below request_timeout_s ({request_timeout_s:g}): an update would kill requests "
            f"that are still in time; set it to {request_timeout_s + 5:g}",
        )


def _check_resources(knobs: _Knobs, at: str, application: str, resources: Resources) -> Iterator[Finding]:
    num_gpus, num_cpus = knobs.actor_option("num_gpus", 0), knobs.actor_option("num_cpus", 1)
    gpu_key = f"{at}.ray_actor_options.num_gpus"
    if num_gpus > 1:
        yield Finding("error", gpu_key, f"a replica drives one GPU at most; {num_gpus:g} would leave the others idle")
        return
    on_cuda = knobs.args.device == "cuda"
    if on_cuda and num_gpus == 0:
        yield Finding("error", gpu_key, "device is cuda, but Ray reserves no GPU; set num_gpus, e.g. to 1 or 0.25")
    if knobs.args.device in ("cpu", "stub") and num_gpus > 0:
        yield Finding("error", gpu_key, f"device is {knobs.args.device}, so the reserved GPU would idle; drop num_gpus")
    if knobs.args.decode == "gpu" and (knobs.args.device in ("cpu", "stub") or (num_gpus == 0 and not on_cuda)):
        reason = f"device is {knobs.args.device}" if knobs.args.device != "auto" else "Ray reserves no GPU (num_gpus)"
        yield Finding("error", f"{application}.args.decode", f"a GPU is to decode, but {reason}; set decode: cpu")
    if knobs.args.compile and not on_cuda and num_gpus == 0:
        yield Finding("warning", f"{application}.args.compile", "only CUDA devices are compiled for: it has no effect")
    if knobs.args.num_threads == "all" and knobs.max_replicas > 1:
        yield Finding(
            "error",
            f"{application}.args.num_threads",
            f"`all` for each of {knobs.max_replicas} replicas oversubscribes the cores; leave it out, and set num_cpus",
        )
    yield from _check_room(knobs, at, num_gpus, num_cpus, resources)


def _check_room(knobs: _Knobs, at: str, num_gpus: float, num_cpus: float, resources: Resources) -> Iterator[Finding]:
    """Whether the replicas fit, and in an update one more, where old ones go when new ones have come."""
    per_gpu = math.floor(1 / max(num_gpus, RAY_SMALLEST_SHARE) + 1e-9)
    replicas = knobs.max_replicas
    most = replicas + (1 if knobs.surges else 0)
    gpus = [math.ceil(count / per_gpu) if num_gpus else 0 for count in (replicas, most)]
    cpus = [count * num_cpus for count in (replicas, most)]
    for key, share, unit, there, (needed, needed_in_update) in (
        ("num_gpus", num_gpus, "GPUs", resources.gpus, gpus),
        ("num_cpus", num_cpus, "CPUs", resources.cpus, cpus),
    ):
        if there is None:
            continue
        if needed > there:
            yield Finding(
                "error",
                f"{at}.ray_actor_options.{key}",
                f"{replicas} replicas x {share:g} need {needed:g} {unit} and there are {there}: "
                f"some replicas would never start; lower {knobs.replicas_key} or {key}",
            )
        elif needed_in_update > there:
            yield Finding(
                "warning",
                f"{at}.max_surge_percent",
                f"an update starts a new replica before an old one stops, and {most} x {share:g} need "
                f"{needed_in_update:g} {unit}, of which there are {there}: it would wait for ever; set it to 0 (an old "
                f"one then stops first), or lower {key}",
            )


def _check_together(content: dict[str, Any], resources: Resources) -> Iterator[Finding]:
    """Applications share a cluster: each may fit into it, and all of them not."""
    ours = [_knobs_of(each) for each in content.get("applications", []) if each["import_path"] == IMPORT_PATH]
    if len(ours) < 2:
        return
    for option, default, there in (("num_gpus", 0, resources.gpus), ("num_cpus", 1, resources.cpus)):
        needed = sum(knobs.max_replicas * knobs.actor_option(option, default) for knobs in ours)
        surge = max((knobs.actor_option(option, default) for knobs in ours if knobs.surges), default=0.0)
        if there is not None and needed <= there + RAY_SMALLEST_SHARE < needed + surge:
            yield Finding(
                "warning",
                "applications",
                f"an update starts a new replica before an old one stops, and with all the others that needs "
                f"{needed + surge:g} of {option}, of which there are {there}: it would wait for ever; set "
                f"max_surge_percent to 0 (an old one then stops first), or lower {option}",
            )
        if there is not None and needed > there + RAY_SMALLEST_SHARE:
            yield Finding(
                "error",
                "applications",
                f"together their replicas take {needed:g} of {option} and there are {there}: some would never start; "
                f"lower num_replicas or {option}",
            )


def _knobs_of(application: dict[str, Any]) -> _Knobs:
    deployment = (application.get("deployments") or [{}])[0]
    user_config = UserConfig.model_validate(deployment.get("user_config") or {})
    return _Knobs(Args.model_validate(application.get("args", {})), user_config, deployment)
