"""Every rpc over a fake service, as a client sees it."""

import logging
import math
from collections.abc import Callable

import grpc
import numpy as np
import pytest

from serve_app import errors
from serve_app.config import Args
from serve_app.errors import NotReady, Overloaded, RequestError
from serve_app.grpc import SERVICE
from serve_app.grpc import inference_pb2 as pb
from serve_app.grpc.server import HEALTH, RPCS
from serve_app.scheduler import Priority, Terms
from serve_app.version import VERSION
from tests.grpc.calls import Call, FakeServicer, Outcome, call, check, image_request, infer
from tests.http.service import CROP_SIZE

Status = grpc.StatusCode
Edit = Callable[[pb.ModelInferRequest], object]
INPUT = pb.ModelInferRequest.InferInputTensor
SIDE = CROP_SIZE


def rows(response: pb.ModelInferResponse, name: str, dtype: str) -> np.ndarray:
    at = [each.name for each in response.outputs].index(name)
    return np.frombuffer(response.raw_output_contents[at], dtype).reshape(response.outputs[at].shape)


def texts(raw: bytes) -> list[str]:
    found = []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        found.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return found


def asking(name: str, **parameters: pb.InferParameter) -> Edit:
    return lambda request: request.outputs.add(name=name, parameters=parameters)


def refused(outcome: Outcome) -> tuple[Status, str]:
    assert outcome.response is None
    return outcome.status, outcome.error_code


# --- what server and model say of themselves -------------------------------------------------------


def test_server_and_model_are_live_and_ready() -> None:
    live, ready, model = call(
        FakeServicer(),
        Call("ServerLive", pb.ServerLiveRequest()),
        Call("ServerReady", pb.ServerReadyRequest()),
        Call("ModelReady", pb.ModelReadyRequest(name="digits", version="1")),
    )
    assert (live.response.live, ready.response.ready, model.response.ready) == (True, True, True)


def test_until_every_batch_size_is_warm_they_are_live_and_not_ready() -> None:
    live, ready, model, index, only_ready, answer = call(
        FakeServicer(ready=False),
        Call("ServerLive", pb.ServerLiveRequest()),
        Call("ServerReady", pb.ServerReadyRequest()),
        Call("ModelReady", pb.ModelReadyRequest(name="digits")),
        Call("RepositoryIndex", pb.RepositoryIndexRequest()),
        Call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True)),
        infer(),
    )
    assert (live.response.live, ready.response.ready, model.response.ready) == (True, False, False)
    assert [each.state for each in index.response.models] == ["UNAVAILABLE"]
    assert list(only_ready.response.models) == []
    assert refused(answer) == (Status.UNAVAILABLE, "not_ready")


@pytest.mark.parametrize(("ready", "state"), [(True, "SERVING"), (False, "NOT_SERVING")], ids=["ready", "not ready"])
@pytest.mark.parametrize("service", ["", SERVICE])
def test_the_standard_health_check(ready: bool, state: str, service: str) -> None:
    response = call(FakeServicer(ready=ready), check(service)).response
    assert type(response).ServingStatus.Name(response.status) == state


def test_the_health_of_a_service_that_is_not_there_is_not_found() -> None:
    assert call(FakeServicer(), check("nobody.Knows")).status is Status.NOT_FOUND


def test_the_server_describes_itself() -> None:
    response = call(FakeServicer(), Call("ServerMetadata", pb.ServerMetadataRequest())).response
    assert (response.name, response.version) == ("serve-app", VERSION)
    assert "statistics" in response.extensions


def test_the_model_describes_its_tensors() -> None:
    response = call(FakeServicer(), Call("ModelMetadata", pb.ModelMetadataRequest(name="digits"))).response
    assert (response.name, list(response.versions)) == ("digits", ["1"])
    assert [(each.name, each.datatype, list(each.shape)) for each in response.inputs] == [
        ("image", "BYTES", [-1, 1]),
        ("pixels", "UINT8", [-1, SIDE, SIDE, 3]),
        ("normalized", "FP32", [-1, 3, SIDE, SIDE]),
    ]
    assert [each.name for each in response.outputs] == ["class_ids", "labels", "probabilities", "logits"]


def test_the_configuration_is_tritons() -> None:
    config = call(FakeServicer(), Call("ModelConfig", pb.ModelConfigRequest(name="digits"))).response.config
    assert (config.name, config.max_batch_size) == ("digits", Args().max_images)
    assert [(each.name, each.data_type, each.optional) for each in config.input] == [
        ("image", pb.TYPE_STRING, True),
        ("pixels", pb.TYPE_UINT8, True),
        ("normalized", pb.TYPE_FP32, True),
    ]
    assert list(config.dynamic_batching.preferred_batch_size) == [16]
    assert config.version_policy.latest.num_versions == 1


