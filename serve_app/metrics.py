"""What Ray Serve does not already export: an image's time beside its objective, deadlines, refusals, splits, t(n).

Ray adds the labels `application`, `deployment` and `replica`, the prefix `ray_`, and to counters `_total`.
deploy/monitoring/ has the alerts and the dashboard that read them.
"""

import sys
from collections.abc import Mapping

from ray.serve.metrics import Counter, Gauge, Histogram

from serve_app.errors import DeviceStalled, Overloaded, QueueFull
from serve_app.scheduler import Load, Observer, Priority

QUEUE_TIME_BOUNDARIES_MS = [1.0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000]
# A quantile is as exact as its bucket is narrow: each is at most half again as long as the one before, where
# objectives are.
IMAGE_TIME_BOUNDARIES_MS = [
    *(1.0, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 125, 150, 200, 250, 300, 400, 500, 600, 800),
    *(1000, 1250, 1500, 2000, 2500, 3000, 4000, 5000, 7500, 10_000, 15_000, 30_000),
]
REASONS = tuple(error.code for error in (Overloaded, QueueFull, DeviceStalled))

LEAST = sys.float_info.min  # Ray's counters refuse to be increased by nothing; added to a count it changes nothing


class Metrics(Observer):
    """Counts what happens in the scheduler. Create it in a replica."""

    def __init__(self) -> None:
        self._image_time = Histogram(
            "serve_app_image_time_ms",
            "Of an answered image, from the door to its result: what the objective is about.",
            boundaries=IMAGE_TIME_BOUNDARIES_MS,
            tag_keys=("priority",),
        )
        self._priorities = {priority: {"priority": priority.name.lower()} for priority in Priority}
        self._objective = Gauge("serve_app_objective_ms", "latency_slo_ms in force; absent where there is none.")
        self._queue_time = Histogram(
            "serve_app_queue_time_ms",
            "From decoded to released to the device.",
            boundaries=QUEUE_TIME_BOUNDARIES_MS,
        )
        self._refused = Counter("serve_app_refused_images", "Refused at the door.", tag_keys=("reason",))
        self._expired = Counter("serve_app_expired_images", "Dropped before the device: too late for the deadline.")
        self._departed = Counter("serve_app_departed_images", "Dropped before the device: the client had gone.")
        self._missed = Counter("serve_app_late_images", "Answered, after the deadline.")
        self._not_numbers = Counter("serve_app_nan_images", "Not answered: what the network said was no number.")
        self._split = Counter("serve_app_batch_splits", "Batches that failed and were run again in two parts.")
        self._lingered = Counter(
            "serve_app_lingering_batches", "On the device for a tenth of the time after which it counts as hanging."
        )
        tag = ("bucket",)
        self._time = Gauge("serve_app_batch_time_ms", "t(n), as learned: what a batch is expected to take.", tag)
        self._predicted = Counter("serve_app_batch_predicted_ms", "Sum of what batches were expected to take.", tag)
        self._actual = Counter("serve_app_batch_actual_ms", "Sum of what they took, with the way to the device.", tag)
        self._demand = Gauge("serve_app_device_demand", "Devices that what comes in would fill; with an autoscaler.")
        self._full = Gauge("serve_app_device_full", "Share of time in batches as large as they may be; likewise.")
        self._loop = Gauge("serve_app_loop_busy", "Share of time in which the event loop was at work; likewise.")
        self._delay = Gauge("serve_app_queue_delay", "Wait for the device over what the objective leaves; likewise.")
        self._begin()

    def loaded(self, load: Load) -> None:
        self._demand.set(load.demand)
        self._full.set(load.full)
        self._loop.set(load.loop)
        self._delay.set(load.delay)

    def _begin(self) -> None:
        """A series that begins with its first event has no rate() and no increase() for it: begun with none."""
        for counter in (self._expired, self._departed, self._missed, self._not_numbers, self._split, self._lingered):
            counter.inc(LEAST)
        for reason in REASONS:
            self._refused.inc(LEAST, {"reason": reason})

    def expect(self, batch_s: Mapping[int, float], objective_ms: float | None) -> None:
        """t(n) by bucket, and the objective.

        To be told every few seconds: Ray drops a gauge that it is not told of for two reports.
        """
        for bucket, seconds in batch_s.items():
            self._time.set(seconds * 1e3, {"bucket": str(bucket)})
        if objective_ms is not None:
            self._objective.set(objective_ms)

    def answered(self, ms: float, priority: Priority) -> None:
        """An image has its result, so long after it came to the door."""
        self._image_time.observe(ms, self._priorities[priority])

    def queued(self, seconds: float) -> None:
        self._queue_time.observe(seconds * 1e3)

    def executed(self, bucket: int, predicted_s: float, actual_s: float) -> None:
        tags = {"bucket": str(bucket)}
        self._predicted.inc(max(predicted_s * 1e3, LEAST), tags)
        self._actual.inc(max(actual_s * 1e3, LEAST), tags)

    def refused(self, reason: str) -> None:
        self._refused.inc(tags={"reason": reason})

    def expired(self) -> None:
        self._expired.inc()

    def departed(self) -> None:
        self._departed.inc()

    def missed(self) -> None:
        self._missed.inc()

    def not_numbers(self, count: int) -> None:
        """So many images of a batch."""
        self._not_numbers.inc(count or LEAST)

    def split(self) -> None:
        self._split.inc()

    def lingered(self) -> None:
        self._lingered.inc()
