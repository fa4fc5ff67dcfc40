import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from serve_app.config import (
    Args,
    ConfigError,
    Stub,
    UserConfig,
    default_buckets,
    max_ongoing_requests,
    max_queued_requests,
    parse_user_config,
    resolve_num_threads,
    validation_lines,
)

LARGEST = 1024


def lines_of(model: type[BaseModel], raw: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(raw)
    return validation_lines(refused.value)


@pytest.mark.parametrize("model", [Args, UserConfig, Stub])
def test_an_unknown_key_is_refused_by_name(model: type[BaseModel]) -> None:
    assert lines_of(model, {"max_batch_sizes": 8}).startswith("max_batch_sizes: ")


def test_an_unknown_key_within_a_key_is_named_with_its_path() -> None:
    assert lines_of(Args, {"stub": {"base": 1}}).startswith("stub.base: ")


@pytest.mark.parametrize("model", [Args, UserConfig, Stub])
def test_settings_cannot_be_changed_after_the_fact(model: type[BaseModel]) -> None:
    settings = model()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, next(iter(model.model_fields)), None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights", ""),
        ("fallback_weights", "DEFAULT"),
        ("weights_sha256", ""),
        ("weights_sha256", "0" * 63),
        ("weights_sha256", "X" * 64),
        ("model_name", ""),
        ("model_name", "a/b"),
        ("model_name", ".hidden"),
        ("model_name", "a" * 65),
        ("model_name", "name\n"),
        ("device", "gpu"),
        ("precision", "fp16"),
        ("decode", "tpu"),
        ("num_threads", 0),
        ("num_threads", 1025),
        ("num_threads", "some"),
        ("max_image_bytes", 0),
        ("max_image_pixels", 0),
        ("max_images", 0),
        ("max_top_k", 0),
        ("max_top_k", 1001),
        ("stub", {"base_ms": -1}),
    ],
)
def test_an_argument_out_of_range_is_refused_by_name(key: str, value: object) -> None:
    assert lines_of(Args, {key: value}).startswith(key)


def test_what_the_gpu_decodes_has_no_processes() -> None:
    assert Args(decode="gpu").decode_in == "threads"
    refused = lines_of(Args, {"decode": "gpu", "decode_in": "processes"})
    assert refused == (
        "settings: Value error, decode_in: processes confines what the CPU decodes, and with decode: gpu it would not: "
        "set decode: cpu, or decode_in: threads"
    )


def test_weights_of_one_hash_have_no_fallback() -> None:
    assert "drop fallback_weights" in lines_of(Args, {"weights_sha256": "0" * 64, "fallback_weights": "bundled"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_batch_size", 0),
        ("max_batch_size", 1025),
        ("max_batch_size", 1.5),
        ("max_batch_size", "many"),
        ("max_batch_size", None),
        ("batch_wait_timeout_s", -0.1),
        ("batch_wait_timeout_s", 61),
        ("batch_wait_timeout_s", float("nan")),
        ("top_k", 0),
        ("top_k", 1001),
    ],
)
def test_a_user_setting_out_of_range_is_refused_by_name(key: str, value: object) -> None:
    assert lines_of(UserConfig, {key: value}).startswith(key)


def test_a_request_limit_below_the_image_limit_is_refused_with_both_and_the_fix() -> None:
    lines = lines_of(Args, {"max_image_bytes": 100, "max_request_bytes": 99})
    assert "max_request_bytes (99) is below max_image_bytes (100): raise max_request_bytes or lower" in lines


def test_a_request_may_be_as_large_as_one_image() -> None:
    assert Args(max_image_bytes=100, max_request_bytes=100).max_request_bytes == 100


@given(st.integers(1, 1024))
def test_a_replica_takes_its_queue_and_two_full_batches_so_that_admission_sees_every_request(
    max_batch_size: int,
) -> None:
    queue_size = UserConfig(max_batch_size=max_batch_size).queue_size
    assert queue_size + 2 * max_batch_size <= max_ongoing_requests(max_batch_size)
    assert max_queued_requests(max_batch_size) > 0