@pytest.mark.parametrize("name", ["digits", ""])
def test_statistics_of_the_model_or_of_every_one(name: str) -> None:
    service = FakeServicer()
    service.statistics.succeeded(1.0, 2.0, 3.0)
    service.statistics.executed(4, 3.0)
    (stats,) = call(service, Call("ModelStatistics", pb.ModelStatisticsRequest(name=name))).response.model_stats
    assert (stats.name, stats.version, stats.inference_count, stats.execution_count) == ("digits", "1", 1, 1)
    assert (stats.inference_stats.success.count, stats.inference_stats.success.ns) == (1, 6_000_000)
    assert [(each.batch_size, each.compute_infer.ns) for each in stats.batch_stats] == [(4, 3_000_000)]


def test_the_repository_has_the_model() -> None:
    response = call(FakeServicer(), Call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True))).response
    assert [(each.name, each.version, each.state) for each in response.models] == [("digits", "1", "READY")]


@pytest.mark.parametrize(
    "asked",
    [
        Call("ModelReady", pb.ModelReadyRequest(name="other")),
        Call("ModelReady", pb.ModelReadyRequest()),
        Call("ModelMetadata", pb.ModelMetadataRequest(name="digits", version="2")),
        Call("ModelConfig", pb.ModelConfigRequest(name="other")),
        Call("ModelStatistics", pb.ModelStatisticsRequest(name="other")),
        infer(lambda request: setattr(request, "model_name", "other")),
        infer(lambda request: setattr(request, "model_version", "2")),
    ],
    ids=lambda asked: asked.method,
)
def test_another_model_or_version_is_not_found(asked: Call) -> None:
    assert refused(call(FakeServicer(), asked)) == (Status.NOT_FOUND, "model_not_found")


@pytest.mark.parametrize(
    "asked",
    [
        Call("ModelStreamInfer", b""),
        Call("RepositoryModelLoad", b""),
        Call("SystemSharedMemoryStatus", b""),
        Call("TraceSetting", b""),
        Call("Watch", b"", service=HEALTH),
    ],
    ids=lambda asked: asked.method,
)
def test_what_is_not_there_is_unimplemented(asked: Call) -> None:
    assert call(FakeServicer(), asked).status is Status.UNIMPLEMENTED


# --- inference ---------------------------------------------------------------------------------------


def test_the_answer_in_full() -> None:
    def edit(request: pb.ModelInferRequest) -> None:
        request.id = "a request"
        request.parameters["top_k"].int64_param = 3

    response = call(FakeServicer(), infer(edit)).response
    assert (response.model_name, response.model_version, response.id) == ("digits", "1", "a request")
    assert [(each.name, each.datatype, list(each.shape)) for each in response.outputs] == [
        ("class_ids", "INT64", [1, 3]),
        ("labels", "BYTES", [1, 3]),
        ("probabilities", "FP32", [1, 10]),
        ("logits", "FP32", [1, 10]),
    ]
    assert rows(response, "class_ids", "<i8").tolist() == [[7, 8, 9]]
    assert texts(response.raw_output_contents[1]) == ["seven", "eight", "nine"]
    assert rows(response, "probabilities", "<f4").sum() == pytest.approx(1)
    assert rows(response, "logits", "<f4").argmax() == 7


def test_outputs_come_as_they_are_asked_for() -> None:
    def edit(request: pb.ModelInferRequest) -> None:
        request.outputs.add(name="labels")
        asking("logits", classification=pb.InferParameter(int64_param=2))(request)

    response = call(FakeServicer(), infer(edit)).response
    assert [(each.name, each.datatype, list(each.shape)) for each in response.outputs] == [
        ("labels", "BYTES", [1, 2]),
        ("logits", "BYTES", [1, 2]),
    ]
    assert [text.split(":")[1:] for text in texts(response.raw_output_contents[1])] == [["7", "seven"], ["8", "eight"]]


def pixels(*classes: int) -> np.ndarray:
    """Crops whose sums are these classes."""
    crops = np.zeros((len(classes), SIDE, SIDE, 3), np.uint8)
    crops[:, 0, 0, 0] = classes
    return crops


