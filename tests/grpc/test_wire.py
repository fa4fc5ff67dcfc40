"""Bytes of every sort: what protobuf would take is taken as it takes it, within bounds, and nothing else."""

import tracemalloc

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from serve_app.errors import MalformedRequest
from serve_app.grpc import inference_pb2 as pb
from serve_app.grpc import wire
from serve_app.grpc.wire import MAX_FIELDS, MAX_HEAD_BYTES
from tests.grpc.calls import image_request

PACKED = 1 << 20
MANY = 8 << 20
Request = pb.ModelInferRequest


def varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def field(number: int, content: bytes) -> bytes:
    """Of a message, text or bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def nested(content: bytes, *numbers: int) -> bytes:
    for number in reversed(numbers):
        content = field(number, content)
    return content


def whole(data: bytes) -> Request:
    """The request, put together again."""
    message, raw = wire.infer_request(data, PACKED)
    message.raw_input_contents.extend(map(bytes, raw))
    return message


def test_raw_tensors_are_views_of_the_message() -> None:
    data = image_request(b"1", b"2").SerializeToString()
    message, (raw,) = wire.infer_request(data, PACKED)
    assert raw.obj is data
    assert list(message.raw_input_contents) == []
    assert message.inputs[0].name == "image"


def test_a_large_tensor_is_not_copied() -> None:
    data = image_request(b"x" * MANY).SerializeToString()
    tracemalloc.start()
    try:
        wire.infer_request(data, PACKED)
        assert tracemalloc.get_traced_memory()[1] < MANY / 8
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        field(5, b"") * (MANY // 2),
        field(7, b"") * (MANY // 2),
        field(4, b"") * (MANY // 2),
        field(15, b"") * (MANY // 2),
        b"\x78\x00" * (MANY // 2),  # number 15, a varint
        nested(field(4, b"") * (MANY // 2), 5),
        nested(field(2, b"") * (MANY // 2), 6),
        nested(field(8, b"") * (MANY // 2), 5, 5),
        nested(b"\x20\x01" * (MANY // 2), 5, 5),  # uint_contents, not packed
    ],
    ids=[
        "inputs",
        "raw tensors",
        "parameters",
        "unknown fields",
        "unknown numbers",
        "parameters of an input",
        "parameters of an output",
        "files",
        "numbers one by one",
    ],
)
def test_millions_of_parts_are_refused_unparsed(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_parsed", None)
    with pytest.raises(MalformedRequest, match=f"more than {MAX_FIELDS:,} fields"):
        wire.infer_request(data, PACKED)


@pytest.mark.parametrize(
    "data",
    [
        field(1, b"x" * (MAX_HEAD_BYTES + 1)),
        nested(b"\x01" * (MAX_HEAD_BYTES + 1), 5, 3),
        nested(b"\x01" * (MAX_HEAD_BYTES + 1), 5, 5, 3),
        nested(b"\x0a\x00" * MAX_HEAD_BYTES, 4),
    ],
    ids=["a name", "a shape", "contents of no input", "a parameter"],
)
def test_what_is_no_tensor_is_small(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_parsed", None)
    with pytest.raises(MalformedRequest, match="without its tensors"):
        wire.infer_request(data, PACKED)


@pytest.mark.parametrize(("number", "weight"), [(4, 2), (6, 1)], ids=["pixels", "floats"])
def test_numbers_are_no_more_than_the_model_takes(number: int, weight: int) -> None:
    half = field(number, bytes(PACKED // weight // 2))
    assert whole(nested(half + half, 5, 5)).inputs[0].HasField("contents")
    with pytest.raises(MalformedRequest, match="than the largest input"):
        wire.infer_request(nested(half + half + field(number, bytes(4)), 5, 5), PACKED)


def test_as_many_files_as_a_config_may_allow_are_taken() -> None:
    files = [b"x"] * 1024
    request = Request(inputs=[Request.InferInputTensor(contents=pb.InferTensorContents(bytes_contents=files))])
    assert whole(request.SerializeToString()) == request


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"\x02\x00",  # number 0
        b"\x2a",
        b"\x2a\x05",
        b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\xff" * 11,
        b"\x2b\x2c",  # a group
        b"\x2e",
        b"\x0d\x00",
        b"\x09\x00\x00\x00",
        b"\x78" + b"\x80" * 11,
        field(1, b"\xff"),
        nested(b"\x2a\x05", 5),
        field(1, b"digits")[:-1],
    ],
    ids=bytes.hex,
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedRequest, match=r"the bytes are no inference\.ModelInferRequest"):
        wire.infer_request(data, PACKED)


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """With a byte put in, taken away or changed here and there."""

    def change(data: bytes, changes: list[tuple[int, bytes, int]]) -> bytes:
        for at, new, removed in changes:
            at %= len(data) + 1
            data = data[:at] + new + data[at + removed :]
        return data

    edits = st.tuples(st.integers(0, 1 << 16), st.binary(max_size=3), st.integers(0, 3))
    return st.builds(change, st.just(data), st.lists(edits, min_size=1, max_size=4))


def full_request() -> Request:
    """Something in every field that there is."""
    request = image_request(b"1", b"22")
    request.id = "an id"
    request.model_version = "1"
    for name, value in (("bool", True), ("int64", -1), ("string", "x"), ("double", 0.5), ("uint64", 1 << 63)):
        request.parameters[name].CopyFrom(pb.InferParameter(**{f"{name}_param": value}))  # type: ignore[arg-type]
    contents = request.inputs.add(name="pixels", datatype="UINT8", shape=[1, 300, -1]).contents
    for each in pb.InferTensorContents.DESCRIPTOR.fields:
        getattr(contents, each.name).extend([b"7", b""] if each.name == "bytes_contents" else [1, 0])
    request.outputs.add(name="logits").parameters["classification"].int64_param = 3
    return request


FULL = full_request().SerializeToString()


def test_a_full_request_comes_through_whole() -> None:
    assert whole(FULL) == full_request()


@given(st.binary(max_size=64) | mutated(FULL))
@example(FULL)
@example(FULL + FULL)
@example(b"\x8a\x80\x80\x80\x00\x00")
def test_it_reads_bytes_as_protobuf_does_or_not_at_all(data: bytes) -> None:
    try:
        found = whole(data)
    except MalformedRequest:
        return
    expected = Request.FromString(data)  # DecodeError: it took what protobuf does not
    assert found.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


@given(st.binary(max_size=64) | mutated(pb.ModelReadyRequest(name="digits", version="1").SerializeToString()))
def test_a_small_message_is_parsed_or_refused(data: bytes) -> None:
    try:
        expected = pb.ModelReadyRequest.FromString(data)
    except DecodeError:
        with pytest.raises(MalformedRequest, match=r"no inference\.ModelReadyRequest"):
            wire.message(pb.ModelReadyRequest, data)
    else:
        assert wire.message(pb.ModelReadyRequest, data) == expected


def test_a_small_message_is_small() -> None:
    with pytest.raises(MalformedRequest, match="262,145 bytes"):
        wire.message(pb.ModelReadyRequest, b"x" * (MAX_HEAD_BYTES + 1))
