"""Batching and isolation on a real Ray Serve instance, over HTTP, in both proxy modes."""

from collections.abc import Iterator

import pytest

from tests.serve.service import Service, config, running, statuses

MAX_BATCH_SIZE = 16
# A batch takes a second, so that a slow machine too has decoded all images before the second batch.


@pytest.fixture(scope="module", params=["1", "0"], ids=["haproxy", "ordinary proxy"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    content = config(
        {"device": "stub", "stub": {"base_ms": 1000, "per_image_ms": 0}},
        max_ongoing_requests=4 * MAX_BATCH_SIZE,
        user_config={"max_batch_size": MAX_BATCH_SIZE, "batch_buckets": [1, MAX_BATCH_SIZE]},  # each is warmed
    )
    with running(content, RAY_SERVE_ENABLE_HA_PROXY=request.param) as running_service:
        yield running_service


def test_each_of_64_concurrent_callers_gets_its_own_answer_from_full_batches(
    service: Service, samples: dict[int, bytes]
) -> None:
    alone = {digit: _classes(service.post(image)) for digit, image in samples.items()}
    assert len({str(classes) for classes in alone.values()}) > 1

    digits = [i % 10 for i in range(64)]
    answers = service.post(*(samples[digit] for digit in digits))

    assert [_classes([answer]) for answer in answers] == [alone[digit] for digit in digits]
    images = service.settled_metric("serve_actual_batch_size_sum", 10 + 64)
    assert images == 10 + 64
    assert 64 / (service.metric("serve_actual_batch_size_count") - 10) >= 12


def test_a_truncated_image_among_63_good_ones_fails_alone(service: Service, samples: dict[int, bytes]) -> None:
    images = [samples[i % 10] for i in range(63)]
    images.insert(17, samples[3][:500])

    answers = service.post(*images)

    assert statuses(answers) == {200: 63, 422: 1}
    assert answers[17][1]["code"] == "unreadable_image"


def test_ready_lists_and_describes_the_model(service: Service) -> None:
    assert service.get("/v2/health/live") == (200, {"live": True})
    assert service.get("/v2/health/ready") == (200, {"ready": True})
    assert service.get("/v2/models") == (200, {"models": ["digits"]})
    status, model = service.get("/v2/models/digits")
    assert status == 200
    assert (model["arch"], model["weights"], model["num_classes"]) == ("resnet10_narrow", "bundled", 10)


def _classes(answers: list[tuple[int, dict[str, object]]]) -> object:
    [(status, body)] = answers
    assert status == 200, body
    images = body["images"]
    assert isinstance(images, list)
    return images[0]["classes"]
