"""Clients that leave, images that the device fails on, a device that hangs: on a real Ray Serve instance."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import aiohttp
import pytest

from tests.serve.images import image_of_class
from tests.serve.service import Received, Sent, Service, config, running

BOTH = pytest.mark.parametrize("proxy", ["1", "0"], ids=["haproxy", "ordinary proxy"])
POISON, HANG = 3, 4
RECOVERY_TIMEOUT_S = 120


@pytest.fixture(scope="module")
def image_of() -> Callable[[int], bytes]:
    """A PNG that the stub device puts into the given class."""
    return image_of_class


@BOTH
def test_of_clients_that_leave_while_they_wait_none_reaches_the_device(proxy: str, samples: dict[int, bytes]) -> None:
    content = config(
        {"device": "stub", "stub": {"base_ms": 2500, "per_image_ms": 0}},
        user_config={"max_batch_size": 32, "batch_buckets": [1, 32]},  # each is warmed
    )
    with running(content, RAY_SERVE_ENABLE_HA_PROXY=proxy) as service:
        # The first batch keeps the device busy for 2.5 s; half of those who come meanwhile leave after one.
        stay = [Sent(samples[i % 10]) for i in range(20)]
        leave = [Sent(samples[i % 10], leaves_after_s=1.0) for i in range(20)]
        first, *others = service.send(Sent(samples[7]), *stay, *leave)

        answered = [answer for answer in (first, *others) if answer.status == 200]
        assert len(answered) + others.count(Received(0)) == 41
        assert Counter(answer.status for answer in others[20:]) in ({0: 20}, {0: 19, 200: 1}, {0: 18, 200: 2})
        departed = service.settled_metric("serve_app_departed_images_total", at_least=1)
        executed = service.settled_metric("serve_actual_batch_size_sum", at_least=len(answered))
        # Who rode in the first batch before leaving was on the device before its departure was known.
        assert executed + departed == 41
        assert departed >= 20 - first_batch(answered)


def first_batch(answered: list[Received]) -> int:
    """Images that went to the device before anybody left."""
    early = [answer.body["images"][0] for answer in answered if answer.body["timings_ms"]["queue"] < 1e3]
    return max(int(image["batch_size"]) for image in early)


def test_images_that_the_device_fails_on_fail_alone(image_of: Callable[[int], bytes]) -> None:
    content = config(
        {"device": "stub", "stub": {"base_ms": 20, "per_image_ms": 0, "raise_on_class": POISON}},
        user_config={"max_batch_size": 16},
    )
    good, poison = image_of(1), image_of(POISON)
    with running(content) as service:
        images = [poison if i % 200 == 77 else good for i in range(400)]
        answers = [answer for i in range(0, 400, 100) for answer in service.send(*map(Sent, images[i : i + 100]))]
        assert [answer.status for answer in answers] == [500 if image == poison else 200 for image in images]
        assert {answer.code for answer in answers if answer.status == 500} == {"internal_error"}
        assert service.settled_metric("serve_app_batch_splits_total", at_least=1) >= 1
        assert len(service.replica_pids()) == 1


@BOTH
def test_a_device_that_hangs_keeps_nobody_waiting_and_its_replica_is_replaced(
    proxy: str, image_of: Callable[[int], bytes]
) -> None:
    content = config(
        {"device": "stub", "stub": {"base_ms": 20, "per_image_ms": 0, "hang_on_class": HANG}},
        health_check_period_s=1,
        user_config={"max_batch_size": 16},
    )
    good, hang = image_of(1), image_of(HANG)
    with running(content, RAY_SERVE_ENABLE_HA_PROXY=proxy) as service:
        [before] = service.send(Sent(good))
        impatient = Sent(hang, {"X-Request-Timeout-Seconds": "3"})
        answers = service.send(impatient, *[Sent(good) for _ in range(8)], *[Sent(hang) for _ in range(3)])

        assert (answers[0].status, answers[0].code) == (504, "deadline_exceeded")
        assert set(Counter((a.status, a.code) for a in answers[1:])) <= {(503, "device_stalled"), (200, None)}
        assert {(a.status, a.code) for a in answers[9:]} == {(503, "device_stalled")}
        after = recovered(service, good)
        assert after.body["replica"] != before.body["replica"]


def recovered(service: Service, image: bytes) -> Received:
    """The first good answer of another attempt; nobody has to do anything for it."""
    deadline = time.monotonic() + RECOVERY_TIMEOUT_S
    while time.monotonic() < deadline:
        # A replica that ends resets whoever came to it in its last moment; the ordinary proxy hides that.
        with suppress(aiohttp.ClientError):
            [answer] = service.send(Sent(image, leaves_after_s=10))
            if answer.status == 200:
                return answer
            assert answer.status in (0, 503, 504), answer
        time.sleep(0.2)
    raise AssertionError(f"no good answer in {RECOVERY_TIMEOUT_S} s")
