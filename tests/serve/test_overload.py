"""More than the device can do, on a real Ray Serve instance: what each client receives, in both proxy modes."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.serve.service import Received, Sent, Service, config, running

MAX_BATCH_SIZE = 4
BATCH_S = 0.4
CAPACITY_PER_S = MAX_BATCH_SIZE / BATCH_S
OBJECTIVE_S = 2.0
BOTH = pytest.mark.parametrize("service", ["1", "0"], ids=["haproxy", "ordinary proxy"], indirect=True)


@pytest.fixture(scope="module")
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    content = slow(latency_slo_ms=1e3 * OBJECTIVE_S, max_queue_size=60)
    with running(content, RAY_SERVE_ENABLE_HA_PROXY=request.param) as running_service:
        yield running_service


def slow(*, max_ongoing_requests: int = 128, max_queued_requests: int = 64, **user_config: Any) -> dict[str, Any]:
    """A device that takes 0.4 s for any batch of at most 4."""
    return config(
        {"device": "stub", "stub": {"base_ms": 1e3 * BATCH_S, "per_image_ms": 0}},
        max_ongoing_requests=max_ongoing_requests,
        max_queued_requests=max_queued_requests,
        user_config={"max_batch_size": MAX_BATCH_SIZE, **user_config},
    )


def refusals(answers: Sequence[Received]) -> list[Received]:
    return [answer for answer in answers if answer.status == 503]


@BOTH
def test_what_cannot_be_in_time_is_refused_at_the_door_and_told_when_to_come_back(
    service: Service, samples: dict[int, bytes]
) -> None:
    answers = service.send(*[Sent(samples[i % 10]) for i in range(60)])

    # Who was let in and then could not be in time after all, as decoding 60 at once is not foreseen, gets a 504.
    assert set(Counter((a.status, a.code) for a in answers)) <= {
        (200, None),
        (503, "overloaded"),
        (504, "deadline_exceeded"),
    }
    assert 0 < sum(a.status == 200 for a in answers) <= OBJECTIVE_S * CAPACITY_PER_S
    assert refusals(answers)
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refusals(answers))


@BOTH
def test_an_idle_device_refuses_what_it_is_too_slow_for(service: Service, samples: dict[int, bytes]) -> None:
    assert service.send(Sent(samples[7]))[0].status == 200  # from here on it knows its time
    [answer] = service.send(Sent(samples[7], {"X-Request-Timeout-Seconds": "0.1"}))
    assert (answer.status, answer.code) == (503, "overloaded")
    assert "allow more time" in answer.body["error"]


@BOTH
def test_who_is_refused_while_sending_can_go_on_with_the_connection(
    service: Service, samples: dict[int, bytes]
) -> None:
    assert service.send(Sent(samples[7]))[0].status == 200
    client = HTTPConnection(service.url.removeprefix("http://"), timeout=30)
    for i in range(5):
        headers = {"X-Request-Timeout-Seconds": "0.1", "X-Request-ID": f"try-{i}"}
        client.request("POST", "/v1/classify", bytes(2_000_000), headers)
        answer = client.getresponse()
        assert (answer.status, answer.headers["X-Request-ID"]) == (503, f"try-{i}")
        assert json.loads(answer.read())["code"] == "overloaded"
        client.request("POST", "/v1/classify", samples[7])
        answer = client.getresponse()
        assert (answer.status, len(json.loads(answer.read())["images"])) == (200, 1)


@BOTH
def test_a_client_with_more_time_is_let_in_where_others_are_refused(
    service: Service, samples: dict[int, bytes]
) -> None:
    patient = {"X-Request-Timeout-Seconds": "25"}
    answers = service.send(*[Sent(samples[7], patient) for _ in range(40)], *[Sent(samples[7]) for _ in range(20)])
    assert {answer.status for answer in answers[:40]} == {200}


@BOTH
def test_the_lower_priority_has_no_objective_and_is_answered_all_the_same(
    service: Service, samples: dict[int, bytes]
) -> None:
    answers = service.send(
        *[Sent(samples[i % 10], {"X-Request-Priority": "batch"}) for i in range(24)],
        *[Sent(samples[i % 10]) for i in range(16)],
    )
    assert {answer.status for answer in answers[:24]} == {200}


@BOTH
@pytest.mark.parametrize(
    ("name", "value"),
    [("X-Request-Timeout-Seconds", "soon"), ("X-Request-Timeout-Seconds", "0"), ("X-Request-Priority", "highest")],
)
def test_a_header_that_says_nothing_is_named(
    service: Service, samples: dict[int, bytes], name: str, value: str
) -> None:
    [answer] = service.send(Sent(samples[7], {name: value}))
    assert (answer.status, answer.code) == (400, "bad_parameter")
    assert name.lower() in answer.body["error"]


@BOTH
def test_what_happens_at_the_door_and_in_the_queue_is_counted(service: Service) -> None:
    assert service.settled_metric("serve_app_refused_images_total", at_least=1) > 0
    assert service.settled_metric("serve_app_queue_time_ms_count", at_least=1) > 0
    actual_ms = service.settled_metric("serve_app_batch_actual_ms_total", at_least=1e3 * BATCH_S)
    assert service.metric("serve_app_batch_predicted_ms_total") == pytest.approx(actual_ms, rel=0.5)
    assert service.settled_metric("serve_app_batch_time_ms", at_least=1e3 * BATCH_S) > 0


@BOTH
def test_a_queue_is_bounded_whatever_the_deadlines(service: Service, samples: dict[int, bytes]) -> None:
    patient = {"X-Request-Timeout-Seconds": "25"}
    answers = service.send(*[Sent(samples[i % 10], patient) for i in range(90)])
    assert set(Counter((a.status, a.code) for a in answers)) == {(200, None), (503, "queue_full")}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refusals(answers))


@pytest.mark.parametrize("proxy", ["1", "0"], ids=["haproxy", "ordinary proxy"])
def test_ray_itself_refuses_in_the_same_words(proxy: str, samples: dict[int, bytes]) -> None:
    with running(slow(max_ongoing_requests=4, max_queued_requests=2), RAY_SERVE_ENABLE_HA_PROXY=proxy) as service:
        answers = service.send(*[Sent(samples[i % 10]) for i in range(30)])
        assert set(Counter((a.status, a.code) for a in answers)) == {(200, None), (503, "queue_full")}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refusals(answers))


def test_a_second_replica_takes_what_comes_and_the_first_keeps_its_backlog(samples: dict[int, bytes]) -> None:
    content = slow(max_queue_size=64)
    content["applications"][0]["deployments"][0]["ray_actor_options"] = {"num_cpus": 0.5}
    with running(content) as service:
        first = service.send(Sent(samples[7]))[0].body["replica"]
        content["applications"][0]["deployments"][0]["num_replicas"] = 2
        service.deploy(content)
        seen: Counter[str] = Counter()
        for _ in range(60):  # under a backlog all the time, until the second one answers
            answers = service.send(*[Sent(samples[i % 10]) for i in range(32)])
            assert {answer.status for answer in answers} == {200}
            seen = Counter(answer.body["replica"] for answer in answers)
            if len(seen) == 2:
                break
        assert len(seen) == 2
        assert first in seen
