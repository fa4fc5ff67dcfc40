"""Spans of an image, under Ray Serve's own span of its request: where its time went.

    replica_handle_request       Ray's
    └── image                    from the door to its result; an error has its code in `error.type`
        ├── decode               with the wait for a thread
        ├── queue                from decoded to released to the device
        └── batch                from released to its result: its id, the same for all who rode in it, size, bucket
            └── device

One setting turns them on, Ray's `tracing_config` at the top of the config file. Made in one go from times
that were taken anyway, and only for requests that are sampled; without tracing, a check of less than a microsecond.
"""

import time
from collections.abc import Callable
from time import perf_counter, perf_counter_ns

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode

from serve_app.errors import INTERNAL_CODE, RequestError
from serve_app.service import Classification

# OpenTelemetry's own name for what an operation failed with.
ERROR_TYPE = "error.type"
BATCH_ID, BATCH_SIZE, BATCH_BUCKET = "serve_app.batch.id", "serve_app.batch.size", "serve_app.batch.bucket"
QUEUE_MS = "serve_app.queue_ms"

_tracer = trace.get_tracer("serve_app")


def is_wanted(traceparent: str | None) -> bool:
    """Whether a request with this header (W3C Trace Context) is to have spans: its caller's trace has, and tracing is
    on here."""
    if traceparent is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return False
    return not traceparent.endswith("-00")


def answered(started: float, classification: Classification, bucket_of: Callable[[int], int]) -> None:
    """The spans of an image that was answered just now and came to the door at `started`, as perf_counter() says.

    `bucket_of`: images in a batch -> the size that ran, with its padding.
    """
    if not trace.get_current_span().is_recording():
        return
    clock, now = _Clock(), perf_counter()
    prediction = classification.prediction
    decoded = started + classification.decode_ms / 1e3
    released = decoded + classification.queue_ms / 1e3
    image = clock.begin("image", started)
    clock.span("decode", started, decoded, image)
    clock.span("queue", decoded, released, image)
    batch = clock.begin("batch", released, image)
    batch.set_attributes(
        {
            # Its replica is on Ray's span.
            BATCH_ID: f"{round(prediction.device_started * 1e9):x}",
            BATCH_SIZE: prediction.batch_size,
            BATCH_BUCKET: bucket_of(prediction.batch_size),
            QUEUE_MS: classification.queue_ms,
        }
    )
    device_started = prediction.device_started
    clock.span("device", device_started, device_started + prediction.device_ms / 1e3, batch)
    clock.end(batch, now)
    clock.end(image, now)


def failed(started: float, error: Exception) -> None:
    """The span of an image that was refused or failed just now."""
    if not trace.get_current_span().is_recording():
        return
    clock = _Clock()
    image = clock.begin("image", started)
    code = error.code if isinstance(error, RequestError) else INTERNAL_CODE
    image.set_attribute(ERROR_TYPE, code)
    image.set_status(Status(StatusCode.ERROR, code))
    clock.end(image, perf_counter())


class _Clock:
    """Spans at times of perf_counter(): one reading of both clocks for all of an image's, so that they nest."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - perf_counter_ns()

    def begin(self, name: str, at: float, parent: Span | None = None) -> Span:
        """`parent`: the current span, if none is given."""
        context: Context | None = None if parent is None else trace.set_span_in_context(parent)
        return _tracer.start_span(name, context, start_time=self._ns(at))

    def end(self, span: Span, at: float) -> None:
        span.end(self._ns(at))

    def span(self, name: str, begin: float, end: float, parent: Span) -> None:
        self.end(self.begin(name, begin, parent), end)

    def _ns(self, seconds: float) -> int:
        return self._offset_ns + round(seconds * 1e9)