def test_the_default_top_k_is_within_the_default_limit() -> None:
    assert UserConfig().top_k <= Args().max_top_k


@given(st.floats(1, 256), st.integers(1, 256))
def test_replicas_times_threads_fit_the_cores(num_cpus: float, cores: int) -> None:
    replicas = int(cores // num_cpus)
    assert replicas * resolve_num_threads(None, num_cpus, cores) <= cores


@given(st.none() | st.just("all"), st.floats(0, 256), st.integers(0, 256))
def test_there_is_always_a_thread(requested: str | None, num_cpus: float, cores: int) -> None:
    assert resolve_num_threads(requested, num_cpus, cores) >= 1


@pytest.mark.parametrize(
    ("requested", "num_cpus", "cores", "threads"),
    [
        (None, 0, 8, 1),
        (None, 0.5, 8, 1),
        (None, 2, 8, 2),
        (None, 2.9, 8, 2),
        (None, 16, 8, 8),
        ("all", 1, 8, 8),
        (3, 1, 8, 3),
    ],
)
def test_threads_follow_the_reserved_cpus_unless_a_number_is_given(
    requested: int | str | None, num_cpus: float, cores: int, threads: int
) -> None:
    assert resolve_num_threads(requested, num_cpus, cores) == threads


@pytest.mark.parametrize("raw", [None, {}])
def test_no_user_config_means_the_defaults(raw: dict[str, Any] | None) -> None:
    assert parse_user_config(raw) == UserConfig()


def test_a_user_config_keeps_its_values() -> None:
    assert parse_user_config({"max_batch_size": 3, "top_k": 2}) == UserConfig(max_batch_size=3, top_k=2)


def test_every_wrong_key_of_a_user_config_is_named_in_one_message() -> None:
    with pytest.raises(ConfigError, match=r"^user_config: max_batch_size: .+; topk: .+$"):
        parse_user_config({"max_batch_size": 0, "topk": 1})


def test_a_message_has_neither_urls_nor_class_names() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_user_config({"max_batch_size": "x", "topk": 1})
    assert not re.search(r"https?://|UserConfig|pydantic", str(refused.value))


# --- buckets -------------------------------------------------------------------------------------


@given(st.integers(1, LARGEST))
def test_default_buckets_are_sorted_unique_and_end_in_the_maximum(max_batch_size: int) -> None:
    sizes = default_buckets(max_batch_size)
    assert list(sizes) == sorted(set(sizes))
    assert sizes[-1] == max_batch_size
    assert sizes[0] == 1


@given(max_batch_size=st.integers(1, LARGEST), size=st.integers(1, LARGEST))
def test_padding_adds_less_than_an_eighth(max_batch_size: int, size: int) -> None:
    size = min(size, max_batch_size)
    bucket = next(bucket for bucket in default_buckets(max_batch_size) if bucket >= size)
    assert bucket == size or (size > 16 and bucket - size < size / 8)


def test_eight_buckets_per_doubling() -> None:
    assert default_buckets(64)[16:] == (18, 20, 22, 24, 26, 28, 30, 32, 36, 40, 44, 48, 52, 56, 60, 64)


def test_buckets_may_be_set() -> None:
    assert UserConfig(max_batch_size=8, batch_buckets=(2, 8)).buckets() == (2, 8)
    assert UserConfig(max_batch_size=3).buckets() == (1, 2, 3)


@pytest.mark.parametrize("wrong", [[], [4], [8, 4], [4, 4, 8], [4, 8, 16], [0, 8], ["4", "x"], 8])
def test_buckets_that_could_not_hold_a_full_batch_are_refused(wrong: Any) -> None:
    assert "batch_buckets" in lines_of(UserConfig, {"max_batch_size": 8, "batch_buckets": wrong})
