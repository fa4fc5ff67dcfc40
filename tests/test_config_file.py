import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serve_app import cli
from serve_app.config import Args, ConfigError, UserConfig
from serve_app.config_file import POLICY, Finding, Resources, check, read
from serve_app.grpc import ADD_SERVICERS
from tests.certificates import Authority

DEPLOY = Path(__file__).parents[1] / "deploy"
FILES = sorted(DEPLOY.glob("*.yaml"))
LOCAL = read(DEPLOY / "local.yaml")
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)

APPLICATION = ("applications", 0)
ARGS = (*APPLICATION, "args")
DEPLOYMENT = (*APPLICATION, "deployments", 0)
ACTOR = (*DEPLOYMENT, "ray_actor_options")
USER_CONFIG = (*DEPLOYMENT, "user_config")
AT = "applications[0].deployments[0]"

Path_ = tuple[str | int, ...]


class Absent:
    """Stands for a key that is taken away."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


def changed(content: Any, *edits: tuple[Path_, Any]) -> Any:
    """A copy of `content` with the value at each path replaced, added, or taken away."""
    content = copy.deepcopy(content)
    for path, value in edits:
        node = content
        for step in path[:-1]:
            node = node[step]
        if value is ABSENT:
            del node[path[-1]]
        else:
            node[path[-1]] = value
    return content


def errors(findings: list[Finding]) -> dict[str, str]:
    """What is wrong at each key; a value may be wrong in several ways."""
    wrong: dict[str, str] = {}
    for finding in findings:
        if finding.level == "error":
            wrong[finding.key] = "; ".join(filter(None, (wrong.get(finding.key), finding.message)))
    return wrong


@dataclass(frozen=True)
class Broken:
    """deploy/local.yaml with `edits`, the key that must be named, and words of the fix."""

    name: str
    edits: tuple[tuple[Path_, Any], ...]
    key: str
    fix: str
    resources: Resources = field(default_factory=Resources)


def autoscaling(**settings: Any) -> tuple[tuple[Path_, Any], ...]:
    """One file may not have both a fixed number of replicas and autoscaling."""
    return (
        ((*DEPLOYMENT, "num_replicas"), ABSENT),
        ((*ARGS, "num_threads"), ABSENT),
        ((*DEPLOYMENT, "autoscaling_config"), settings),
    )


def batching_aware(**settings: Any) -> tuple[tuple[Path_, Any], ...]:
    """Autoscaling by our policy, as in deploy/autoscale.yaml but for `settings`."""
    ours = read(DEPLOY / "autoscale.yaml")["applications"][0]["deployments"][0]["autoscaling_config"]
    return autoscaling(**{**ours, **settings})


def policy(function: str = POLICY, **kwargs: Any) -> dict[str, Any]:
    return {"policy_function": function, "policy_kwargs": kwargs}


def grpc_options(**settings: Any) -> tuple[tuple[Path_, Any], ...]:
    """Those that work, but for `settings`."""
    working = {"port": 9000, "request_timeout_s": 30, "grpc_servicer_functions": [ADD_SERVICERS]}
    return ((("grpc_options",), {**working, **settings}),)


BROKEN = [
    Broken(
        "max_ongoing_request",
        (((*DEPLOYMENT, "max_ongoing_request"), 64),),
        f"{AT}.max_ongoing_request",
        "did you mean `max_ongoing_requests`?",
    ),
    Broken("num_gpu", (((*ACTOR, "num_gpu"), 1),), f"{AT}.ray_actor_options.num_gpu", "did you mean `num_gpus`?"),
    Broken(
        "min_replica",
        autoscaling(min_replica=1, target_ongoing_requests=24),
        f"{AT}.autoscaling_config.min_replica",
        "did you mean `min_replicas`?",
    ),
    Broken("application", ((("application",), []),), "application", "did you mean `applications`?"),
    Broken("http_option", ((("http_option",), {}),), "http_option", "did you mean `http_options`?"),
    Broken(
        "sampling_rate",
        ((("tracing_config",), {"enabled": True, "sampling_rate": 1.0}),),
        "tracing_config.sampling_rate",
        "did you mean `sampling_ratio`?",
    ),
    Broken(
        "request_timeout",
        ((("http_options", "request_timeout"), 30),),
        "http_options.request_timeout",
        "did you mean `request_timeout_s`?",
    ),
    Broken("no such arch", (((*ARGS, "arch"), "resnet19"),), "applications[0].args.arch", "did you mean resnet18"),
    Broken("args typo", (((*ARGS, "weight"), "DEFAULT"),), "applications[0].args.weight", "did you mean `weights`?"),
    Broken(
        "nested args typo",
        (((*ARGS, "stub"), {"bas_ms": 1}),),
        "applications[0].args.stub.bas_ms",
        "did you mean `base_ms`?",
    ),
    Broken(
        "user_config typo",
        (((*USER_CONFIG, "max_batchsize"), 8),),
        f"{AT}.user_config.max_batchsize",
        "did you mean `max_batch_size`?",
    ),
    Broken(
        "runtime_env typo",
        (((*APPLICATION, "runtime_env"), {"env_var": {}}),),
        "applications[0].runtime_env.env_var",
        "did you mean `env_vars`?",
    ),
    Broken(
        "runtime_env typo of a replica",
        (((*ACTOR, "runtime_env"), {"env_var": {}}),),
        f"{AT}.ray_actor_options.runtime_env.env_var",
        "did you mean `env_vars`?",
    ),
    Broken("a key like nothing known", ((("zzz",), 1),), "zzz", "known here: applications"),
    Broken(
        "max_batch_size above max_ongoing_requests",
        (((*USER_CONFIG, "max_batch_size"), 513),),
        f"{AT}.max_ongoing_requests",
        "set max_ongoing_requests to 16416",
    ),
    Broken(
        "max_batch_size above the default of max_ongoing_requests",
        (((*DEPLOYMENT, "max_ongoing_requests"), ABSENT), ((*USER_CONFIG, "max_batch_size"), 513)),
        f"{AT}.max_ongoing_requests",
        "set max_ongoing_requests to 16416",
    ),
    Broken(
        "max_queued_requests without bound",
        (((*DEPLOYMENT, "max_queued_requests"), -1),),
        f"{AT}.max_queued_requests",
        "set it to 256",
    ),
    Broken("top_k above max_top_k", (((*ARGS, "max_top_k"), 4),), f"{AT}.user_config.top_k", "args.max_top_k (4)"),
    Broken(
        "max_request_bytes below max_image_bytes",
        (((*ARGS, "max_request_bytes"), 1),),
        "applications[0].args",
        "raise max_request_bytes or lower max_image_bytes",
    ),
    Broken(
        "autoscaling with Ray's target of 2",
        autoscaling(target_ongoing_requests=2),
        f"{AT}.autoscaling_config.target_ongoing_requests",
        "8 times the target; set it to 24",
    ),
    Broken(
        "autoscaling without a target",
        autoscaling(max_replicas=4),
        f"{AT}.autoscaling_config.target_ongoing_requests",
        "set it to 24",
    ),
    Broken(
        "autoscaling with a target above max_ongoing_requests",
        (*autoscaling(target_ongoing_requests=65), ((*DEPLOYMENT, "max_ongoing_requests"), 64)),
        f"{AT}.autoscaling_config.target_ongoing_requests",
        "a replica never has more than 64 requests inside (max_ongoing_requests",
    ),
    Broken(
        "autoscaling with a target above what the queue and a batch hold",
        autoscaling(target_ongoing_requests=273),
        f"{AT}.autoscaling_config.target_ongoing_requests",
        "a replica never has more than 272 requests inside (max_ongoing_requests",
    ),
    Broken(
        "our policy with a key that is none",
        batching_aware(policy=policy(calm=60)),
        f"{AT}.autoscaling_config.policy.policy_kwargs.calm",
        "did you mean `calm_s`?",
    ),
    Broken(
        "our policy with a demand that no device bears",
        batching_aware(policy=policy(target_demand=1.5)),
        f"{AT}.autoscaling_config.policy.policy_kwargs.target_demand",
        "less than or equal to 1",
    ),
    Broken(
        "our policy, misspelt",
        batching_aware(policy=policy("serve_app.autoscaling:BatchAware")),
        f"{AT}.autoscaling_config.policy.policy_function",
        "cannot be imported",
    ),
    Broken(
        "an exporter that is not there",
        ((("tracing_config",), {"enabled": True, "exporter_import_path": "serve_app.otlp:span_processor"}),),
        "tracing_config.exporter_import_path",
        "ours is serve_app.otlp:span_processors",
    ),
    Broken(
        "a policy of a module that is not there",
        batching_aware(policy=policy("no.such.module:policy")),
        f"{AT}.autoscaling_config.policy.policy_function",
        "cannot be imported",
    ),
    Broken(
        "autoscaling with more at least than at most",
        autoscaling(min_replicas=3, max_replicas=2, target_ongoing_requests=24),
        f"{AT}.autoscaling_config",
        "max_replicas",
    ),
    Broken(
        "num_replicas: auto",
        (((*DEPLOYMENT, "num_replicas"), "auto"),),
        f"{AT}.autoscaling_config.target_ongoing_requests",
        "set it to 24",
    ),
    Broken(
        "num_replicas: auto with every core to each",
        (((*DEPLOYMENT, "num_replicas"), "auto"),),
        "applications[0].args.num_threads",
        "leave it out, and set num_cpus",
    ),
    Broken(
        # Ray lays the file's autoscaling_config over its own defaults for auto, where max_replicas is 100.
        "num_replicas: auto with a target keeps Ray's 100 replicas",
        (
            ((*DEPLOYMENT, "num_replicas"), "auto"),
            ((*DEPLOYMENT, "autoscaling_config"), {"target_ongoing_requests": 24}),
        ),
        "applications[0].args.num_threads",
        "`all` for each of 100 replicas",
    ),
    Broken(
        "no request_timeout_s",
        ((("http_options", "request_timeout_s"), ABSENT),),
        "http_options.request_timeout_s",
        "set it to 30",
    ),
    Broken("no http_options", ((("http_options",), ABSENT),), "http_options.request_timeout_s", "set it to 30"),
    Broken(
        "a wait as long as the timeout",
        (((*USER_CONFIG, "batch_wait_timeout_s"), 30),),
        f"{AT}.user_config.batch_wait_timeout_s",
        "is not below request_timeout_s (30)",
    ),
    Broken(
        "a shutdown shorter than the timeout",
        (((*DEPLOYMENT, "graceful_shutdown_timeout_s"), 29),),
        f"{AT}.graceful_shutdown_timeout_s",
        "set it to 35",
    ),
    Broken(
        "Ray's default shutdown",
        (((*DEPLOYMENT, "graceful_shutdown_timeout_s"), ABSENT),),
        f"{AT}.graceful_shutdown_timeout_s",
        "set it to 35",
    ),
    Broken(
        "5 replicas where 4 fit the GPU",
        (
            ((*ARGS, "num_threads"), ABSENT),
            ((*DEPLOYMENT, "num_replicas"), 5),
            ((*ACTOR, "num_gpus"), 0.25),
        ),
        f"{AT}.ray_actor_options.num_gpus",
        "5 replicas x 0.25 need 2 GPUs and there are 1",
        Resources(gpus=1),
    ),
    Broken(
        "a GPU holds 3 replicas of 0.3",
        (((*ARGS, "num_threads"), ABSENT), ((*DEPLOYMENT, "num_replicas"), 4), ((*ACTOR, "num_gpus"), 0.3)),
        f"{AT}.ray_actor_options.num_gpus",
        "need 2 GPUs and there are 1",
        Resources(gpus=1),
    ),
    Broken(
        "more CPUs than there are",
        (((*ARGS, "num_threads"), ABSENT), ((*DEPLOYMENT, "num_replicas"), 3)),
        f"{AT}.ray_actor_options.num_cpus",
        "lower num_replicas or num_cpus",
        Resources(cpus=2),
    ),
    Broken("two GPUs", (((*ACTOR, "num_gpus"), 2),), f"{AT}.ray_actor_options.num_gpus", "one GPU at most"),
    Broken(
        "device cuda without num_gpus",
        (((*ARGS, "device"), "cuda"),),
        f"{AT}.ray_actor_options.num_gpus",
        "set num_gpus",
    ),
    Broken(
        "device cpu with num_gpus",
        (((*ARGS, "device"), "cpu"), ((*ACTOR, "num_gpus"), 1)),
        f"{AT}.ray_actor_options.num_gpus",
        "drop num_gpus",
    ),
    Broken(
        "decode gpu without one", (((*ARGS, "decode"), "gpu"),), "applications[0].args.decode", "Ray reserves no GPU"
    ),
    Broken(
        "num_threads all with 2 replicas",
        (((*DEPLOYMENT, "num_replicas"), 2),),
        "applications[0].args.num_threads",
        "leave it out, and set num_cpus",
    ),
    Broken(
        "grpc_options typo",
        ((("grpc_options",), {"grpc_servicer_function": []}),),
        "grpc_options.grpc_servicer_function",
        "did you mean `grpc_servicer_functions`?",
    ),
    Broken(
        "a gRPC function of no module",
        grpc_options(grpc_servicer_functions=["serve_app.grpc.servers.add_servicers"]),
        "grpc_options.grpc_servicer_functions[0]",
        "ours is serve_app.grpc.server.add_servicers",
    ),
    Broken(
        "a gRPC function that is not there",
        grpc_options(grpc_servicer_functions=[ADD_SERVICERS, "serve_app.grpc.server.add_servicer"]),
        "grpc_options.grpc_servicer_functions[1]",
        "cannot be imported",
    ),
    Broken(
        "a gRPC function that is none",
        grpc_options(grpc_servicer_functions=["serve_app.grpc.SERVICE"]),
        "grpc_options.grpc_servicer_functions[0]",
        "is no function",
    ),
    Broken(
        "gRPC without a port",
        ((("grpc_options",), {"grpc_servicer_functions": [ADD_SERVICERS], "request_timeout_s": 30}),),
        "grpc_options.port",
        "write it down",
    ),
    Broken("gRPC on port 0", grpc_options(port=0), "grpc_options.port", "0 is no port"),
    Broken("gRPC on HTTP's port", grpc_options(port=8000), "grpc_options.port", "HTTP has port 8000"),
    Broken(
        "gRPC on HTTP's default port",
        ((("http_options", "port"), ABSENT), *grpc_options(port=8000)),
        "grpc_options.port",
        "HTTP has port 8000",
    ),
    Broken(
        "gRPC without a timeout",
        grpc_options(request_timeout_s=None),
        "grpc_options.request_timeout_s",
        "set it to 30",
    ),
    Broken(
        "gRPC with a timeout of its own",
        grpc_options(request_timeout_s=20),
        "grpc_options.request_timeout_s",
        "set it to 30",
    ),
    Broken("port: abc", ((("http_options", "port"), "abc"),), "http_options.port", "valid integer"),
    Broken("num_replicas: -1", (((*DEPLOYMENT, "num_replicas"), -1),), f"{AT}.num_replicas", "greater than 0"),
    Broken("num_threads: 0", (((*ARGS, "num_threads"), 0),), "applications[0].args.num_threads", "greater than"),
    Broken("device: gpu", (((*ARGS, "device"), "gpu"),), "applications[0].args.device", "'cuda'"),
    Broken(
        "max_batch_size: 0",
        (((*USER_CONFIG, "max_batch_size"), 0),),
        f"{AT}.user_config.max_batch_size",
        "greater than or equal to 1",
    ),
    Broken("no applications", ((("applications",), ABSENT),), "applications", "required"),
    Broken("applications: null", ((("applications",), None),), "applications", "valid list"),
    Broken("applications: [null]", ((APPLICATION, None),), "applications[0]", "valid dictionary"),
    Broken("no import_path", (((*APPLICATION, "import_path"), ABSENT),), "applications[0].import_path", "required"),
    Broken("another deployment", (((*DEPLOYMENT, "name"), "Classifer"),), f"{AT}.name", "`Classifier`"),
    Broken("deployments: null", (((*APPLICATION, "deployments"), None),), "applications[0].deployments", "valid list"),
    Broken("args: null", ((ARGS, None),), "applications[0].args", "valid dictionary"),
    Broken(
        "max_replicas: null",
        autoscaling(max_replicas=None, target_ongoing_requests=24),
        f"{AT}.autoscaling_config.max_replicas",
        "valid integer",
    ),
    Broken("ray_actor_options: null", ((ACTOR, None),), f"{AT}.ray_actor_options", "valid dictionary"),
    Broken("user_config: text", ((USER_CONFIG, "fast"),), f"{AT}.user_config", "valid dictionary"),
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_a_broken_file_is_refused_with_the_key_and_the_fix(broken: Broken) -> None:
    found = errors(check(changed(LOCAL, *broken.edits), broken.resources))
    assert broken.key in found
    assert broken.fix in found[broken.key]


@each_file
def test_a_file_of_the_repository_has_no_finding(path: Path) -> None:
    assert check(read(path)) == []


@each_file
def test_every_key_of_a_file_of_the_repository_is_a_setting(path: Path) -> None:
    for application in read(path)["applications"]:
        assert application["args"].keys() <= Args.model_fields.keys()
        for deployment in application["deployments"]:
            assert deployment["user_config"].keys() <= UserConfig.model_fields.keys()


@pytest.mark.parametrize(
    "edits",
    [
        ((USER_CONFIG, None),),
        ((USER_CONFIG, ABSENT),),
        (((*DEPLOYMENT, "autoscaling_config"), None),),
        (((*DEPLOYMENT, "num_replicas"), None),),
        (((*ACTOR, "num_cpus"), None),),
        (((*DEPLOYMENT, "max_ongoing_requests"), ABSENT),),
        (((*APPLICATION, "runtime_env"), {"env_vars": {"A": "1"}}),),
        ((("tracing_config",), {"enabled": True, "sampling_ratio": 1.0}),),
        autoscaling(min_replicas=1, max_replicas=4, target_ongoing_requests=24),
        grpc_options(),
        grpc_options(port="9000", request_timeout_s="30"),
        ((("grpc_options",), {"port": 8000}),),  # without functions Ray starts no gRPC server
        batching_aware(policy=policy(calm_s=300, target_demand=0.5)),
        batching_aware(policy=policy("fnmatch:fnmatch")),  # another one, of which we know nothing
        autoscaling(target_ongoing_requests=3),  # of a batch of 16: for a bound on latency
        # Ray takes numbers in quotes, so they must not trip the comparisons.
        ((("http_options", "request_timeout_s"), "30"),),
        (((*DEPLOYMENT, "graceful_shutdown_timeout_s"), "35"),),
        autoscaling(max_replicas="4", target_ongoing_requests="24"),
    ],
    ids=repr,
)
def test_what_ray_takes_and_works_is_without_findings(edits: tuple[tuple[Path_, Any], ...]) -> None:
    assert check(changed(LOCAL, *edits)) == []


def test_four_quarters_share_one_gpu() -> None:
    assert check(read(DEPLOY / "gpu.yaml"), Resources(gpus=1)) == []


@pytest.mark.parametrize(
    ("replicas", "num_gpus", "surge", "fits"),
    [(4, 0.25, 25, False), (4, 0.25, 0, True), (4, 0.2, 25, True), (4, 0.2, 100, True), (1, 0.6, 100, False)],
)
def test_an_update_that_would_wait_for_ever_is_a_warning(
    replicas: int, num_gpus: float, surge: int, fits: bool
) -> None:
    content = changed(
        read(DEPLOY / "gpu.yaml"),
        ((*DEPLOYMENT, "num_replicas"), replicas),
        ((*DEPLOYMENT, "max_surge_percent"), surge),
        ((*ACTOR, "num_gpus"), num_gpus),
    )
    findings = check(content, Resources(gpus=1))
    assert [(f.level, f.key) for f in findings] == ([] if fits else [("warning", f"{AT}.max_surge_percent")])
    assert check(content) == []  # of a cluster that is not known nothing is said


def test_three_thirds_share_one_gpu_however_they_are_rounded() -> None:
    thirds = changed(
        read(DEPLOY / "gpu.yaml"), ((*DEPLOYMENT, "num_replicas"), 3), ((*ACTOR, "num_gpus"), 0.333333333333)
    )
    assert check(thirds, Resources(gpus=1)) == []


@pytest.mark.parametrize(
    ("setting", "fix"),
    [
        ({"metrics_interval_s": 2.5}, ("metrics_interval_s", "only every 2.5 s; set it to 1")),
        ({"look_back_period_s": 30}, ("look_back_period_s", "averaged over 30 s")),
        ({"target_ongoing_requests": 24}, ("target_ongoing_requests", "does not look at it")),
        ({"upscale_delay_s": 30}, ("upscale_delay_s", "for 30 s more; set it to 0")),
        ({"downscale_delay_s": 600}, ("downscale_delay_s", "for 600 s more; set it to 0")),
    ],
)
def test_what_only_makes_our_policy_slow_is_a_warning(setting: dict[str, float], fix: tuple[str, str]) -> None:
    [finding] = check(changed(LOCAL, *batching_aware(**setting)))
    assert (finding.level, finding.key) == ("warning", f"{AT}.autoscaling_config.{fix[0]}")
    assert fix[1] in finding.message


def test_requests_that_ray_holds_back_from_admission_are_only_a_warning() -> None:
    (finding,) = check(changed(LOCAL, ((*USER_CONFIG, "max_batch_size"), 33)))
    assert (finding.level, finding.key) == ("warning", f"{AT}.max_ongoing_requests")
    assert "for a queue of 528 and two batches set max_ongoing_requests to at least 594" in finding.message


def test_a_request_that_no_queue_could_hold_is_a_warning() -> None:
    (finding,) = check(changed(LOCAL, ((*USER_CONFIG, "max_queue_size"), 31)))
    assert (finding.level, finding.key) == ("warning", f"{AT}.user_config.max_queue_size")
    assert "set max_queue_size to 32" in finding.message


def test_an_application_of_someone_else_is_left_alone() -> None:
    other = {"name": "other", "route_prefix": "/other", "import_path": "other.app:app", "args": {"weight": 1}}
    assert check({**LOCAL, "applications": [*LOCAL["applications"], other]}) == []


@pytest.mark.parametrize("deployments", [ABSENT, []], ids=repr)
def test_a_deployment_left_to_its_defaults_is_checked_like_one_spelt_out(deployments: object) -> None:
    spelt_out = changed(LOCAL, ((*APPLICATION, "deployments"), [{"name": "Classifier"}]))
    left_out = changed(LOCAL, ((*APPLICATION, "deployments"), deployments))
    assert list(errors(check(left_out)).values()) == list(errors(check(spelt_out)).values()) != []


@pytest.mark.parametrize(("cpus", "fits"), [(1, False), (2, True), (None, True)])
def test_applications_share_the_cpus(cpus: int | None, fits: bool) -> None:
    other = {**LOCAL["applications"][0], "name": "other", "route_prefix": "/other"}
    both = changed({**LOCAL, "applications": [*LOCAL["applications"], other]}, ((*ARGS, "num_threads"), 1))
    found = errors(check(both, Resources(cpus=cpus)))
    assert found == {} if fits else "take 2 of num_cpus and there are 1" in found["applications"]


def test_every_finding_of_a_file_is_reported_at_once() -> None:
    wrong = changed(LOCAL, ((*ARGS, "weight"), 1), ((*USER_CONFIG, "topk"), 1))
    assert list(errors(check(wrong))) == ["applications[0].args.weight", f"{AT}.user_config.topk"]


def paths_of(node: Any, at: Path_ = ()) -> list[Path_]:
    keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    return [path for key in keys for path in ((*at, key), *paths_of(node[key], (*at, key)))]


RICH = changed(
    LOCAL,
    (
        (*APPLICATION, "runtime_env"),
        {"env_vars": {"A": "1"}, "working_dir": "https://example.org/a.zip", "pip": ["numpy"]},
    ),
    ((*ARGS, "num_threads"), 2),
    ((*ARGS, "stub"), {"base_ms": 1.0}),
    ((*DEPLOYMENT, "num_replicas"), "auto"),
    (
        (*DEPLOYMENT, "autoscaling_config"),
        {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 24, "upscale_delay_s": 1.0},
    ),
    ((*ACTOR, "num_gpus"), 0.3),
    ((*ACTOR, "resources"), {"spot": 1}),
    *grpc_options(),
    (("logging_config",), {"encoding": "TEXT"}),
)
NUMBERS = st.sampled_from([0, -1, 1, 2, 1e-320, 1e308, float("inf"), float("nan"), 10**30])
SCALARS = NUMBERS | NUMBERS.map(str) | st.none() | st.booleans() | st.text(max_size=6)
VALUES = st.just(ABSENT) | SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(SCALARS, SCALARS, max_size=2)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good file with some of its nodes taken away or replaced by anything YAML can say."""
    content = RICH
    for _ in range(draw(st.integers(1, 3))):
        if paths := paths_of(content):
            content = changed(content, (draw(st.sampled_from(paths)), draw(VALUES)))
    return content


