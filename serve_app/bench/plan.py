"""The settings that hold a bound, chosen from simulations of every batch size that was measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serve_app.bench.forward import doublings
from serve_app.bench.simulation import LOWEST_RATE_PER_S, MARGIN, Outcome, Replica, highest_rate, simulate
from serve_app.bench.times import Times
from serve_app.config import (
    MAX_BATCH_OVER_TARGET,
    ConfigError,
    default_buckets,
    max_ongoing_requests,
    max_queued_requests,
)

NEAR_BEST = 0.95
MAX_PADDING = 0.05
MAX_REPLICAS_PER_GPU = 4
GPU_MEMORY_SHARE = 0.8
CUDA_CONTEXT_BYTES = 600 << 20  # of each process, which torch does not count
REPLICA_CORES = 4
"""On a CPU: beyond four threads a forward pass of a small batch gains little."""


class BoundTooTight(ConfigError):
    """No rate holds the bound; `smallest_ms` is one that could be held."""

    def __init__(self, message: str, smallest_ms: float) -> None:
        super().__init__(message)
        self.smallest_ms = smallest_ms


@dataclass(frozen=True)
class Machine:
    """What replicas may be placed on."""

    cores: int
    gpus: int
    gpu_memory_bytes: int = 0
    """Of one GPU."""


@dataclass(frozen=True)
class Plan:
    """The settings, and what was found on the way to them."""

    p99_bound_ms: float
    max_batch_size: int
    bucket_ms: dict[int, float]
    """The sizes that are warmed and run, and the milliseconds of each on the device."""
    num_threads: int
    replicas_per_gpu: int
    """0 on a CPU."""
    min_replicas: int
    max_replicas: int
    slots: int
    """Replicas that this machine holds."""
    target_ongoing_requests: int
    capacity_per_s: float
    """Images/s of one replica with every batch full."""
    outcome: Outcome
    """Of one replica at the highest rate that holds the bound."""
    alternatives: dict[int, Outcome | None]
    """By max_batch_size: the highest rate that holds the bound, None if none does."""

    @property
    def buckets(self) -> tuple[int, ...]:
        return tuple(self.bucket_ms)

    @property
    def predicted_rate_per_s(self) -> float:
        """What `min_replicas` hold together."""
        return self.min_replicas * self.outcome.rate_per_s

    @property
    def verified_replicas(self) -> int:
        """How many to load together: of those that share a GPU all, for each was promised its share alone."""
        return max(self.min_replicas, self.replicas_per_gpu)

    @property
    def max_ongoing_requests(self) -> int:
        return max_ongoing_requests(self.max_batch_size)

    @property
    def max_queued_requests(self) -> int:
        return max_queued_requests(self.max_batch_size)

    @property
    def num_gpus(self) -> float:
        return math.floor(1e4 / self.replicas_per_gpu) / 1e4 if self.replicas_per_gpu else 0.0


def choose(
    replicas: Sequence[Replica],
    p99_ms: float,
    machine: Machine,
    target_rate_per_s: float | None = None,
) -> Plan:
    """The settings for the best of `replicas`, which differ in how many share a GPU. Raises BoundTooTight."""
    found = []
    for replica in replicas:
        outcomes = {size: highest_rate(replica, size, p99_ms) for size in sizes(replica.times)}
        best = max((outcome.rate_per_s for outcome in outcomes.values() if outcome), default=0.0)
        found.append((best * replica.sharing, replica, outcomes))
    best_rate = max(rate for rate, _, _ in found)
    if best_rate == 0:
        raise _too_tight(replicas[0], p99_ms)
    # Of those that are as good, the one with the fewest processes on a GPU.
    _, replica, outcomes = next(item for item in found if item[0] >= NEAR_BEST * best_rate)
    size, outcome = _best_size(replica, p99_ms, outcomes)
    min_replicas = max(1, math.ceil((target_rate_per_s or 0.0) / outcome.rate_per_s))
    slots = machine.gpus * replica.sharing if machine.gpus else max(1, machine.cores // replica.num_threads)
    return Plan(
        p99_bound_ms=p99_ms,
        max_batch_size=size,
        bucket_ms={bucket: replica.batch_ms(bucket) for bucket in thin_buckets(replica, size)},
        num_threads=replica.num_threads,
        replicas_per_gpu=replica.sharing if machine.gpus else 0,
        min_replicas=min_replicas,
        max_replicas=max(min_replicas, slots),
        slots=slots,
        target_ongoing_requests=_target(size, outcome),
        capacity_per_s=replica.capacity_per_s(size),
        outcome=outcome,
        alternatives=outcomes,
    )


def _target(max_batch_size: int, outcome: Outcome) -> int:
    """What is inside at the highest rate that holds the bound, so that a replica is added there, not at the device's
    limit; and above the share of a batch that the strict check takes for a mistake."""
    lowest = max_batch_size // MAX_BATCH_OVER_TARGET + 1
    return min(max(lowest, math.ceil(outcome.mean_ongoing)), max_ongoing_requests(max_batch_size))


def _best_size(replica: Replica, p99_ms: float, outcomes: dict[int, Outcome | None]) -> tuple[int, Outcome]:
    """Of the sizes with as high a rate (within 5 %), whose full batch fits the bound, the most able."""
    held = {size: outcome for size, outcome in outcomes.items() if outcome}
    best_rate = max(outcome.rate_per_s for outcome in held.values())
    good = [size for size, outcome in held.items() if outcome.rate_per_s >= NEAR_BEST * best_rate]
    good = [size for size in good if _two_batches_ms(replica, size) <= p99_ms] or good[:1]
    most = max(replica.capacity_per_s(size) for size in good)
    size = min(size for size in good if replica.capacity_per_s(size) >= NEAR_BEST * most)
    return size, held[size]


def _two_batches_ms(replica: Replica, size: int) -> float:
    """The latency of an image that comes just after a full batch has started, and rides in the next one."""
    return float(np.median(replica.times.decode_ms)) + 2 * replica.batch_ms(size) + replica.times.http_ms


def candidates(times: Times, machine: Machine, num_threads: int, peak_bytes: int | None) -> list[Replica]:
    """On a CPU one kind of replica; on GPUs one for each number of them that memory and cores allow to share one."""
    if not machine.gpus:
        return [Replica(times, num_threads)]
    cores = max(1, machine.cores // machine.gpus)
    footprint = (peak_bytes or 0) + CUDA_CONTEXT_BYTES
    fit = int(machine.gpu_memory_bytes * GPU_MEMORY_SHARE // footprint) if machine.gpu_memory_bytes else 1
    most = max(1, min(MAX_REPLICAS_PER_GPU, fit, cores))
    return [Replica(times, max(1, min(num_threads, cores // sharing)), sharing) for sharing in range(1, most + 1)]


def thin_buckets(replica: Replica, max_batch_size: int) -> tuple[int, ...]:
    """The default sizes, without those that the next one up replaces at a cost of less than 5 %."""
    kept: list[int] = []
    for size in reversed(default_buckets(max_batch_size)):
        if not kept or replica.batch_ms(kept[-1]) > (1 + MAX_PADDING) * replica.batch_ms(size):
            kept.append(size)
    return tuple(reversed(kept))


def sizes(times: Times) -> list[int]:
    """The candidates for max_batch_size: doublings up to the largest batch that was seen."""
    return doublings(max(times.device_ms))


def _too_tight(replica: Replica, p99_ms: float) -> BoundTooTight:
    times = replica.times
    decode_ms = float(np.median(times.decode_ms))
    low = min((simulate(replica, size, LOWEST_RATE_PER_S) for size in sizes(times)), key=lambda o: o.p99_ms)
    return BoundTooTight(
        f"no rate holds a p99 of {p99_ms:g} ms: one image takes {decode_ms:.1f} ms to decode, "
        f"{times.batch_ms(1):.1f} ms on the device and {times.http_ms:.1f} ms of HTTP, and one request a second "
        f"has a p99 of {low.p99_ms:.0f} ms; {1 - MARGIN:.0%} of the bound are kept in reserve",
        math.ceil(low.p99_ms / MARGIN),
    )
