"""Counts and times of one replica since its start, as Triton's statistics extension has them.

Images count, not requests: a request of eight is eight inferences. They are of the replica that answers.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NANOSECONDS_PER_MS = 1e6


@dataclass
class Duration:
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0

    def add(self, ms: float) -> None:
        self.count += 1
        self.ns += round(ms * NANOSECONDS_PER_MS)

    def as_dict(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


@dataclass
class Statistics:
    """Told by the event loop's thread alone."""

    now: Callable[[], float] = time.time
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    """Decoding, with the wait for a thread."""
    compute_infer: Duration = field(default_factory=Duration)
    """On the device, with the copies to it and back."""
    batches: dict[int, Duration] = field(default_factory=dict)
    """Executions by the number of images in them."""
    last_inference_ms: int = 0
    """Since the epoch; 0: none yet."""

    def succeeded(self, decode_ms: float, queue_ms: float, device_ms: float) -> None:
        """An image was answered."""
        self.success.add(decode_ms + queue_ms + device_ms)
        self.compute_input.add(decode_ms)
        self.queue.add(queue_ms)
        self.compute_infer.add(device_ms)
        self.last_inference_ms = round(self.now() * 1e3)

    def failed(self, ms: float) -> None:
        """An image got an error, after so long; or a request was refused at the door, whatever was in it."""
        self.fail.add(ms)

    def executed(self, batch_size: int, device_ms: float) -> None:
        """A batch of so many images came back from the device."""
        self.batches.setdefault(batch_size, Duration()).add(device_ms)

    def as_dict(self) -> dict[str, Any]:
        """`$model_stat` of the extension, without name and version; empty where nothing is known here."""
        nothing = Duration().as_dict()
        return {
            "last_inference": self.last_inference_ms,
            "inference_count": self.success.count,
            "execution_count": sum(each.count for each in self.batches.values()),
            "inference_stats": {
                "success": self.success.as_dict(),
                "fail": self.fail.as_dict(),
                "queue": self.queue.as_dict(),
                "compute_input": self.compute_input.as_dict(),
                "compute_infer": self.compute_infer.as_dict(),
                "compute_output": {"count": self.compute_infer.count, "ns": 0},
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "response_stats": {},
            "batch_stats": [_batch(size, duration) for size, duration in sorted(self.batches.items())],
            "memory_usage": [],
        }


def _batch(size: int, duration: Duration) -> dict[str, Any]:
    # Copies are part of the execution here: Triton's clients want all three.
    copies = {"count": duration.count, "ns": 0}
    return {
        "batch_size": size,
        "compute_input": copies,
        "compute_infer": duration.as_dict(),
        "compute_output": copies,
    }
