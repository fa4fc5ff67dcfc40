import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serve_app.bench import forward, isolated
from serve_app.bench.forward import Curve, Lesson, Setup, curve, doublings, lesson, stages, timed_ms
from serve_app.bench.isolated import Died
from serve_app.config import Args, ConfigError
from serve_app.decode import Decoder, Pixels
from serve_app.engine import Engine
from serve_app.engine.base import STAGES

NUM_CLASSES = 10
SIGKILL = 9
MEBIBYTE = 1 << 20
DIGITS = Setup("resnet10_narrow", "cpu", "fp32", num_threads=2, weights="bundled")
NO_IMAGE = b"no image"
TIMES = st.dictionaries(
    st.integers(1, 1024), st.lists(st.floats(0.1, 1000), min_size=1, max_size=3), min_size=1, max_size=8
)


@pytest.fixture
def _measured_here_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has torch already, and each figure once: it is not the times that are looked at."""
    monkeypatch.setattr(isolated, "stream", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(forward, "timed_ms", partial(timed_ms, min_measure_s=0))


@pytest.fixture
def digits(samples: dict[int, bytes]) -> list[Pixels]:
    """The samples 0 to 9, decoded."""
    decoder = Decoder(DIGITS.checkpoint().spec.geometry, Args().max_image_pixels)
    return [decoder(samples[digit]) for digit in range(NUM_CLASSES)]


def created(how: str, precision: str = "fp32", *sizes: int) -> Engine:
    engine = replace(DIGITS, engine=how, precision=precision).create(top_k=NUM_CLASSES)  # type: ignore[arg-type]
    for size in sizes:
        engine.warm_up(size)
    return engine


# --- a curve -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ms", "knee"),
    [
        ({1: 10, 2: 20, 4: 40}, 1),  # batching buys nothing
        ({1: 10, 2: 10, 4: 10}, 4),  # a batch is free
        ({1: 10, 2: 11, 4: 21, 8: 42}, 2),  # 100, 182, 190, 190 images/s: 2 is 4.5 % below the best
        ({1: 10, 2: 11.1, 4: 21, 8: 42}, 4),  # 100, 180, 190, 190 images/s: 2 is 5.4 % below
        ({1: 10, 2: 10, 4: 40}, 2),  # beyond the best it gets slower
    ],
)
def test_the_knee_is_the_smallest_batch_within_5_percent_of_the_best(ms: dict[int, float], knee: int) -> None:
    measured = Curve(times_ms={size: [time] for size, time in ms.items()})
    assert measured.knee == knee
    assert [row["batch_size"] for row in measured.rows() if row["knee"]] == [knee]


@given(TIMES)
def test_a_curve_is_made_of_medians_and_its_rows_ascend(times_ms: dict[int, list[float]]) -> None:
    measured = Curve(times_ms=times_ms)
    rows = measured.rows()
    assert [row["batch_size"] for row in rows] == sorted(times_ms)
    best = max(size / median(times) for size, times in times_ms.items())
    assert measured.knee / median(times_ms[measured.knee]) >= best * 0.95
    for row in rows:
        size, times = row["batch_size"], times_ms[row["batch_size"]]
        assert row["images_per_s"] == pytest.approx(size / median(times) * 1e3, abs=0.01)
        assert row["ms_per_batch"] == pytest.approx(median(times), abs=0.001)
        assert row["ms_per_batch_spread"] == pytest.approx([min(times), max(times)], abs=0.001)
        assert row["ms_per_image"] == pytest.approx(median(times) / size, abs=0.001)


def test_rows_are_json_and_end_in_the_size_that_did_not_fit() -> None:
    measured = Curve("fp32", {1: [10.0, 12.0, 11.0]}, {1: 3 * MEBIBYTE}, out_of_memory_at=2)
    fitted, failed = measured.rows()
    assert json.loads(json.dumps([fitted, failed])) == [fitted, failed]
    assert fitted.keys() == failed.keys()
    assert (fitted["peak_memory_mib"], fitted["knee"], fitted["error"]) == (3, True, None)
    assert (failed["batch_size"], failed["images_per_s"], failed["error"]) == (2, None, "out of memory")


def test_a_curve_of_nothing_has_no_knee() -> None:
    assert [row["error"] for row in Curve(out_of_memory_at=1).rows()] == ["out of memory"]
    with pytest.raises(ValueError, match="empty"):
        _ = Curve().knee


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (64, [1, 2, 4, 8, 16, 32, 64])])
def test_sizes_double_up_to_the_largest(most: int, sizes: list[int]) -> None:
    assert doublings(most) == sizes


def test_timing_runs_at_least_once_and_as_often_as_it_takes() -> None:
    calls: list[None] = []
    assert timed_ms(lambda: calls.append(None), min_measure_s=0) > 0
    assert len(calls) == 1
    timed_ms(lambda: calls.append(None), min_measure_s=0.01)
    assert len(calls) > 2


# --- memory --------------------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_ends_the_curve_and_is_a_row() -> None:
    steps: list[int] = []
    limited = Setup("resnet18", "cpu", "fp32", num_threads=2, memory_limit_bytes=150 * MEBIBYTE)
    measured = curve(limited, [1, 64], repeats=2, on_step=steps.append)
    assert measured.precision == "fp32"
    assert measured.out_of_memory_at == 64
    assert {size: len(times) for size, times in measured.times_ms.items()} == {1: 2}
    assert steps == [1, 1]
    assert (measured.peak_bytes[1] or 0) > 40 * MEBIBYTE  # the weights alone are 45 MB
    assert [(row["batch_size"], row["error"]) for row in measured.rows()] == [(1, None), (64, "out of memory")]


def ending(*items: tuple[str, int, Any], exit_code: int) -> Callable[..., Iterator[tuple[str, int, Any]]]:
    """Instead of `isolated.stream`: a measurement that said that much when it ended."""

    def stream(*_: object) -> Iterator[tuple[str, int, Any]]:
        yield from items
        raise Died(exit_code)

    return stream


def test_a_process_killed_at_its_first_batch_is_a_curve_of_one_failed_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "stream", ending(exit_code=-SIGKILL))
    measured = curve(DIGITS, [4, 8], repeats=1)
    assert (measured.out_of_memory_at, measured.times_ms) == (4, {})
    assert [(row["batch_size"], row["knee"], row["error"]) for row in measured.rows()] == [(4, False, "out of memory")]


def test_a_process_killed_later_keeps_what_it_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    said: Sequence[tuple[str, int, Any]] = [
        ("precision", 0, "bf16"),
        ("trying", 1, None),
        ("peak", 1, MEBIBYTE),
        ("ms", 1, 10.0),
        ("trying", 2, None),
    ]
    monkeypatch.setattr(isolated, "stream", ending(*said, exit_code=-SIGKILL))
    assert curve(DIGITS, [1, 2], repeats=1) == Curve("bf16", {1: [10.0]}, {1: MEBIBYTE}, out_of_memory_at=2)


def test_a_process_that_ends_otherwise_is_no_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "stream", ending(("trying", 1, None), exit_code=1))
    with pytest.raises(Died):
        curve(DIGITS, [1], repeats=1)


# --- one by one and in batches -------------------------------------------------------------------


@pytest.mark.usefixtures("_measured_here_and_once")
def test_a_lesson_has_as_many_images_as_asked_for_though_some_files_are_none(samples: dict[int, bytes]) -> None:
    taught = lesson(DIGITS, [NO_IMAGE, samples[0], samples[1]], count=5, batch_size=2, repeats=2)
    assert (taught.count, taught.batch_size) == (5, 2)
    assert [len(times) for times in (taught.one_by_one_ms, taught.batched_ms)] == [2, 2]
    assert min(taught.one_by_one_ms + taught.batched_ms) > 0


def test_a_lesson_says_what_batching_bought() -> None:
    told = Lesson(100, 8, one_by_one_ms=[1000.0, 900.0, 5000.0], batched_ms=[250.0, 240.0, 260.0]).as_dict()
    assert json.loads(json.dumps(told)) == told
    assert (told["images"], told["one_by_one_images_per_s"], told["batched_images_per_s"]) == (100, 100, 400)
    assert told["speed_up"] == 4


def test_images_that_all_cannot_be_read_are_refused() -> None:
    with pytest.raises(ConfigError, match="none of the images can be read"):
        lesson(DIGITS, [NO_IMAGE, b""], count=2, batch_size=2, repeats=1)


@pytest.mark.usefixtures("_measured_here_and_once")
def test_stages_are_those_of_an_image_from_file_to_result(samples: dict[int, bytes]) -> None:
    measured = stages(DIGITS, [NO_IMAGE, *samples.values()], batch_size=2, repeats=2)
    assert list(measured) == ["decode", "resize", *STAGES]
    assert {stage: len(times) for stage, times in measured.items()} == dict.fromkeys(measured, 2)
    assert min(min(times) for times in measured.values()) > 0


# --- engines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, NUM_CLASSES])
def test_torchvisions_network_as_it_is_gives_what_the_engine_gives(digits: list[Pixels], batch_size: int) -> None:
    eager, engine = (created(how, "fp32", batch_size) for how in ("eager", "engine"))
    for start in range(0, NUM_CLASSES, batch_size):
        batch = digits[start : start + batch_size]
        for one, other in zip(eager.infer(batch), engine.infer(batch), strict=True):
            assert one.class_ids[0] == other.class_ids[0]
            np.testing.assert_allclose(_by_class(one), _by_class(other), atol=1e-5)
            assert one.batch_size == other.batch_size == len(batch)


def _by_class(prediction: Any) -> Any:
    return prediction.scores[np.argsort(prediction.class_ids)]


def test_in_bf16_it_computes_in_bf16_and_reads_the_digits(digits: list[Pixels]) -> None:
    eager, exact = (created("eager", precision, NUM_CLASSES) for precision in ("bf16", "fp32"))
    assert (eager.precision, eager.device) == ("bf16", "cpu")
    assert [int(prediction.class_ids[0]) for prediction in eager.infer(digits)] == list(range(NUM_CLASSES))
    rounded, full = (np.concatenate([p.scores for p in engine.infer(digits)]) for engine in (eager, exact))
    assert not np.array_equal(rounded, full)


@pytest.mark.parametrize("how", ["eager", "engine"])
def test_a_profile_has_every_stage_and_leaves_the_results_alone(digits: list[Pixels], how: str) -> None:
    engine = created(how, "fp32", 4)
    before = [prediction.class_ids.tolist() for prediction in engine.infer(digits[:3])]
    profile = engine.profile(digits[:3])
    assert tuple(profile) == STAGES
    assert min(profile.values()) > 0
    assert [prediction.class_ids.tolist() for prediction in engine.infer(digits[:3])] == before


def test_a_random_network_is_the_same_each_time_and_has_imagenets_shape() -> None:
    first, second = (forward.random_checkpoint("resnet10_narrow") for _ in range(2))
    assert first.spec.num_classes == len(first.spec.labels) == 1000
    assert first.spec.geometry.crop_size == 224
    assert all(torch.equal(tensor, second.state_dict[name]) for name, tensor in first.state_dict.items())