def test_the_file_to_mutate_is_good() -> None:
    assert check(RICH, Resources(gpus=1, cpus=3)) == []


@settings(max_examples=400)
@example(changed(LOCAL, ((*ACTOR, "num_gpus"), 1e-320)), Resources(gpus=1))
@example(changed(LOCAL, ((*APPLICATION, "runtime_env"), {"working_dir": 1})), Resources())
@example(changed(LOCAL, ((*APPLICATION, "runtime_env"), {"py_modules": 1})), Resources())
@example(changed(LOCAL, (DEPLOYMENT, None)), Resources())
@example({**LOCAL, "applications": [*LOCAL["applications"], *LOCAL["applications"]]}, Resources())
@example(changed(LOCAL, *autoscaling(target_ongoing_requests=None)), Resources())
@example(changed(LOCAL, (("http_options", "request_timeout_s"), "inf")), Resources())
@given(mutated(), st.builds(Resources, st.none() | st.integers(0, 8), st.none() | st.integers(1, 64)))
def test_no_file_whatever_makes_the_check_fail(content: Any, resources: Resources) -> None:
    for finding in check(content, resources):
        assert finding.key
        assert finding.message


@pytest.mark.parametrize(
    "edit",
    [
        ((*APPLICATION, "runtime_env"), {1: 2}),
        ((*ACTOR, "runtime_env"), {True: "yes"}),
        ((*ARGS, 1), 2),
        ((*USER_CONFIG, None), 2),
        ((*DEPLOYMENT, 1), 2),
        ((1,), 2),
    ],
    ids=repr,
)
def test_a_key_that_is_no_text_is_an_error_like_another(edit: tuple[Path_, Any]) -> None:
    assert errors(check(changed(LOCAL, edit)))


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [", "not YAML"),
        ("a: b: c", "not YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not YAML"),
        (b"\xff\xfe\xff", "not YAML"),
        ("a: \0", "not YAML"),
        ("a: 2001-99-99", ""),
        ("a: " + "1" * 5000, ""),
        ("[" * 5000, ""),
        ("", "must be a mapping with `applications`"),
        ("- a", "must be a mapping with `applications`"),
        ("applications", "must be a mapping with `applications`"),
        ("a: 1\n---\nb: 2", "must be a mapping with `applications`"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_file_that_is_no_mapping_is_refused_with_its_name(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ConfigError) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert words in str(refused.value)


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: No such file"):
        read(tmp_path / "missing.yaml")


def test_a_folder_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        read(tmp_path)


def serve_app_check(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.main, ["check", *map(str, arguments)])


@pytest.fixture
def misspelt(tmp_path: Path) -> Path:
    return written(tmp_path, yaml.safe_dump(changed(LOCAL, ((*DEPLOYMENT, "max_ongoing_request"), 5))))


@pytest.fixture
def short_queue(tmp_path: Path) -> Path:
    """A file with a warning and no error."""
    return written(tmp_path, yaml.safe_dump(changed(LOCAL, ((*USER_CONFIG, "max_batch_size"), 33))))


@each_file
def test_the_command_calls_a_good_file_valid(path: Path) -> None:
    result = serve_app_check(path, "--gpus", "8")
    assert (result.exit_code, result.output) == (0, f"{path}: valid\n")


def test_the_command_shows_an_error_with_its_key_and_exits_with_1(misspelt: Path) -> None:
    result = serve_app_check(misspelt)
    assert result.exit_code == 1
    assert f"error {AT}.max_ongoing_request: unknown key" in result.output
    assert f"{misspelt}: 1 error\n" in result.output


def test_the_command_exits_with_0_where_there_are_only_warnings(short_queue: Path) -> None:
    result = serve_app_check(short_queue)
    assert result.exit_code == 0
    assert f"warning {AT}.max_ongoing_requests: Ray holds back" in result.output
    assert f"{short_queue}: valid\n" in result.output


def test_the_command_exits_with_2_where_the_file_cannot_be_read(tmp_path: Path) -> None:
    result = serve_app_check(tmp_path / "missing.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"{tmp_path / 'missing.yaml'}: No such file or directory\n"


def test_the_command_says_its_findings_as_json(misspelt: Path) -> None:
    result = serve_app_check(misspelt, "--json")
    (finding,) = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (finding["level"], finding["key"]) == ("error", f"{AT}.max_ongoing_request")
    assert finding.keys() == {"level", "key", "message"}


def test_the_command_says_that_there_is_nothing_as_json() -> None:
    result = serve_app_check(DEPLOY / "local.yaml", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_the_command_checks_against_the_gpus_it_is_told() -> None:
    result = serve_app_check(DEPLOY / "gpu.yaml", "--gpus", "0")
    assert result.exit_code == 1
    assert "need 1 GPUs and there are 0" in result.output


def test_the_command_checks_against_the_cpus_it_is_told() -> None:
    result = serve_app_check(DEPLOY / "gpu.yaml", "--gpus", "1", "--cpus", "7")
    assert result.exit_code == 1
    assert "4 replicas x 2 need 8 CPUs and there are 7" in result.output


def test_the_command_shows_keys_with_brackets_as_they_are(tmp_path: Path) -> None:
    result = serve_app_check(written(tmp_path, yaml.safe_dump({**LOCAL, "[red]": 1})))
    assert "error [red]: unknown key `[red]`" in result.output


# --- TLS ------------------------------------------------------------------------------------------


def with_http(**options: str) -> dict[str, str]:
    return errors(check({**LOCAL, "http_options": {**LOCAL["http_options"], **options}}))


def test_certificate_and_key_that_belong_together_are_taken(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.signed("service", "photos.example")
    assert with_http(**pair.options()) == {}
    closed = authority.signed("closed", "photos.example", password="sesame").options()
    assert with_http(**closed, ssl_keyfile_password="sesame") == {}
    assert "http_options.ssl_certfile" in with_http(**closed, ssl_keyfile_password="other")


def test_files_of_another_machine_are_not_looked_for() -> None:
    assert with_http(ssl_certfile="/nowhere/at/all.pem", ssl_keyfile="/nowhere/at/all.key") == {}


def test_files_that_cannot_be_served_are_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.signed("service", "photos.example"), authority.signed("other", "photos.example")
    old = authority.signed("old", "photos.example", days=-1)
    missing = tmp_path / "none.pem"
    for certificate, key, reason in (
        (missing, pair.key, "No such file"),
        (pair.certificate, missing, "No such file"),
        (pair.certificate, other.key, "MISMATCH"),
        (old.certificate, old.key, "expired"),
    ):
        found = with_http(ssl_certfile=str(certificate), ssl_keyfile=str(key))
        assert reason in found["http_options.ssl_certfile"]


@pytest.mark.parametrize(
    ("options", "key", "reason"),
    [
        ({"ssl_keyfile": "/k.pem"}, "ssl_certfile", "in plain text"),
        ({"ssl_certfile": "/c.pem"}, "ssl_certfile", "Both"),
        ({"ssl_keyfile_password": "x"}, "ssl_keyfile_password", "no effect"),
        ({"ssl_certfile": "c.pem", "ssl_keyfile": "/k.pem"}, "ssl_certfile", "/c.pem"),
        (
            {"ssl_certfile": "/nowhere/c", "ssl_keyfile": "/nowhere/k", "ssl_ca_certs": "/a"},
            "ssl_ca_certs",
            "everybody",
        ),
    ],
    ids=str,
)
def test_tls_that_ray_would_not_do_is_refused(options: dict[str, str], key: str, reason: str) -> None:
    found = with_http(**options)
    assert list(found) == [f"http_options.{key}"]
    assert reason in found[f"http_options.{key}"]
