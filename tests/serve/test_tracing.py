"""Tracing on a real Ray Serve instance, by its one setting: every image of a burst has its spans."""

import json
import re
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest

from serve_app.grpc import SERVICE
from serve_app.tracing import BATCH_BUCKET, BATCH_ID, BATCH_SIZE, ERROR_TYPE
from tests.grpc.calls import image_request
from tests.serve.service import Sent, Service, config, running
from tests.waiting import eventually

STAGES = {"decode": "image", "queue": "image", "batch": "image", "device": "batch"}
SPANS_TIMEOUT_S, PROBE_S = 60, 1
FIRST_PROBE = 100_000
MAX_BATCH_SIZE, MAX_QUEUE_SIZE = 8, 16

Span = dict[str, Any]


@pytest.fixture(scope="module")
def service(samples: dict[int, bytes]) -> Iterator[Service]:
    content = config(
        {"device": "stub", "stub": {"base_ms": 500, "per_image_ms": 0}},
        user_config={
            "max_batch_size": MAX_BATCH_SIZE,
            "max_queue_size": MAX_QUEUE_SIZE,
            "batch_buckets": [1, MAX_BATCH_SIZE],
        },
    )
    content["tracing_config"] = {"enabled": True, "sampling_ratio": 1.0}
    with running(content, grpc=True) as running_service:
        # Until HAProxy has found the replica healthy, requests come through Ray's own proxy, which begins a new trace.
        numbers = count(FIRST_PROBE)
        eventually(lambda: keeps_its_trace(running_service, next(numbers), samples[7]))
        yield running_service


def keeps_its_trace(service: Service, number: int, image: bytes) -> bool:
    """Whether a request's spans are in its caller's trace; Ray writes them as they end."""
    trace_id, headers = traced(number)
    service.send(Sent(image, headers))
    time.sleep(PROBE_S)
    return any(span["context"]["trace_id"] == f"0x{trace_id}" for span in spans(service))


def spans(service: Service) -> list[Span]:
    """All that Ray's own exporter has written so far."""
    folder = re.search(r"logs in (\S+)", service.output)
    assert folder is not None
    found = []
    for path in Path(folder[1], "spans").glob("*_tracing.json"):
        text, decoder = path.read_text(), json.JSONDecoder()
        while text := text.lstrip():
            try:
                span, end = decoder.raw_decode(text)
            except ValueError:  # it is being written
                break
            found.append(span)
            text = text[end:]
    return found


def of_traces(service: Service, trace_ids: list[str]) -> dict[str, list[Span]]:
    """The spans of each trace, once each one's request has ended."""
    deadline = time.monotonic() + SPANS_TIMEOUT_S
    while True:
        found = spans(service)
        traces = {i: [s for s in found if s["context"]["trace_id"] == f"0x{i}"] for i in trace_ids}
        if all(any(s["name"].startswith("replica_handle_request") for s in trace) for trace in traces.values()):
            return traces
        assert time.monotonic() < deadline, {i: len(trace) for i, trace in traces.items()}
        time.sleep(0.2)


def traced(number: int) -> tuple[str, dict[str, str]]:
    """A trace's id, and the header of a caller that has begun it."""
    trace_id = f"{number:032x}"
    return trace_id, {"traceparent": f"00-{trace_id}-{number:016x}-01"}


def only(trace: list[Span], name: str) -> Span:
    [span] = [span for span in trace if span["name"] == name]
    return span


def check_nesting(trace: list[Span]) -> None:
    """Every image's stages are under it, it is under Ray's span, and each lies within the one above."""
    by_id = {span["context"]["span_id"]: span for span in trace}
    for span in trace:
        above = by_id.get(span["parent_id"])
        if span["name"] in STAGES:
            assert above is not None
            assert above["name"] == STAGES[span["name"]]
        elif span["name"] == "image":
            assert above is not None
            assert above["name"].startswith("replica_handle_request")
        if above is not None:  # in microseconds of one format: they compare as text
            assert above["start_time"] <= span["start_time"] <= span["end_time"] <= above["end_time"]