def with_tensor(name: str, datatype: str, values: np.ndarray, **contents: object) -> Edit:
    def edit(request: pb.ModelInferRequest) -> None:
        del request.inputs[:]
        request.inputs.add(name=name, datatype=datatype, shape=values.shape, contents=contents or None)
        del request.raw_input_contents[:]
        if not contents:
            request.raw_input_contents.append(values.tobytes())

    return edit


PIXELS = pixels(3, 200)
NORMALIZED = pixels(3, 4).transpose(0, 3, 1, 2).astype(np.float32)
FILES = np.zeros((2, 1))


@pytest.mark.parametrize(
    ("edit", "classes"),
    [
        (with_tensor("pixels", "UINT8", PIXELS), [3, 0]),
        (with_tensor("pixels", "UINT8", PIXELS, uint_contents=PIXELS.ravel().tolist()), [3, 0]),
        (with_tensor("pixels", "UINT8", PIXELS.transpose(0, 3, 1, 2).copy()), [3, 0]),
        (with_tensor("normalized", "FP32", NORMALIZED), [3, 4]),
        (with_tensor("normalized", "FP32", NORMALIZED, fp32_contents=NORMALIZED.ravel().tolist()), [3, 4]),
        (with_tensor("image", "BYTES", FILES, bytes_contents=[b"1", b"2"]), [1, 2]),
        (with_tensor("image", "BYTES", FILES[:, 0], bytes_contents=[b"1", b"2"]), [1, 2]),
    ],
    ids=["raw pixels", "pixels", "raw NCHW", "raw floats", "floats", "files", "files without a channel"],
)
def test_the_elements_of_a_tensor_come_raw_or_typed(edit: Edit, classes: list[int]) -> None:
    response = call(FakeServicer(), infer(edit)).response
    assert rows(response, "class_ids", "<i8")[:, 0].tolist() == classes


def test_raw_pixels_are_not_copied() -> None:
    service = FakeServicer()
    call(service, infer(with_tensor("pixels", "UINT8", PIXELS)))
    first, second = (np.asarray(each) for each in service.seen)
    assert first.base is not None
    assert second.__array_interface__["data"][0] - first.__array_interface__["data"][0] == first.nbytes
    assert not first.flags.owndata
    assert not first.flags.writeable


def parameter(name: str, **value: object) -> Edit:
    return lambda request: request.parameters[name].CopyFrom(pb.InferParameter(**value))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("edit", "metadata", "terms"),
    [
        (None, {}, Terms(math.inf, Priority.INTERACTIVE)),
        (parameter("timeout", int64_param=250_000), {}, Terms(0.25, Priority.INTERACTIVE)),
        (parameter("timeout", uint64_param=250_000), {}, Terms(0.25, Priority.INTERACTIVE)),
        (parameter("priority", uint64_param=2), {}, Terms(math.inf, Priority.BATCH)),
        (None, {"x-request-timeout-seconds": "0.5"}, Terms(0.5, Priority.INTERACTIVE)),
        (None, {"x-request-priority": "batch"}, Terms(math.inf, Priority.BATCH)),
        (parameter("timeout", int64_param=250_000), {"x-request-timeout-seconds": "5"}, Terms(0.25)),
        (parameter("priority", int64_param=1), {"x-request-priority": "batch"}, Terms(math.inf)),
        (parameter("timeout"), {}, Terms(math.inf)),
        (parameter("sequence_id", string_param="ignored"), {}, Terms(math.inf)),
    ],
)
def test_a_request_names_its_deadline_and_priority(edit: Edit | None, metadata: dict[str, str], terms: Terms) -> None:
    service = FakeServicer()
    assert call(service, infer(edit, metadata=metadata)).status is Status.OK
    assert service.asked == [terms]


def test_metadata_that_is_not_text_is_left_alone() -> None:
    assert call(FakeServicer(), infer(metadata={"x-trace-bin": b"\xff\x00"})).status is Status.OK


