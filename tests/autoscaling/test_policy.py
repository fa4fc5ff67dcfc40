"""The policy on made-up traffic, in devices' worth of full batches: 1.0 keeps one device busy all the time."""

import math
from collections.abc import Iterator
from itertools import chain, pairwise, repeat

import numpy as np
import pytest
from pydantic import ValidationError

from serve_app.autoscaling import BatchingAware
from tests.autoscaling.plant import LOOK_BACK_S, MAX_REPLICAS, Controller, config, plant, targets, turns

QUIET, BUSY = 0.5, 2.5
ENOUGH = math.ceil(BUSY / 0.7)


def seconds(traffic: float, count: int) -> Iterator[float]:
    return repeat(traffic, count)


# --- up ----------------------------------------------------------------------------------------------


def test_a_step_is_answered_within_its_first_seconds_and_by_no_more_than_it_needs() -> None:
    deployment = plant()
    assert set(targets(deployment, seconds(QUIET, 60))) == {1}
    first = targets(deployment, seconds(BUSY, 3))
    assert first[0] >= 2
    assert first[-1] == ENOUGH
    assert set(targets(deployment, seconds(BUSY, 600))) == {ENOUGH}


def test_refused_traffic_counts_so_that_one_step_is_enough_however_long_replicas_take_to_start() -> None:
    deployment = plant(start_up_s=300)
    history = targets(deployment, chain(seconds(QUIET, 30), seconds(BUSY, 900)))
    assert max(history) == history[-1] == ENOUGH


def test_a_ramp_is_followed_without_a_step_back() -> None:
    deployment = plant(start_up_s=10)
    history = targets(deployment, (QUIET + (BUSY - QUIET) * second / 300 for second in range(300)))
    assert turns(history) == 0
    assert history[-1] == ENOUGH
    assert all(after - before <= 1 for before, after in pairwise(history))


def test_a_need_by_a_hair_is_none() -> None:
    assert set(targets(plant(), seconds(0.7 * 1.09, 300))) == {1}
    assert targets(plant(), seconds(0.7 * 1.11, 300))[-1] == 2


def test_a_device_that_is_full_needs_help_whatever_the_learned_times_say() -> None:
    controller = Controller(BatchingAware(), config(), target=1)
    loads = {"demand": {"a": 0.1}, "full": {"a": 0.95}, "loop": {"a": 0.1}, "delay": {"a": 0.5}}
    assert [controller.decide(float(second), 1, loads, 1.0) for second in range(10)][-1] == 2


def test_a_replica_whose_event_loop_is_at_its_end_needs_help_though_its_device_idles() -> None:
    controller = Controller(BatchingAware(), config(), target=1)
    loads = {"demand": {"a": 0.3}, "full": {"a": 0.0}, "loop": {"a": 0.95}, "delay": {"a": 0.1}}
    assert [controller.decide(float(second), 1, loads, 1.0) for second in range(10)][-1] == 2


def slow(names: str) -> dict[str, dict[str, float]]:
    """Replicas whose decoding is slower than the device: that idles, and yet everybody waits."""
    return {
        name: dict.fromkeys(names, value)
        for name, value in (("demand", 0.1), ("full", 0.0), ("loop", 0.1), ("delay", 0.9))
    }


def test_a_queue_that_stays_too_long_adds_one_at_a_time_each_when_the_last_is_there() -> None:
    controller = Controller(BatchingAware(patience_s=10), config(), target=1)
    assert [controller.decide(float(second), 1, slow("a"), 1.0) for second in range(10)] == [1] * 10
    assert [controller.decide(10.0 + second, 1, slow("a"), 1.0) for second in range(60)] == [2] * 60
    assert [controller.decide(70.0 + second, 2, slow("ab"), 1.0) for second in range(LOOK_BACK_S)] == [2] * LOOK_BACK_S
    assert controller.decide(70.0 + LOOK_BACK_S, 2, slow("ab"), 1.0) == 3


def test_what_is_on_its_way_counts_as_help_for_the_queue() -> None:
    controller = Controller(BatchingAware(patience_s=10), config(max_replicas=20), target=9)
    assert {controller.decide(float(second), 8, slow("abcdefgh"), 1.0) for second in range(120)} == {9}


def test_a_burst_may_make_the_queue_long() -> None:
    controller = Controller(BatchingAware(patience_s=10), config(), target=1)
    short = slow("a") | {"delay": {"a": 0.1}}
    loads = [short if second % 8 == 0 else slow("a") for second in range(120)]
    assert {controller.decide(float(second), 1, one, 1.0) for second, one in enumerate(loads)} == {1}


def test_one_replica_that_hangs_among_others_does_not_count_for_all() -> None:
    controller = Controller(BatchingAware(), config(), target=3)
    loads = {name: dict.fromkeys("abc", 0.3) for name in ("demand", "full", "loop", "delay")}
    loads["delay"]["a"] = 30.0
    assert {controller.decide(float(second), 3, loads, 1.0) for second in range(30)} == {3}


def test_traffic_that_moves_to_a_new_replica_is_not_counted_twice() -> None:
    """For a moment the old one's mean is of before, the new one's of after."""
    controller = Controller(BatchingAware(), config(), target=2)
    alone = {"demand": {"a": 1.2}, "full": {"a": 0.9}, "loop": {"a": 0.1}, "delay": {"a": 0.5}}
    moving = {
        "demand": {"a": 1.2, "b": 0.6},
        "full": {"a": 0.9, "b": 0.0},
        "loop": {"a": 0.1, "b": 0.1},
        "delay": {"a": 0.5, "b": 0.1},
    }
    for second in range(10):
        assert controller.decide(float(second), 1, alone, 1.0) == 2
    assert [controller.decide(10.0 + second, 2, moving, 1.0) for second in range(3)] == [2, 2, 2]


