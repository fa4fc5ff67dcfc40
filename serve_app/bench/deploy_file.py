"""A plan as a `deploy/*.yaml`: every value beside the number that it comes from."""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve_app.bench import machine
from serve_app.bench.forward import Setup
from serve_app.bench.load import Row
from serve_app.bench.plan import Plan
from serve_app.bench.simulation import MARGIN, MAX_UTILISATION
from serve_app.bench.times import Times

MIN_REQUEST_TIMEOUT_S = 30

TEMPLATE = """\
# {command}
# {machine}
# {images}
# Predicted: {replicas} {rate:.3g} requests/s with a p99 of {p99:.0f} ms; the bound is {bound:g} ms, and
# {reserve:.0%} of it and {idle:.0%} of the device are left for what a simulation does not know.
# To confirm: serve-app run THIS FILE, then serve-app bench load --rate {rate:.3g} --p99-ms {bound:g}
proxy_location: HeadOnly # EveryNode on a cluster
http_options:
  host: 127.0.0.1 # 0.0.0.0: other machines may ask
  port: 8000
  request_timeout_s: {timeout}
applications:
  - name: serve-app
    route_prefix: /
    import_path: serve_app.app:build_app
    args:
      arch: {arch}
      weights: {weights}
      device: {device}
      precision: {precision} # as measured
    deployments:
      - name: Classifier
        max_ongoing_requests: {max_ongoing} # 32 x max_batch_size; {mean_ongoing:.1f} are inside on average at that rate
        max_queued_requests: {max_queued} # 16 x max_batch_size, beyond those: the last line
        graceful_shutdown_timeout_s: {shutdown}
        autoscaling_config:
          min_replicas: {min_replicas} # {why_min}
          max_replicas: {max_replicas} # {why_max}
          target_ongoing_requests: {target} # {why_target}
        ray_actor_options:
{resources}
        user_config:
          # The most able size within 5 % of the best rate whose full batch fits the bound twice. {why_no_more}
          latency_slo_ms: {bound:g} # the bound given: what would be late is refused, with 503 and Retry-After
          max_batch_size: {max_batch_size} # requests/s that hold the bound, by size: {held}
          batch_buckets: {buckets} # a batch is padded to the next of these; ms (~: between two measured): {bucket_ms}
          batch_wait_timeout_s: 0 # a free device takes what waits; a busy one collects meanwhile
          top_k: 5
"""


WHY_NO_MORE = {
    "bound": "More requests/s would break the bound.",
    "device": "More requests/s would leave the device no time to spare.",
    "decode": "More requests/s would leave the threads that decode no time to spare.",
    "process": "More requests/s are more than one process answers.",
}


@dataclass(frozen=True)
class Origin:
    """What the plan was made from."""

    setup: Setup
    """Its precision is the resolved one."""
    weights: str
    """As in `args.weights`."""
    times: Times
    images: str
    facts: dict[str, Any]
    """`machine.facts()`"""
    target_rate_per_s: float | None


def render(plan: Plan, origin: Origin) -> str:
    """The file's text."""
    rate = plan.predicted_rate_per_s
    replicas = "one replica holds" if plan.min_replicas == 1 else f"{plan.min_replicas} replicas hold"
    timeout_s = max(MIN_REQUEST_TIMEOUT_S, math.ceil(2 * plan.p99_bound_ms / 1e3))
    held = {size: f"{outcome.rate_per_s:.3g}" if outcome else "none" for size, outcome in plan.alternatives.items()}
    why_target = f"{plan.outcome.mean_ongoing:.1f} are inside a replica at its {plan.outcome.rate_per_s:.3g} requests/s"
    return TEMPLATE.format(
        command=origin.facts["command"],
        machine=machine.phrase(origin.facts),
        images=origin.images,
        replicas=replicas,
        rate=rate,
        p99=plan.outcome.p99_ms,
        bound=plan.p99_bound_ms,
        reserve=1 - MARGIN,
        idle=1 - MAX_UTILISATION,
        timeout=timeout_s,
        shutdown=timeout_s + 5,
        arch=origin.setup.arch,
        weights=json.dumps(origin.weights),
        device=origin.setup.device.partition(":")[0],
        precision=origin.setup.precision,
        max_ongoing=plan.max_ongoing_requests,
        mean_ongoing=plan.outcome.mean_ongoing,
        max_queued=plan.max_queued_requests,
        min_replicas=plan.min_replicas,
        why_min=_why_min(plan, origin.target_rate_per_s),
        max_replicas=plan.max_replicas,
        why_max=_why_max(plan, origin.facts),
        target=plan.target_ongoing_requests,
        why_target=why_target,
        resources=_resources(plan, origin.times),
        max_batch_size=plan.max_batch_size,
        why_no_more=WHY_NO_MORE[plan.outcome.limit],
        held=_listed(held),
        buckets=json.dumps(list(plan.buckets)),
        bucket_ms=_listed({size: _told(size, ms, origin.times) for size, ms in plan.bucket_ms.items()}),
    )


def verified(row: Row, p99_bound_ms: float) -> str:
    """The line above the file's text that says what became of its prediction."""
    s = row.median
    p99 = "no answer" if s.p99_ms is None else f"a p99 of {s.p99_ms:.0f} ms"
    verdict = "the bound holds" if row.holds else f"IT DOES NOT HOLD {p99_bound_ms:g} ms"
    return f"# Verified: {verdict}; at {s.offered_per_s:.3g} requests/s {p99}, {s.goodput_share:.1%} in time\n"


def _why_min(plan: Plan, target_rate_per_s: float | None) -> str:
    if target_rate_per_s is None:
        return "no --rate was given"
    return f"for {target_rate_per_s:g} requests/s, at {plan.outcome.rate_per_s:.3g} a replica"


def _why_max(plan: Plan, facts: dict[str, Any]) -> str:
    cores, gpus = facts["machine"]["cores"], len(facts["machine"]["gpus"])
    holds = f"{gpus} GPUs hold {plan.slots}" if plan.replicas_per_gpu else f"{cores} cores hold {plan.slots}"
    if plan.min_replicas > plan.slots:
        return f"more than this machine: {holds}"
    return f"{holds}: raise it on a larger cluster"


def _told(size: int, ms: float, times: Times) -> str:
    return f"{ms:.3g}" if size in times.device_ms else f"~{ms:.3g}"


def _listed(by_size: dict[int, str]) -> str:
    return ", ".join(f"{size}: {value}" for size, value in by_size.items())


def _resources(plan: Plan, times: Times) -> str:
    threads = f"also its CPU threads; one decodes an image in {np.median(times.decode_ms):.1f} ms"
    lines = [f"num_cpus: {plan.num_threads} # {threads}"]
    if plan.replicas_per_gpu:
        lines.append(f"num_gpus: {plan.num_gpus:g} # {plan.replicas_per_gpu} of them share a GPU")
    return "\n".join(f"          {line}" for line in lines)
