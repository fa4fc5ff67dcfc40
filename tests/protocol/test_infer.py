import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from serve_app.config import Args
from serve_app.engine.base import Normalised
from serve_app.errors import BodyTooLarge, EmptyBody, ModelNotFound, NotReady, Overloaded, RequestError, UnreadableImage
from serve_app.protocol.infer import Answer, check_model, infer, require_ready
from serve_app.protocol.request import InferRequest, RequestedOutput
from serve_app.protocol.tensor import Tensor
from serve_app.scheduler import Priority, Terms
from tests.http.service import FakeService

TERMS = Terms(5.0, Priority.BATCH)


def request(tensor: Tensor) -> InferRequest:
    return InferRequest("42", tensor, (RequestedOutput("class_ids"),), 1, None, None)


def files(*images: bytes) -> InferRequest:
    return request(Tensor("image", "BYTES", (len(images),), list(images)))


def run(service: FakeService, asked: InferRequest) -> Answer:
    return asyncio.run(asyncio.wait_for(infer(service, asked, TERMS), 60))


def refusal(service: FakeService, *images: bytes) -> RequestError:
    with pytest.raises(RequestError) as error:
        run(service, files(*images))
    return error.value


def rows(answer: Answer) -> list[int]:
    (tensor,) = answer.tensors
    return [int(row[0]) for row in np.asarray(tensor.elements)]


@pytest.mark.parametrize("images", [[b"7"], [b"3", b"1", b"2"], [b"%d" % (i % 10) for i in range(32)]], ids=len)
def test_every_image_is_answered_in_its_order_under_the_requests_terms(images: Sequence[bytes]) -> None:
    service = FakeService()
    answer = run(service, files(*images))
    assert (answer.id, answer.model_name) == ("42", "digits")
    assert rows(answer) == [int(image) for image in images]
    assert service.asked == [TERMS] * len(images)


def test_the_timings_are_those_of_the_slowest_image() -> None:
    assert run(FakeService(), files(b"2", b"9", b"4")).timings_ms == (9.0, 18.0, 27.0)


def test_pixels_and_normalised_images_reach_the_service_as_such() -> None:
    service = FakeService()
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    pixels[1, 0, 0, 0] = 7
    normalised = np.zeros((1, 3, 4, 4), np.float32)
    normalised[0, 0, 0, 0] = 3
    assert rows(run(service, request(Tensor("pixels", "UINT8", pixels.shape, pixels)))) == [0, 7]
    assert rows(run(service, request(Tensor("normalized", "FP32", normalised.shape, normalised)))) == [3]
    assert [isinstance(image, Normalised) for image in service.seen] == [False, False, True]


def test_the_error_of_a_single_image_is_its_own() -> None:
    error = refusal(FakeService(raises={b"bad": Overloaded("later", 2.5)}), b"bad")
    assert (type(error), error.message, error.retry_after_s) == (Overloaded, "later", 2.5)


def test_the_first_image_that_failed_fails_the_request_with_its_number() -> None:
    service = FakeService(raises={b"bad": UnreadableImage("cut short"), b"late": Overloaded("later", 2.5)})
    error = refusal(service, b"1", b"bad", b"late")
    assert (type(error), error.retry_after_s) == (UnreadableImage, None)
    assert error.message == "image 1 of 3 (counted from 0): cut short"
    error = refusal(service, b"late", b"bad")
    assert (type(error), error.retry_after_s) == (Overloaded, 2.5)
    assert error.message == "image 0 of 2 (counted from 0): later"


def test_when_one_image_fails_the_others_are_cancelled() -> None:
    service = FakeService(raises={b"bad": UnreadableImage("cut short")})
    assert refusal(service, b"hang", b"hang", b"bad").message.startswith("image 2 of 3")
    assert service.cancelled == [b"hang", b"hang"]


@pytest.mark.parametrize("images", [[b"bug"], [b"1", b"bug", b"2"], [b"bad", b"bug"], [b"bug", b"hang"]], ids=repr)
def test_a_bug_is_raised_as_itself(images: Sequence[bytes]) -> None:
    service = FakeService(raises={b"bug": KeyError("inside"), b"bad": UnreadableImage("cut short")})
    with pytest.raises(KeyError, match="inside") as error:
        run(service, files(*images))
    assert any(entry.name == "classify" for entry in error.traceback)


@pytest.mark.parametrize("images", [[b"hang"], [b"hang", b"7", b"hang"]], ids=len)
def test_a_request_that_is_cancelled_cancels_all_of_its_images(images: Sequence[bytes]) -> None:
    service = FakeService()

    async def cancel_once_started() -> None:
        task = asyncio.create_task(infer(service, files(*images), TERMS))
        await service.started.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(cancel_once_started(), 60))
    assert service.cancelled == [image for image in images if image == b"hang"]


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([b""], EmptyBody, "the file is empty"),
        ([b"1", b""], EmptyBody, "image 1 of 2 (counted from 0): the file is empty"),
        ([b"01234567890"], BodyTooLarge, "an image may have at most 10 bytes (max_image_bytes)"),
        ([b"1", b"01234567890", b""], BodyTooLarge, "image 1 of 3 (counted from 0): an image may have at most 10"),
    ],
    ids=repr,
)
def test_a_file_that_is_empty_or_too_large_is_refused_before_any_is_decoded(
    images: Sequence[bytes], error: type[RequestError], message: str
) -> None:
    service = FakeService(args=Args(max_image_bytes=10))
    found = refusal(service, *images)
    assert type(found) is error
    assert found.message.startswith(message)
    assert service.seen == []


def test_a_file_of_exactly_the_limit_is_taken() -> None:
    assert rows(run(FakeService(args=Args(max_image_bytes=10)), files(b"0000000007"))) == [7]


@pytest.mark.parametrize("version", ["", "1"])
def test_the_model_served_is_found(version: str) -> None:
    check_model(FakeService(), "digits", version)


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("other", "", "no such model; this server has digits"),
        ("Digits", "1", "no such model"),
        ("x" * 10**5, "", "no such model"),
        ("digits", "2", "no such version; digits has version 1"),
        ("digits", "01", "no such version"),
        ("digits", "x" * 10**5, "no such version"),
    ],
    ids=lambda value: value[:20],
)
def test_another_model_or_version_is_not_found(name: str, version: str, words: str) -> None:
    with pytest.raises(ModelNotFound, match=words) as error:
        check_model(FakeService(), name, version)
    assert len(error.value.message) < 200


def test_before_it_is_ready_a_model_says_when_to_come_back() -> None:
    require_ready(FakeService())
    with pytest.raises(NotReady) as error:
        require_ready(FakeService(ready=False))
    assert error.value.retry_after_s == 1.0
