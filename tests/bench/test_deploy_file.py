from typing import Any

import pytest
import yaml

from serve_app import config_file
from serve_app.bench import deploy_file
from serve_app.bench.deploy_file import Origin
from serve_app.bench.forward import Setup
from serve_app.bench.plan import Machine, candidates, choose
from serve_app.config_file import Resources
from tests.bench import made_up

FACTS = {
    "command": "serve-app tune --p99-ms 250",
    "date": "2026-11-21",
    "machine": {"cpu": "Made-up CPU", "cores": 16, "memory_gib": 64.0, "gpus": ["Made-up GPU"]},
    "versions": {"torch": "2.15.0", "ray": "2.60.0"},
}
ODD_PATH = '/models/a "b": #c/ü.pth'


def rendered(p99_ms: float = 250.0, rate: float | None = None, device: str = "cpu", weights: str = ODD_PATH) -> str:
    on_gpu = device != "cpu"
    machine = Machine(cores=16, gpus=int(on_gpu), gpu_memory_bytes=80 << 30)
    times = made_up.times(made_up.GPU_LIKE if on_gpu else made_up.CPU_LIKE)
    plan = choose(candidates(times, machine, 4, 1 << 30), p99_ms, machine, rate)
    setup = Setup("resnet18", device, "bf16", num_threads=4)
    return deploy_file.render(plan, Origin(setup, weights, times, "16 generated JPEGs", FACTS, rate))


def deployment(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)["applications"][0]["deployments"][0]
    return found


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("p99_ms", [60.0, 250.0, 5000.0])
@pytest.mark.parametrize("rate", [None, 200.0])
def test_what_is_written_passes_the_strict_check(device: str, p99_ms: float, rate: float | None) -> None:
    content = yaml.safe_load(rendered(p99_ms, rate, device))
    assert config_file.check(content, Resources(gpus=int(device != "cpu"), cpus=16)) == []


def test_every_choice_is_in_the_file_with_a_number_behind_it() -> None:
    text = rendered()
    for key in (
        "max_batch_size",
        "batch_buckets",
        "min_replicas",
        "max_replicas",
        "num_cpus",
        "max_ongoing_requests",
        "max_queued_requests",
        "target_ongoing_requests",
    ):
        (line,) = (line for line in text.splitlines() if line.strip().startswith(f"{key}:"))
        value, _, reason = line.partition(" # ")
        assert value
        assert key == "min_replicas" or any(character.isdigit() for character in reason)


def test_it_says_why_this_size_and_which_times_were_never_measured() -> None:
    text = rendered(60.0)
    assert "More requests/s would break the bound." in text
    assert "More requests/s would leave the device no time to spare." in rendered(5000.0)
    (line,) = (line for line in text.splitlines() if "batch_buckets" in line)
    measured, between = made_up.CPU_LIKE[2], (made_up.CPU_LIKE[2] + made_up.CPU_LIKE[4]) / 2
    assert f" 2: {measured:g}, 3: ~{between:g}" in line


def test_its_head_says_where_it_comes_from_and_what_it_promises() -> None:
    head = rendered().partition("proxy_location")[0]
    assert all(line.startswith("# ") for line in head.splitlines())
    for fact in ("serve-app tune --p99-ms 250", "2026-11-21", "16 generated JPEGs", "bench load --rate"):
        assert fact in head


def test_a_path_of_any_kind_survives() -> None:
    assert yaml.safe_load(rendered())["applications"][0]["args"]["weights"] == ODD_PATH


def test_a_share_of_a_gpu_for_each_replica() -> None:
    options = deployment(rendered(device="cuda:0"))["ray_actor_options"]
    assert 0 < options["num_gpus"] < 1
    assert "num_gpus" not in deployment(rendered())["ray_actor_options"]


@pytest.mark.parametrize(("p99_ms", "timeout_s"), [(250.0, 30), (40_000.0, 80)])
def test_no_request_is_cut_off_within_the_bound(p99_ms: float, timeout_s: int) -> None:
    content = yaml.safe_load(rendered(p99_ms))
    assert content["http_options"]["request_timeout_s"] == timeout_s
    assert deployment(rendered(p99_ms))["graceful_shutdown_timeout_s"] > timeout_s


def test_a_rate_decides_how_many_replicas_there_are_at_least() -> None:
    one, many = (deployment(rendered(rate=rate))["autoscaling_config"] for rate in (None, 1000.0))
    assert one["min_replicas"] == 1
    assert many["min_replicas"] > 1