def test_every_image_of_a_burst_has_its_spans_under_its_callers_trace(
    service: Service, samples: dict[int, bytes]
) -> None:
    ids, headers = zip(*(traced(100 + i) for i in range(MAX_QUEUE_SIZE)), strict=True)
    answers = service.send(*(Sent(samples[i % 10], headers[i]) for i in range(MAX_QUEUE_SIZE)))
    assert {answer.status for answer in answers} == {200}

    traces = of_traces(service, list(ids))
    riders: dict[str, int] = {}
    for answer, trace_id in zip(answers, ids, strict=True):
        trace = traces[trace_id]
        check_nesting(trace)
        assert {"image", *STAGES} < {span["name"] for span in trace}
        batch = only(trace, "batch")["attributes"]
        assert batch[BATCH_SIZE] == answer.body["images"][0]["batch_size"]
        assert batch[BATCH_BUCKET] in (1, MAX_BATCH_SIZE)
        riders[batch[BATCH_ID]] = riders.get(batch[BATCH_ID], 0) + 1
        assert riders[batch[BATCH_ID]] <= batch[BATCH_SIZE]
    assert max(riders.values()) > 1
    sizes = {only(trace, "batch")["attributes"][BATCH_ID]: only(trace, "batch") for trace in traces.values()}
    assert {batch: span["attributes"][BATCH_SIZE] for batch, span in sizes.items()} == riders


def test_each_image_of_an_inference_request_has_its_own(service: Service, samples: dict[int, bytes]) -> None:
    tritonhttp = pytest.importorskip("tritonclient.http")
    import numpy as np

    trace_id, headers = traced(200)
    image = tritonhttp.InferInput("image", [3, 1], "BYTES")
    image.set_data_from_numpy(np.array([[samples[i]] for i in range(3)], dtype=np.object_))
    with tritonhttp.InferenceServerClient(service.url.removeprefix("http://")) as client:
        client.infer("digits", [image], headers=headers)
    trace = of_traces(service, [trace_id])[trace_id]
    check_nesting(trace)
    assert sorted(span["name"] for span in trace)[:-1] == sorted(["image", *STAGES] * 3)


def test_a_grpc_request_has_them_too(service: Service, samples: dict[int, bytes]) -> None:
    trace_id, headers = traced(300)
    with grpc.insecure_channel(service.grpc_address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        call(image_request(samples[7]).SerializeToString(), metadata=tuple(headers.items()))
    trace = of_traces(service, [trace_id])[trace_id]
    check_nesting(trace)
    assert {"image", *STAGES} < {span["name"] for span in trace}


def test_a_refused_image_says_so(service: Service, samples: dict[int, bytes]) -> None:
    number = 3 * (MAX_QUEUE_SIZE + MAX_BATCH_SIZE)
    ids, headers = zip(*(traced(400 + i) for i in range(number)), strict=True)
    answers = service.send(*(Sent(samples[7], each) for each in headers))
    refused = [i for answer, i in zip(answers, ids, strict=True) if answer.code == "queue_full"]
    assert refused
    for trace in of_traces(service, refused).values():
        check_nesting(trace)
        image = only(trace, "image")
        assert image["attributes"] == {ERROR_TYPE: "queue_full"}
        assert image["status"]["status_code"] == "ERROR"


def test_what_its_caller_did_not_sample_leaves_no_span(service: Service, samples: dict[int, bytes]) -> None:
    trace_id, headers = traced(600)
    headers["traceparent"] = headers["traceparent"].removesuffix("01") + "00"
    other, other_headers = traced(601)
    assert [answer.status for answer in service.send(Sent(samples[7], headers))] == [200]
    assert [answer.status for answer in service.send(Sent(samples[7], other_headers))] == [200]
    of_traces(service, [other])  # which came after it
    assert not [span for span in spans(service) if span["context"]["trace_id"] == f"0x{trace_id}"]
