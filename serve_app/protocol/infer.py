"""An inference request -> its answer, over a `Service`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.errors import BodyTooLarge, EmptyBody, ModelNotFound, NotReady, RequestError
from serve_app.protocol.answer import outputs
from serve_app.protocol.request import MODEL_VERSION, InferRequest
from serve_app.protocol.signature import Image
from serve_app.protocol.tensor import Tensor
from serve_app.scheduler import Terms
from serve_app.service import Classification, Service

NOT_READY_RETRY_AFTER_S = 1.0


@dataclass(frozen=True)
class Answer:
    model_name: str
    id: str
    tensors: tuple[Tensor, ...]
    """In the order that they were asked for."""
    timings_ms: tuple[float, float, float]
    """Decode, queue, device: each one's slowest image."""


def check_model(service: Service, name: str, version: str = "") -> None:
    """Raise ModelNotFound unless this is the model served."""
    if name != service.model_name:
        raise ModelNotFound(f"no such model; this server has {service.model_name}")
    if version not in ("", MODEL_VERSION):
        raise ModelNotFound(f"no such version; {service.model_name} has version {MODEL_VERSION}")


def require_ready(service: Service) -> None:
    """Raise NotReady until every batch size is warmed."""
    if not service.ready:
        raise NotReady("the model is not ready yet: try again shortly", NOT_READY_RETRY_AFTER_S)


async def infer(service: Service, request: InferRequest, terms: Terms) -> Answer:
    """The images of a request ride in whatever batches have room. One that fails fails the request.

    Raises RequestError for what the client can mend: the first image's that failed.
    """
    images = service.signature.images(request.tensor)
    _check_files(images, service.args.max_image_bytes)
    classifications = await _classify_all(service, images, terms)
    return Answer(
        service.model_name,
        request.id,
        outputs(request, [each.prediction for each in classifications], service.labels),
        _slowest(classifications),
    )


def _check_files(images: Sequence[Image], max_bytes: int) -> None:
    """Raise EmptyBody or BodyTooLarge for the first file that is."""
    for number, image in enumerate(images):
        if isinstance(image, bytes) and not image:
            raise _of_image(number, len(images), EmptyBody("the file is empty"))
        if isinstance(image, bytes) and len(image) > max_bytes:
            error = BodyTooLarge(f"an image may have at most {max_bytes:,} bytes (max_image_bytes)")
            raise _of_image(number, len(images), error)


async def _classify_all(service: Service, images: Sequence[Image], terms: Terms) -> list[Classification]:
    if len(images) == 1:
        return [await service.classify(images[0], terms)]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(service.classify(image, terms)) for image in images]
    except BaseExceptionGroup:
        # Those that did not fail were cancelled by the group: nobody would read their answer.
        raise _failure(tasks) from None
    return [task.result() for task in tasks]


def _failure(tasks: Sequence[asyncio.Task[Classification]]) -> BaseException:
    """A bug where there is one, with its own traceback; else the first image's error."""
    errors = {i: error for i, task in enumerate(tasks) if not task.cancelled() and (error := task.exception())}
    bug = next((error for error in errors.values() if not isinstance(error, RequestError)), None)
    return bug or _of_image(min(errors), len(tasks), errors[min(errors)])


def _of_image(number: int, count: int, error: BaseException) -> RequestError:
    """The error of one image of a request, saying which: its place in the tensor."""
    assert isinstance(error, RequestError)  # noqa: S101 - whatever else is a bug, and found as one
    if count == 1:
        return error
    return type(error)(f"image {number} of {count} (counted from 0): {error.message}", error.retry_after_s)


def _slowest(classifications: Sequence[Classification]) -> tuple[float, float, float]:
    return (
        max(each.decode_ms for each in classifications),
        max(each.queue_ms for each in classifications),
        max(each.prediction.device_ms for each in classifications),
    )
