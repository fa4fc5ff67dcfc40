"""A deployment that is none: traffic in, the loads its replicas would report, and the targets a policy sets for it.

The policy is called as Ray calls it: with Ray's context, inside Ray's wrapper of delays and factors, within bounds.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ray.serve.autoscaling_policy import _apply_autoscaling_config as as_ray_applies
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from serve_app.autoscaling import BatchingAware

LOOK_BACK_S = 3
TICK_S = 1.0
MAX_REPLICAS = 8

Loads = Mapping[str, Mapping[str, float]]


def config(**keys: Any) -> AutoscalingConfig:
    """As in deploy/autoscale.yaml."""
    given = {
        "min_replicas": 1,
        "max_replicas": MAX_REPLICAS,
        "metrics_interval_s": 1,
        "look_back_period_s": LOOK_BACK_S,
        "upscale_delay_s": 0,
        "downscale_delay_s": 0,
        "policy": {"policy_function": "serve_app.autoscaling:BatchingAware"},
    }
    return AutoscalingConfig(**(given | keys))


@dataclass
class Controller:
    """What Ray's controller does with a policy: state from call to call, a target within bounds."""

    policy: BatchingAware
    config: AutoscalingConfig
    target: int
    state: dict[str, Any] = field(default_factory=dict)

    def decide(self, now: float, running: int, loads: Loads, requests: float = 0.0) -> int:
        context = AutoscalingContext(
            deployment_id=None,  # type: ignore[arg-type] # these five are nothing to the policy
            deployment_name="Classifier",
            app_name="serve-app",
            running_replicas=[],
            raw_metrics=None,
            current_num_replicas=running,
            target_num_replicas=self.target,
            total_num_requests=requests,
            total_queued_requests=0.0,
            aggregated_metrics=loads,  # type: ignore[arg-type] # replicas by any name
            capacity_adjusted_min_replicas=self.config.min_replicas,
            capacity_adjusted_max_replicas=self.config.max_replicas,
            policy_state=dict(self.state),
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=now,
            config=self.config,
        )
        wanted, self.state = as_ray_applies(self.policy)(context)
        self.target = min(self.config.max_replicas, max(self.config.min_replicas, wanted))
        return self.target


@dataclass
class Plant:
    """Each second `traffic` (in devices' worth of full batches) comes, and is shared by the replicas that run.

    A replica bears one device's worth; a queue forms of what is more, and is refused beyond the tolerable wait.
    """

    controller: Controller
    start_up_s: float = 20.0
    running: int = 1
    now: float = 1000.0
    _starting: list[float] = field(default_factory=list)
    _window: deque[dict[str, dict[str, float]]] = field(default_factory=lambda: deque(maxlen=LOOK_BACK_S))

    def second(self, traffic: float) -> int:
        """The target after it."""
        self.now += TICK_S
        self.running += sum(ready_at <= self.now for ready_at in self._starting)
        self._starting = [ready_at for ready_at in self._starting if ready_at > self.now]
        self._window.append(self._loads(traffic))
        waiting = float(traffic > 0 and not self.running)  # requests take no time, where there is a replica
        target = self.controller.decide(self.now, self.running, self._means(), waiting)
        missing = target - self.running - len(self._starting)
        self._starting += [self.now + self.start_up_s] * missing
        if missing < 0:
            stopped = min(-missing, len(self._starting))
            del self._starting[len(self._starting) - stopped :]
            self.running -= -missing - stopped
        return target

    def _loads(self, traffic: float) -> dict[str, dict[str, float]]:
        each = traffic / self.running if self.running else 0.0
        one = {
            "demand": each,
            "full": min(1.0, each) if each > 0.8 else 0.0,
            "loop": 0.2 * min(1.0, each),
            "delay": 1.0 if each > 1.0 else 0.3 * each,
        }
        return {name: {f"replica {i}": value for i in range(self.running)} for name, value in one.items()}

    def _means(self) -> dict[str, dict[str, float]]:
        """Of each replica over the seconds that it has been there, as Ray has it."""
        means: dict[str, dict[str, float]] = {}
        for name in self._window[-1]:
            for replica in self._window[-1][name]:
                values = [loads[name][replica] for loads in self._window if replica in loads[name]]
                means.setdefault(name, {})[replica] = math.fsum(values) / len(values)
        return means


def plant(**keys: Any) -> Plant:
    """One replica, or as many as `running`. Ray's keys (`min_replicas`) and the policy's (`calm_s`) go to them."""
    ours = {key: keys.pop(key) for key in ("start_up_s", "running") if key in keys}
    rays = {key: keys.pop(key) for key in ("min_replicas", "max_replicas") if key in keys}
    controller = Controller(BatchingAware(**keys), config(**rays), ours.get("running", 1))
    return Plant(controller, **ours)


def targets(plant: Plant, traffic: Iterable[float]) -> list[int]:
    """The target at the end of each second."""
    return [plant.second(one) for one in traffic]


def turns(targets: Sequence[int]) -> int:
    """How often the target changed its direction."""
    steps = [after - before for before, after in pairwise(targets) if after != before]
    return sum((a > 0) != (b > 0) for a, b in pairwise(steps))