# --- down --------------------------------------------------------------------------------------------


def test_a_spike_and_its_fall_are_one_way_up_and_one_down() -> None:
    deployment = plant()
    history = targets(deployment, chain(seconds(QUIET, 30), seconds(BUSY, 10), seconds(QUIET, 300)))
    assert max(history) == ENOUGH
    assert turns(history) == 1
    assert history[-1] == 1


def test_nothing_is_given_up_until_it_has_been_calm_for_a_while() -> None:
    deployment = plant(calm_s=45)
    targets(deployment, seconds(BUSY, 60))
    history = targets(deployment, seconds(QUIET, 90))
    assert set(history[:45]) == {ENOUGH}
    assert turns(history) == 0
    assert history[-1] == 1


def test_bursts_that_come_again_within_the_calm_keep_what_they_need() -> None:
    deployment = plant(start_up_s=5)
    waves = chain.from_iterable(chain(seconds(BUSY, 10), seconds(QUIET, 40)) for _ in range(10))
    history = targets(deployment, waves)
    assert turns(history) == 0
    assert history[-1] == ENOUGH


def test_random_arrivals_at_a_steady_rate_never_turn_it() -> None:
    rates = np.random.default_rng(3).poisson(30, 1800) / 30  # 30 a second, one device's worth at the mean
    deployment = plant()
    targets(deployment, rates[:300])
    assert turns(targets(deployment, rates[300:])) <= 1


def test_a_need_at_the_edge_gives_up_nothing() -> None:
    """Of one device, 0.68 to 0.75 of the time: little enough for one, too much for a second to go."""
    deployment = plant(running=2)
    assert set(targets(deployment, seconds(0.68, 600))) == {2}
    assert set(targets(plant(), seconds(0.75, 600))) == {1}


def test_chance_at_a_low_rate_seldom_holds_anything_back() -> None:
    """8 requests a second, half of what one device bears: three seconds of them vary by a fifth."""
    last = [targets(plant(running=2), np.random.default_rng(seed).poisson(8, 300) / 16)[-1] for seed in range(10)]
    assert last.count(1) >= 7  # 4 of them by the three seconds alone


def test_what_was_there_at_first_is_not_given_up_before_anything_is_known() -> None:
    deployment = plant(running=4)
    history = targets(deployment, seconds(QUIET, 120))
    assert set(history[:60]) == {4}
    assert history[-1] == 1


# --- bounds, nothing, and too little known -----------------------------------------------------------


def test_bounds_are_rays() -> None:
    assert targets(plant(), seconds(50.0, 60))[-1] == MAX_REPLICAS
    assert targets(plant(min_replicas=3, running=3), seconds(0.0, 300))[-1] == 3


def test_to_zero_and_back_where_that_is_allowed() -> None:
    deployment = plant(min_replicas=0, calm_s=60)
    history = targets(deployment, chain(seconds(QUIET, 30), seconds(0.0, 100)))
    assert set(history[:85]) == {1}
    assert history[-1] == 0
    assert deployment.running == 0
    assert targets(deployment, seconds(0.01, 1)) == [1]


def test_a_trickle_keeps_one() -> None:
    trickle = chain.from_iterable((0.001, *repeat(0.0, 29)) for _ in range(20))
    assert set(targets(plant(min_replicas=0), trickle)) == {1}


def idle(names: str) -> dict[str, dict[str, float]]:
    """But for the event loop, which is never quite without work."""
    return {name: dict.fromkeys(names, 0.0) for name in ("demand", "full", "delay")} | {
        "loop": dict.fromkeys(names, 0.03)
    }


def test_while_no_replica_speaks_the_target_stays_and_that_is_no_calm() -> None:
    controller = Controller(BatchingAware(), config(), target=3)
    assert controller.decide(0.0, 3, idle("abc")) == 3
    assert [controller.decide(float(second), 3, {}) for second in range(1, 200)] == [3] * 199
    assert controller.decide(200.0, 3, idle("abc")) == 3
    assert controller.decide(261.0, 3, idle("abc")) == 1


def test_a_request_that_is_inside_keeps_a_replica_though_nothing_new_comes() -> None:
    controller = Controller(BatchingAware(calm_s=5), config(min_replicas=0), target=1)
    assert [controller.decide(float(second), 1, idle("a"), 1.0) for second in range(30)] == [1] * 30
    assert [controller.decide(30.0 + second, 1, idle("a")) for second in range(30)][-1] == 0


def test_a_setting_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="target"):
        BatchingAware(target=0.5)
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        BatchingAware(target_demand=1.5)


def test_ray_takes_the_policy_by_its_path_with_its_settings_and_carries_it_by_value() -> None:
    policy = config(
        policy={"policy_function": "serve_app.autoscaling:BatchingAware", "policy_kwargs": {"calm_s": 5}}
    ).policy
    carried = policy.get_policy()(**policy.policy_kwargs)
    deployment = plant()
    deployment.controller.policy = carried
    history = targets(deployment, chain(seconds(BUSY, 30), seconds(QUIET, 30)))
    assert max(history) == ENOUGH
    assert history[-1] == 1