BAD_REQUESTS: dict[str, tuple[Edit, str, str]] = {
    "neither": (lambda r: r.ClearField("raw_input_contents"), "bad_tensor", "either contents or raw"),
    "both": (lambda r: r.inputs[0].contents.bytes_contents.append(b"7"), "bad_tensor", "either contents or raw"),
    "two raw": (lambda r: r.raw_input_contents.append(b"7"), "bad_tensor", "2 raw_input_contents came for one input"),
    "no inputs": (lambda r: r.ClearField("inputs"), "malformed_request", "1 to 16 inputs"),
    "two inputs": (lambda r: r.inputs.add(name="image"), "bad_tensor", "one input, and 2 came"),
    "17 inputs": (lambda r: [r.inputs.add() for _ in range(16)], "malformed_request", "1 to 16 inputs"),
    "17 outputs": (lambda r: [r.outputs.add() for _ in range(17)], "malformed_request", "at most as many outputs"),
    "a long id": (lambda r: setattr(r, "id", "x" * 1025), "malformed_request", "1,024 characters"),
    "rank 9": (lambda r: r.inputs[0].shape.extend([1] * 7), "malformed_request", "8 dimensions"),
    "65 parameters": (
        lambda r: [r.parameters[str(i)] for i in range(65)],
        "malformed_request",
        "more than 64 parameters",
    ),
    "65 parameters of an output": (
        lambda r: r.outputs.add(name="logits", parameters={str(i): pb.InferParameter() for i in range(65)}),
        "malformed_request",
        "more than 64 parameters",
    ),
    "another input": (lambda r: setattr(r.inputs[0], "name", "photo"), "bad_tensor", "no input 'photo'"),
    "another datatype": (lambda r: setattr(r.inputs[0], "datatype", "FP64"), "bad_tensor", "not 'FP64'"),
    "a negative size": (lambda r: r.inputs[0].shape.__setitem__(0, -1), "bad_tensor", "below zero"),
    "more images": (lambda r: r.inputs[0].shape.__setitem__(0, 33), "bad_tensor", "1 to 32 images"),
    "another shape": (lambda r: r.inputs[0].shape.__setitem__(1, 2), "bad_tensor", "its shape is"),
    "too few elements": (lambda r: r.inputs[0].shape.__setitem__(0, 2), "bad_tensor", "the data ends after 1"),
    "another output": (lambda r: r.outputs.add(name="heatmap"), "bad_tensor", "no output 'heatmap'"),
    "an output twice": (
        lambda r: [r.outputs.add(name="logits") for _ in range(2)],
        "bad_tensor",
        "asked for twice",
    ),
    "top_k": (parameter("top_k", int64_param=11), "malformed_request", "1 to 10"),
    "top_k as text": (parameter("top_k", string_param="1"), "malformed_request", "whole number"),
    "timeout as a float": (parameter("timeout", double_param=1.0), "malformed_request", "microseconds"),
    "priority 3": (parameter("priority", uint64_param=3), "malformed_request", "priority"),
    "classification of labels": (
        asking("labels", classification=pb.InferParameter(int64_param=1)),
        "bad_tensor",
        "probabilities and logits",
    ),
    "the wrong contents": (
        with_tensor("pixels", "UINT8", PIXELS, fp32_contents=[1.0]),
        "bad_tensor",
        "the elements of UINT8 are in uint_contents",
    ),
    "two sorts of contents": (
        with_tensor("pixels", "UINT8", PIXELS, fp32_contents=[1.0], uint_contents=PIXELS.ravel().tolist()),
        "bad_tensor",
        "the elements of UINT8 are in uint_contents",
    ),
    "too few contents": (with_tensor("pixels", "UINT8", PIXELS, uint_contents=[1]), "bad_tensor", "and 1 came"),
    "too few files": (with_tensor("image", "BYTES", FILES, bytes_contents=[b"1"]), "bad_tensor", "and 1 came"),
    "a byte of 256": (
        with_tensor("pixels", "UINT8", PIXELS, uint_contents=[256] * PIXELS.size),
        "bad_tensor",
        "out of the range of UINT8",
    ),
    "not a number": (
        with_tensor("normalized", "FP32", NORMALIZED, fp32_contents=[math.nan] * NORMALIZED.size),
        "bad_tensor",
        "not a finite number",
    ),
    "raw not a number": (with_tensor("normalized", "FP32", NORMALIZED * np.nan), "bad_tensor", "not a finite number"),
}


