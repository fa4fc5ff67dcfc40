import numpy as np
import pytest

from serve_app.bench.samples import Samples
from serve_app.bench.times import times
from tests.bench import made_up

NAN = float("nan")


def samples(rows: list[tuple[str, float, float, float]], http_ms: float = 2.0) -> Samples:
    """Rows of status, batch size, decode ms, device ms; the queue takes 1 ms."""
    stages = np.array([(decode, 1.0, device) for _, _, decode, device in rows])
    sent = np.arange(len(rows), dtype=float)
    return Samples(
        intended_s=sent,
        sent_s=sent,
        done_s=sent + (stages.sum(axis=1) + http_ms) / 1e3,
        status=np.array([status for status, *_ in rows]),
        batch_size=np.array([size for _, size, *_ in rows]),
        stages_ms=stages,
        deadline_ms=np.full(len(rows), NAN),
        retry_after=np.zeros(len(rows), np.bool_),
    )


ALONE = samples([("200", 1.0, 3.0, 10.0)] * 5)


def test_executions_are_told_by_size() -> None:
    found = times(ALONE, [samples([("200", 2.0, 4.0, 15.0)] * 8)], most_per_s=50.0)
    assert {size: len(ms) for size, ms in found.device_ms.items()} == {1: 5, 2: 8}
    assert [found.batch_ms(size) for size in (1, 2, 3)] == [10.0, 15.0, 15.0]
    assert found.http_ms == pytest.approx(2.0)
    assert set(found.decode_ms) == {3.0}


def test_failures_and_answers_that_tell_nothing_are_no_times() -> None:
    others = [("503", NAN, NAN, NAN), ("200", NAN, NAN, NAN)] * 5
    assert times(ALONE, [samples(others)], 50.0).device_ms.keys() == {1}
    with pytest.raises(ValueError, match="no answer"):
        times(samples(others), [], 50.0)


def test_a_loop_speaks_for_the_size_it_settled_at() -> None:
    loop = samples([("200", 1.0, 3.0, 99.0)] * 4 + [("200", 4.0, 3.0, 30.0)] * 16)
    found = times(ALONE, [samples([("200", 2.0, 3.0, 15.0)] * 8)] * 2 + [loop], 50.0)
    assert (found.batch_ms(1), found.batch_ms(4)) == (10.0, 30.0)


def test_a_lone_image_is_timed_beside_another_that_is_decoded() -> None:
    two_at_once = samples([("200", 1.0, 3.0, 12.0)] * 4 + [("200", 2.0, 3.0, 15.0)] * 8)
    assert times(ALONE, [two_at_once], 50.0).batch_ms(1) == 12.0
    four_at_once = samples([("200", 1.0, 3.0, 14.0)] * 4 + [("200", 4.0, 3.0, 30.0)] * 16)
    assert times(ALONE, [two_at_once, four_at_once], 50.0).batch_ms(1) == 14.0
    hardly_ever = samples([("200", 1.0, 3.0, 12.0)] * 2 + [("200", 2.0, 3.0, 15.0)] * 8)
    assert times(ALONE, [hardly_ever], 50.0).batch_ms(1) == 10.0


def test_decode_is_told_by_the_loop_in_which_nobody_waits_for_a_thread() -> None:
    found = times(ALONE, [samples([("200", 4.0, 60.0, 30.0)] * 16)], 50.0)
    assert set(found.decode_ms) == {3.0}


def test_a_device_too_slow_to_be_timed_is_said_to_be() -> None:
    with pytest.raises(ValueError, match="too few"):
        times(samples([("200", 1.0, 3.0, 9000.0)] * 2), [], 0.2)


def test_a_size_that_was_hardly_seen_is_left_out() -> None:
    assert 4 not in times(ALONE, [samples([("200", 4.0, 3.0, 900.0)] * 8)], 50.0).device_ms


def test_a_larger_batch_is_never_quicker() -> None:
    assert made_up.times({1: 9.0, 2: 8.0, 4: 20.0}).batch_ms(2) == 9.0


def test_jitter_is_relative_to_each_size() -> None:
    found = times(ALONE, [samples([("200", 2.0, 3.0, ms) for ms in (10.0, 20.0, 20.0, 20.0, 20.0, 60.0)])], 50.0)
    assert sorted(set(found.jitter())) == [0.5, 1.0, 3.0]
