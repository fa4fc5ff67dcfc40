import pytest

from serve_app.bench import plan
from serve_app.bench.plan import BoundTooTight, Machine, Plan, candidates, choose, thin_buckets
from serve_app.bench.simulation import Replica
from serve_app.config import MAX_BATCH_OVER_TARGET
from tests.bench import made_up

LAPTOP = Machine(cores=8, gpus=0)
GIBIBYTE = 1 << 30
GPU_NODE = Machine(cores=16, gpus=2, gpu_memory_bytes=80 * GIBIBYTE)


def chosen(p99_ms: float = 250.0, rate: float | None = None, machine: Machine = LAPTOP) -> Plan:
    device_ms = made_up.GPU_LIKE if machine.gpus else made_up.CPU_LIKE
    return choose(candidates(made_up.times(device_ms), machine, 4, GIBIBYTE), p99_ms, machine, rate)


def test_the_choice_is_as_good_as_any_and_no_larger_than_it_has_to_be() -> None:
    plan = chosen()
    rates = {size: outcome.rate_per_s for size, outcome in plan.alternatives.items() if outcome}
    assert rates[plan.max_batch_size] >= 0.95 * max(rates.values())
    assert set(plan.alternatives) == set(made_up.CPU_LIKE)


def test_a_full_batch_fits_the_bound_twice() -> None:
    """An image that has just missed one waits for it, and rides in the next."""
    times = made_up.CPU_LIKE
    assert 2 * times[chosen(100.0).max_batch_size] < 100.0 < 2 * times[16]


def test_a_tight_bound_takes_smaller_batches_than_a_loose_one() -> None:
    assert chosen(60.0).max_batch_size < chosen(2000.0).max_batch_size


def test_the_knobs_agree() -> None:
    plan = chosen()
    assert plan.buckets[-1] == plan.max_batch_size
    assert 1 <= plan.target_ongoing_requests <= plan.max_ongoing_requests
    assert plan.slots == LAPTOP.cores // 4
    assert (plan.min_replicas, plan.max_replicas) == (1, plan.slots)
    assert plan.num_gpus == 0


@pytest.mark.parametrize("p99_ms", [60.0, 250.0, 5000.0])
@pytest.mark.parametrize("machine", [LAPTOP, GPU_NODE])
def test_a_replica_is_added_where_the_bound_ends_and_not_at_the_devices_limit(p99_ms: float, machine: Machine) -> None:
    plan = chosen(p99_ms, machine=machine)
    least = plan.max_batch_size / MAX_BATCH_OVER_TARGET
    assert max(least, plan.outcome.mean_ongoing) <= plan.target_ongoing_requests
    assert plan.target_ongoing_requests <= max(least, plan.outcome.mean_ongoing) + 1


def test_those_that_share_a_gpu_are_verified_together() -> None:
    assert chosen().verified_replicas == 1
    plan = chosen(machine=GPU_NODE)
    assert plan.verified_replicas == plan.replicas_per_gpu > plan.min_replicas
    assert chosen(rate=2.5 * chosen().outcome.rate_per_s).verified_replicas == 3


def test_a_rate_takes_as_many_replicas_as_it_needs() -> None:
    alone = chosen().outcome.rate_per_s
    plan = chosen(rate=2.5 * alone)
    assert plan.min_replicas == 3
    assert plan.max_replicas == 3 > plan.slots
    assert plan.predicted_rate_per_s == pytest.approx(3 * alone)


def test_replicas_share_a_gpu_where_one_process_is_not_enough() -> None:
    plan = chosen(machine=GPU_NODE)
    assert plan.replicas_per_gpu > 1  # 64 images in 7 ms are 9,000/s, and one process answers 2,000
    assert plan.replicas_per_gpu * plan.num_gpus <= 1
    assert plan.num_threads * plan.replicas_per_gpu <= GPU_NODE.cores // GPU_NODE.gpus
    assert plan.slots == GPU_NODE.gpus * plan.replicas_per_gpu


def test_memory_and_cores_limit_who_shares_a_gpu() -> None:
    times = made_up.times(made_up.GPU_LIKE)
    small = Machine(cores=16, gpus=1, gpu_memory_bytes=3 * GIBIBYTE)
    assert [replica.sharing for replica in candidates(times, small, 4, 1 * GIBIBYTE)] == [1]
    few_cores = Machine(cores=2, gpus=1, gpu_memory_bytes=80 * GIBIBYTE)
    assert [replica.sharing for replica in candidates(times, few_cores, 4, 1 * GIBIBYTE)] == [1, 2]
    assert [replica.num_threads for replica in candidates(times, few_cores, 4, 1 * GIBIBYTE)] == [2, 1]


def test_a_bound_too_tight_names_one_that_can_be_held() -> None:
    with pytest.raises(BoundTooTight, match=r"9\.0 ms on the device") as refused:
        chosen(p99_ms=12.0)
    assert refused.value.smallest_ms > 12.0
    assert chosen(p99_ms=refused.value.smallest_ms).outcome.rate_per_s >= 1.0


def test_sizes_that_save_nothing_are_left_out() -> None:
    flat = Replica(made_up.times({1: 8.0, 64: 8.0}), 1)
    assert thin_buckets(flat, 64) == (64,)
    steep = Replica(made_up.times({1: 1.0, 16: 16.0}), 1)
    assert thin_buckets(steep, 16) == tuple(range(1, 17))
    stairs = Replica(made_up.times({1: 4.0, 8: 4.0, 9: 9.0, 16: 9.0}), 1)
    assert thin_buckets(stairs, 16) == (8, 16)


def test_padding_costs_less_than_was_allowed() -> None:
    replica = Replica(made_up.times(), 1)
    kept = thin_buckets(replica, 16)
    for size in range(1, 17):
        runs = min(bucket for bucket in kept if bucket >= size)
        assert replica.batch_ms(runs) <= (1 + plan.MAX_PADDING) * replica.batch_ms(size)
