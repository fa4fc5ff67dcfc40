"""Spans of an image: nested as its times are, of sampled requests alone, and silent on what a bug says."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import StatusCode

from serve_app import tracing
from serve_app.engine import Prediction
from serve_app.errors import Overloaded
from serve_app.service import Classification

BUCKETS = {3: 4}


class Recorder:
    """Requests under a span of their own, as Ray's are, and the spans that came of them."""

    def __init__(self, sampler: Sampler) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")

    @contextmanager
    def request(self) -> Iterator[None]:
        with self.tracer.start_as_current_span("request"):
            yield

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        [span] = [span for span in self.spans if span.name == name]
        return span


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return recording(ALWAYS_ON, monkeypatch)


def recording(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder(sampler)
    monkeypatch.setattr(tracing, "_tracer", recorder.tracer)
    return recorder


def classified(device_started: float) -> Classification:
    """Decoded in 3 ms, queued for 4, then 2 on the device, in a batch of three."""
    ids, scores = np.array([0]), np.ones(1, np.float32)
    return Classification(Prediction(ids, scores, scores, 3, 2.0, device_started), 3.0, 4.0)


def answer(recorder: Recorder, device_started: float | None = None) -> None:
    """An image that came 10 ms ago is answered; it was on the device 7.8 ms after it came, unless said otherwise."""
    started = perf_counter() - 0.010
    with recorder.request():
        tracing.answered(started, classified(device_started or started + 0.0078), BUCKETS.__getitem__)


def parent(recorder: Recorder, name: str) -> str | None:
    above = recorder.named(name).parent
    return above and next(span.name for span in recorder.spans if span.context.span_id == above.span_id)


def ms(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e6


def test_an_answered_image_has_a_span_for_each_stage_under_its_requests(recorder: Recorder) -> None:
    answer(recorder)
    names = {span.name: parent(recorder, span.name) for span in recorder.spans}
    assert names == {
        "request": None,
        "image": "request",
        "decode": "image",
        "queue": "image",
        "batch": "image",
        "device": "batch",
    }
    assert {span.context.trace_id for span in recorder.spans} == {recorder.named("request").context.trace_id}


def test_spans_last_as_long_as_their_stages_and_follow_each_other(recorder: Recorder) -> None:
    answer(recorder)
    image, decode, queue, batch, device = map(recorder.named, ("image", "decode", "queue", "batch", "device"))
    assert [ms(decode), ms(queue), ms(device)] == pytest.approx([3.0, 4.0, 2.0], abs=1e-3)
    assert image.start_time == decode.start_time
    assert decode.end_time == queue.start_time
    assert queue.end_time == batch.start_time
    assert batch.end_time == image.end_time
    assert ms(image) >= 10.0
    assert batch.start_time is not None
    assert device.start_time is not None
    assert device.end_time is not None
    assert batch.end_time is not None
    assert batch.start_time <= device.start_time < device.end_time <= batch.end_time


def test_times_are_the_days(recorder: Recorder) -> None:
    answer(recorder)
    request, image = recorder.named("request"), recorder.named("image")
    assert request.end_time is not None
    assert image.end_time is not None
    assert abs(request.end_time - image.end_time) < 60e9


def test_a_batch_says_its_size_and_who_rode_in_it(recorder: Recorder) -> None:
    for device_started in (100.0, 100.0, 200.0):
        answer(recorder, device_started)
    batches = [dict(span.attributes or {}) for span in recorder.spans if span.name == "batch"]
    first, second, other = (batch[tracing.BATCH_ID] for batch in batches)
    assert first == second != other
    assert [(b[tracing.BATCH_SIZE], b[tracing.BATCH_BUCKET], b[tracing.QUEUE_MS]) for b in batches] == [(3, 4, 4.0)] * 3


@pytest.mark.parametrize(
    ("error", "code"), [(Overloaded("later"), "overloaded"), (RuntimeError("/secret/path"), "internal_error")]
)
def test_a_failed_image_says_why_and_no_more(recorder: Recorder, error: Exception, code: str) -> None:
    with recorder.request():
        tracing.failed(perf_counter(), error)
    image = recorder.named("image")
    assert len(recorder.spans) == 2
    assert parent(recorder, "image") == "request"
    assert image.status.status_code is StatusCode.ERROR
    assert dict(image.attributes or {}) == {tracing.ERROR_TYPE: code}
    assert "secret" not in image.to_json()


def test_what_is_not_sampled_leaves_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = recording(ALWAYS_OFF, monkeypatch)
    answer(recorder)
    with recorder.request():
        tracing.failed(perf_counter(), Overloaded("later"))
    assert recorder.spans == []


def test_outside_a_traced_request_nothing_is_made(recorder: Recorder) -> None:
    def bucket_of(_: int) -> int:
        raise AssertionError("a span is being made")

    tracing.answered(perf_counter(), classified(0.0), bucket_of)
    tracing.failed(perf_counter(), Overloaded("later"))
    assert recorder.spans == []