@pytest.mark.parametrize(("edit", "code", "words"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_a_bad_request_is_an_invalid_argument_and_says_why(edit: Edit, code: str, words: str) -> None:
    service = FakeServicer()
    outcome = call(service, infer(edit))
    assert refused(outcome) == (Status.INVALID_ARGUMENT, code)
    assert words in outcome.details
    assert service.seen == []


@pytest.mark.parametrize("metadata", [{"x-request-timeout-seconds": "soon"}, {"x-request-priority": "first"}], ids=repr)
def test_bad_metadata_is_an_invalid_argument(metadata: dict[str, str]) -> None:
    assert refused(call(FakeServicer(), infer(metadata=metadata))) == (Status.INVALID_ARGUMENT, "bad_parameter")


STATUS_OF = {
    401: Status.UNAUTHENTICATED,
    429: Status.RESOURCE_EXHAUSTED,
    404: Status.NOT_FOUND,
    503: Status.UNAVAILABLE,
    504: Status.DEADLINE_EXCEEDED,
}


@pytest.mark.parametrize("kind", RequestError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_each_error_has_its_status_and_code(kind: type[RequestError]) -> None:
    outcome = call(FakeServicer(raises={b"7": kind("why")}), infer())
    assert refused(outcome) == (STATUS_OF.get(kind.status, Status.INVALID_ARGUMENT), kind.code)
    assert outcome.details == "why"


def test_a_refusal_says_when_to_try_again() -> None:
    outcome = call(FakeServicer(refuses=Overloaded("full", 0.25)), infer())
    assert refused(outcome) == (Status.UNAVAILABLE, "overloaded")
    assert outcome.trailing["grpc-retry-pushback-ms"] == "250"


def test_the_door_is_asked_before_the_tensors_are_looked_at() -> None:
    broken = infer(BAD_REQUESTS["too few elements"][0])
    assert refused(call(FakeServicer(refuses=NotReady("later")), broken)) == (Status.UNAVAILABLE, "not_ready")


def test_one_image_that_fails_fails_the_request_and_is_named() -> None:
    service = FakeServicer(raises={b"2": errors.UnreadableImage("damaged")})
    outcome = call(service, Call("ModelInfer", image_request(b"1", b"2")))
    assert refused(outcome) == (Status.INVALID_ARGUMENT, "unreadable_image")
    assert outcome.details == "image 1 of 2 (counted from 0): damaged"


@pytest.mark.parametrize("given", ["req-1", ""])
def test_a_bug_is_internal_and_only_the_log_has_it(given: str, caplog: pytest.LogCaptureFixture) -> None:
    service = FakeServicer(raises={b"7": ValueError("secret /path")})
    with caplog.at_level(logging.ERROR):
        outcome = call(service, infer(metadata={"request_id": given} if given else {}))
    assert refused(outcome) == (Status.INTERNAL, "internal_error")
    assert "secret" not in outcome.details + str(outcome.trailing)
    request_id = outcome.details.rpartition(" ")[2]
    assert given in ("", request_id)
    assert f"request {request_id} failed" in caplog.text
    assert "secret /path" in caplog.text


def test_a_client_that_gives_up_ends_its_request() -> None:
    service = FakeServicer()
    outcome = call(service, Call("ModelInfer", image_request(b"hang"), deadline_s=0.5))
    assert outcome.status is Status.DEADLINE_EXCEEDED
    assert service.cancelled == [b"hang"]


def test_a_request_has_a_limit_of_its_own() -> None:
    service = FakeServicer(args=Args(max_image_bytes=1000, max_request_bytes=1000))
    outcome = call(service, Call("ModelInfer", image_request(b"7" * 1000)))
    assert refused(outcome) == (Status.INVALID_ARGUMENT, "body_too_large")
    assert "1,000 bytes (max_request_bytes)" in outcome.details


# --- who may call ------------------------------------------------------------------------------------

PROBES = {("ServerLive", SERVICE), ("ServerReady", SERVICE), ("Check", HEALTH)}


@pytest.mark.parametrize("metadata", [{}, {"authorization": "Bearer sa_wrong"}, {"authorization": "Basic sa_right"}])
def test_every_rpc_but_the_probes_needs_the_token(metadata: dict[str, str]) -> None:
    every = {(name, service) for service, names in RPCS.items() for name in names}
    service = FakeServicer(token="sa_right")
    for method, of in every:
        asked = image_request() if method == "ModelInfer" else b""
        outcome = call(service, Call(method, asked, metadata, service=of))
        if (method, of) in PROBES:
            assert outcome.status is Status.OK
        else:
            assert refused(outcome) == (Status.UNAUTHENTICATED, "unauthorized")
        right = call(service, Call(method, asked, {"authorization": "Bearer sa_right"}, service=of))
        assert right.status is not Status.UNAUTHENTICATED
    assert len(service.seen) == 1


def test_without_a_token_no_byte_is_parsed() -> None:
    garbage = Call("ModelInfer", b"\xff\xff\xff")
    assert call(FakeServicer(token="sa_right"), garbage).status is Status.UNAUTHENTICATED
    assert call(FakeServicer(), garbage).status is Status.INVALID_ARGUMENT
