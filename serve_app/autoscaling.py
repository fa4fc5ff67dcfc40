"""How many replicas there are to be: a policy for Ray Serve's autoscaler that knows what a batch is worth.

```yaml
autoscaling_config:
  min_replicas: 1              # 0: none at all while nothing comes
  max_replicas: 8
  metrics_interval_s: 1        # Ray's default of 10 s alone costs more than a decision needs
  look_back_period_s: 3
  upscale_delay_s: 0           # the policy waits for itself
  downscale_delay_s: 0
  policy:
    policy_function: serve_app.autoscaling:BatchingAware
    policy_kwargs: {target_demand: 0.7, calm_s: 60}      # all of them: serve_app.config.Scaling
```

Ray's stock policy counts requests inside; but how many of those a replica can bear depends on its batches, and once
they are refused at the door, for their deadlines, there are never too many inside. This one counts device time.
What comes in, at t(n) of the largest batch that the objective allows (or at what decoding takes, if that is slower),
is so many replicas' worth; where that says too little, full devices, a busy event loop (a replica on a fast GPU is
bound by it: one process answers about 900 photos/s) and a long queue speak for themselves.
Up at once; down only to what would have been enough at every moment of the last `calm_s`: Ray's own
`downscale_delay_s` takes the value at its end, which may be the trough between two bursts.

Pure: from a context to a number. Ray applies `min_replicas` and `max_replicas`. It takes this module into its
controller by value, so what has a validator stands elsewhere (config.Scaling).
"""

import math
from collections.abc import Mapping
from statistics import median_low
from typing import TYPE_CHECKING, Any

from serve_app.config import Scaling

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

STEP = 4
"""A queue that stays too long asks for one replica more for each so many: it says that one is missing, not how many."""
NEEDS = ("demand", "full", "loop")
"""Of scheduler.Load, what says how many replicas' worth of work there is: whichever a replica runs out of first."""
AVERAGE_S = 5.0
"""Over which the need is smoothed before a replica is given up: how many come in three seconds is often chance."""
RESIDUE = 0.05
"""Of a replica: as little as this is left in the average of traffic that is over, and needs none."""
PEAKS, PRESSED, RUNNING, AVERAGE = "peaks", "pressed_since", "running", "average"
"""Of the policy's state; Ray keeps keys of its own beside them."""

Loads = Mapping[str, Mapping[Any, float]]
"""By name (`scheduler.Load`) and replica; means over `look_back_period_s`."""
Since = tuple[float, float]
"""A value, and when it was that."""


class BatchingAware:
    """Ray Serve calls it with a deployment's context, about ten times a second."""

    def __init__(self, **settings: float) -> None:
        """`settings` are those of config.Scaling. Raises pydantic's ValidationError."""
        self._settings = Scaling.model_validate(settings)

    def __call__(self, context: "AutoscalingContext") -> tuple[int, dict[str, Any]]:
        """The number of replicas that is wanted, and the state for the next call."""
        now, target = float(context.current_time or 0.0), int(context.target_num_replicas)
        loads: Loads = context.aggregated_metrics or {}
        if not loads.get("demand"):  # none is there, or none has spoken yet: what is wanted stays wanted
            return max(target, _least(context)), {PEAKS: [(target, now)]}
        state = dict(context.policy_state)
        devices = sum(max(loads[name][replica] for name in NEEDS) for replica in loads["demand"])
        state[RUNNING] = _running_since(context.current_num_replicas, state.get(RUNNING), now)
        state[PRESSED] = self._pressed_since(loads, state.get(PRESSED), now)
        state[AVERAGE] = _smoothed(devices, state.get(AVERAGE), now)
        wanted = max(self._wanted(devices), self._for_the_queue(state, context, now))
        enough = max(wanted, self._enough(state[AVERAGE][0]), _least(context), int(any(loads["demand"].values())))
        state[PEAKS] = _with_peak(state.get(PEAKS, [(target, now)]), (enough, now), now - self._settings.calm_s)
        if wanted > target and self._is_settled(state, context, now):
            return wanted, state
        return min(target, int(state[PEAKS][0][0])), state

    def _wanted(self, devices: float) -> int:
        return math.ceil(devices / self._settings.target_demand - self._settings.tolerance)

    def _enough(self, devices: float) -> int:
        """More than are wanted: a replica is given up only where the others would have room to spare."""
        return math.ceil(devices / self._settings.target_demand / (1 - self._settings.slack) - RESIDUE)

    def _pressed_since(self, loads: Loads, since: float | None, now: float) -> float | None:
        """Since when the queue of most replicas has been too long; None: it is not. One alone may only hang."""
        pressed = median_low(loads["delay"].values()) > self._settings.max_delay
        return (now if since is None else since) if pressed else None

    def _for_the_queue(self, state: Mapping[str, Any], context: "AutoscalingContext", now: float) -> int:
        """Some more than run, or what is on its way already, if the queue has been too long for a while; else none."""
        running, target, since = context.current_num_replicas, context.target_num_replicas, state[PRESSED]
        if since is None or now - since < self._settings.patience_s:
            return 0
        return target if running < target else running + math.ceil(running / STEP)

    @staticmethod
    def _is_settled(state: Mapping[str, Any], context: "AutoscalingContext", now: float) -> bool:
        """Traffic that has just moved to another replica counts in the means of both."""
        assert context.config is not None  # noqa: S101 - Ray always gives it
        return bool(now - state[RUNNING][1] >= context.config.look_back_period_s)


def _least(context: "AutoscalingContext") -> int:
    """The fewest: one while a request is inside, wherever."""
    return 1 if context.total_num_requests else 0


def _running_since(count: int, before: Since | None, now: float) -> Since:
    """How many run, and since when it is that many."""
    return before if before is not None and before[0] == count else (count, now)


def _smoothed(value: float, before: Since | None, now: float) -> Since:
    """The exponential moving average of it."""
    if before is None:
        return value, now
    weight = 1 - math.exp(-(now - before[1]) / AVERAGE_S)
    return before[0] + weight * (value - before[0]), now


def _with_peak(peaks: list[Since], peak: Since, oldest: float) -> list[Since]:
    """For the maximum of a sliding window: the largest first, then those that will be it when that has left."""
    return [*(before for before in peaks if before[0] > peak[0] and before[1] >= oldest), peak]
