"""What Ray Serve does not already export: queue time, deadlines, refusals, splits, t(n).

Ray adds the labels `application`, `deployment` and `replica`, the prefix `ray_`, and to counters `_total`.
"""

from collections.abc import Mapping

from ray.serve.metrics import Counter, Gauge, Histogram

from serve_app.scheduler import Observer

QUEUE_TIME_BOUNDARIES_MS = [1.0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000]

LEAST = 1e-9  # Ray's counters refuse to be increased by nothing


class Metrics(Observer):
    """Counts what happens in the scheduler. Create it in a replica."""

    def __init__(self) -> None:
        self._queue_time = Histogram(
            "serve_app_queue_time_ms",
            "From decoded to released to the device.",
            boundaries=QUEUE_TIME_BOUNDARIES_MS,
        )
        self._refused = Counter("serve_app_refused_images", "Refused at the door.", tag_keys=("reason",))
        self._expired = Counter("serve_app_expired_images", "Dropped before the device: too late for the deadline.")
        self._departed = Counter("serve_app_departed_images", "Dropped before the device: the client had gone.")
        self._missed = Counter("serve_app_late_images", "Answered, after the deadline.")
        self._split = Counter("serve_app_batch_splits", "Batches that failed and were run again in two parts.")
        tag = ("bucket",)
        self._time = Gauge("serve_app_batch_time_ms", "t(n), as learned: what a batch is expected to take.", tag)
        self._predicted = Counter("serve_app_batch_predicted_ms", "Sum of what batches were expected to take.", tag)
        self._actual = Counter("serve_app_batch_actual_ms", "Sum of what they took, with the way to the device.", tag)

    def expect(self, batch_s: Mapping[int, float]) -> None:
        """t(n) by bucket. To be told every few seconds: Ray drops a gauge that it is not told of for two reports."""
        for bucket, seconds in batch_s.items():
            self._time.set(seconds * 1e3, {"bucket": str(bucket)})

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

    def split(self) -> None:
        self._split.inc()
