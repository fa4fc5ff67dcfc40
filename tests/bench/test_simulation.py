import pytest

from serve_app.bench.simulation import MARGIN, MAX_UTILISATION, Replica, highest_rate, simulate
from tests.bench import made_up

DECODE_MS = 3.0
ALONE_MS = DECODE_MS + made_up.CPU_LIKE[1] + made_up.HTTP_MS


def replica(device_ms: dict[int, float] = made_up.CPU_LIKE, sharing: int = 1) -> Replica:
    return Replica(made_up.times(device_ms, DECODE_MS), num_threads=4, sharing=sharing)


def test_a_lone_request_takes_decode_device_and_http() -> None:
    outcome = simulate(replica(), max_batch_size=16, rate_per_s=1.0)
    assert outcome.p50_ms == pytest.approx(ALONE_MS)
    assert outcome.mean_batch == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.8])
def test_one_at_a_time_it_is_the_queue_of_the_textbook(utilisation: float) -> None:
    """M/D/1: the mean wait is utilisation x service time / 2 (1 - utilisation)."""
    service_ms = 10.0
    rate = utilisation / service_ms * 1e3
    outcome = simulate(replica({1: service_ms}), max_batch_size=1, rate_per_s=rate)
    wait_ms = utilisation * service_ms / (2 * (1 - utilisation))
    expected_ongoing = rate * (DECODE_MS + wait_ms + service_ms + made_up.HTTP_MS) / 1e3
    assert outcome.mean_ongoing == pytest.approx(expected_ongoing, rel=0.07)


def test_batches_grow_with_the_rate_and_end_at_the_maximum() -> None:
    outcomes = [simulate(replica(), max_batch_size=8, rate_per_s=rate) for rate in (10, 80, 160, 1000)]
    sizes = [outcome.mean_batch for outcome in outcomes]
    assert sizes == sorted(sizes)
    assert sizes[0] < 1.2
    assert sizes[-1] == pytest.approx(8.0, rel=0.01)
    assert outcomes[-1].p99_ms > 1000


def test_decode_threads_are_a_limit_of_their_own() -> None:
    slow_decode = made_up.times({1: 1.0, 16: 1.0}, decode_ms=10.0)
    one, four = (simulate(Replica(slow_decode, threads), 16, rate_per_s=150.0) for threads in (1, 4))
    assert one.p99_ms > 1000 > four.p99_ms
    assert Replica(slow_decode, 1).capacity_per_s(16) == pytest.approx(100.0)
    assert Replica(slow_decode, 4).capacity_per_s(16) == pytest.approx(400.0)


@pytest.mark.parametrize("max_batch_size", made_up.CPU_LIKE)
@pytest.mark.parametrize("p99_ms", [60.0, 100.0, 250.0])
def test_the_highest_rate_keeps_its_margins_and_a_higher_one_would_not(max_batch_size: int, p99_ms: float) -> None:
    outcome = highest_rate(replica(), max_batch_size, p99_ms)
    assert outcome is not None
    assert outcome.p99_ms <= p99_ms * MARGIN
    limit = replica().capacity_per_s(max_batch_size) * MAX_UTILISATION
    assert outcome.rate_per_s <= limit
    higher = simulate(replica(), max_batch_size, outcome.rate_per_s * 1.05)
    assert higher.p99_ms > p99_ms * MARGIN or higher.rate_per_s > limit


def test_it_says_what_ends_the_rate() -> None:
    def limit(p99_ms: float, most_per_s: float = 2000.0, num_threads: int = 4, decode_ms: float = DECODE_MS) -> str:
        times = made_up.times(decode_ms=decode_ms, most_per_s=most_per_s)
        outcome = highest_rate(Replica(times, num_threads), 16, p99_ms)
        assert outcome is not None
        return outcome.limit

    assert limit(60.0) == "bound"
    assert limit(5000.0) == "device"
    assert limit(5000.0, most_per_s=50.0) == "process"
    assert limit(5000.0, num_threads=1, decode_ms=10.0) == "decode"


def test_no_rate_holds_a_bound_below_one_image() -> None:
    assert highest_rate(replica(), 16, ALONE_MS) is None


def test_a_device_slower_than_one_request_a_second_ends_too() -> None:
    assert highest_rate(replica({1: 3000.0}), 1, p99_ms=10_000.0) is None


def test_a_shared_device_may_be_busy_with_the_others() -> None:
    assert replica(sharing=2).batch_ms(8) == 2 * replica().batch_ms(8)
    assert replica(sharing=2).capacity_per_s(8) == pytest.approx(replica().capacity_per_s(8) / 2)


def test_one_process_answers_only_so_many() -> None:
    assert Replica(made_up.times({1: 0.01}, most_per_s=1234.0), 8).capacity_per_s(1) == 1234.0
