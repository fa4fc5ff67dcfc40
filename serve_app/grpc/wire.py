"""A request's bytes -> its message, bounded before protobuf sees it.

Protobuf makes an object of every part of a message, whatever the limits of who reads it: 65 MiB of empty
inputs took it 18 s. So the wire format is walked first (protobuf.dev/programming-guides/encoding), which
costs a few microseconds per part, and the raw tensors, nearly all of a request, never go through protobuf.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from serve_app.errors import MalformedRequest
from serve_app.grpc.inference_pb2 import InferTensorContents, ModelInferRequest

MAX_FIELDS = 4096
"""Of a request, with those of its inputs and outputs: `bytes_contents` has one for each image, 1024 at most."""
MAX_HEAD_BYTES = 256 << 10
"""Of a request without the elements of its tensors, and of any other message."""
VARINT, DELIMITED = 0, 2
FIXED_SIZES = {1: 8, 5: 4}
MAX_VARINT_BYTES = 10
WIRE_TYPES = {VARINT, DELIMITED, *FIXED_SIZES}
MIN_TAG, MAX_TAG = 1 << 3, (1 << 32) - 1

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class _Level:
    """A message of a request: its fields that are messages with many parts, and those that hold elements."""

    messages: "Mapping[int, _Level]" = field(default_factory=dict)
    elements: frozenset[int] = frozenset()
    packed: Mapping[int, int] = field(default_factory=dict)
    """Of numbers, and how much each byte of them counts."""


def _numbers(message: type[Message], *names: str) -> frozenset[int]:
    return frozenset(message.DESCRIPTOR.fields_by_name[name].number for name in names)


(RAW,) = _numbers(ModelInferRequest, "raw_input_contents")
_CONTENTS = _Level(
    elements=_numbers(InferTensorContents, "bytes_contents"),
    # A pixel takes one byte or two, and a float four.
    packed={
        **dict.fromkeys(_numbers(InferTensorContents, "uint_contents"), 2),
        **dict.fromkeys(_numbers(InferTensorContents, "fp32_contents"), 1),
    },
)
_INPUT = _Level(dict.fromkeys(_numbers(ModelInferRequest.InferInputTensor, "contents"), _CONTENTS))
_REQUEST = _Level(
    {
        **dict.fromkeys(_numbers(ModelInferRequest, "inputs"), _INPUT),
        **dict.fromkeys(_numbers(ModelInferRequest, "outputs"), _Level()),
    },
    frozenset({RAW}),
)


class _Field(NamedTuple):
    number: int
    wire_type: int
    start: int
    """Of its tag; its value is from `at` to `end`."""
    at: int
    end: int


def message(kind: type[M], data: bytes) -> M:
    """A small message. Raises MalformedRequest."""
    if len(data) > MAX_HEAD_BYTES:
        raise MalformedRequest(f"the message has {len(data):,} bytes, and may have {MAX_HEAD_BYTES:,}")
    return _parsed(kind, data)


def infer_request(data: bytes, max_packed_bytes: int) -> tuple[ModelInferRequest, Sequence[memoryview]]:
    """The message without its `raw_input_contents`, and those, which are not copied.

    `max_packed_bytes`: of a tensor's numbers that are not raw. Raises MalformedRequest.
    """
    _Look(data, max_packed_bytes).at_request()
    view = memoryview(data)
    raw = []
    rest = []
    for each in _fields(data, 0, len(data)):
        if (each.number, each.wire_type) == (RAW, DELIMITED):
            raw.append(view[each.at : each.end])
        else:
            rest.append(view[each.start : each.end])
    return _parsed(ModelInferRequest, b"".join(rest)), raw


def _parsed(kind: type[M], data: bytes) -> M:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise MalformedRequest(f"the bytes are no {kind.DESCRIPTOR.full_name}") from None


class _Look:
    """Goes through a request, and raises MalformedRequest where there is too much of anything."""

    def __init__(self, data: bytes, max_packed_bytes: int) -> None:
        self._data = data
        self._packed_left = max_packed_bytes
        self._fields_left = MAX_FIELDS
        self._head_bytes = len(data)

    def at_request(self) -> None:
        self._within(_REQUEST, 0, len(self._data))
        if self._packed_left < 0:
            raise MalformedRequest("the numbers in contents have more bytes than the largest input of the model")
        if self._head_bytes > MAX_HEAD_BYTES:
            raise MalformedRequest(
                f"the request has {self._head_bytes:,} bytes without its tensors, and may have {MAX_HEAD_BYTES:,}; "
                "numbers are to be packed, as protobuf does by default, or sent as raw_input_contents"
            )

    def _within(self, level: _Level, start: int, end: int) -> None:
        for each in _fields(self._data, start, end):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise MalformedRequest(f"the request has more than {MAX_FIELDS:,} fields")
            if each.wire_type != DELIMITED:
                continue
            if each.number in level.messages:
                self._within(level.messages[each.number], each.at, each.end)
            elif each.number in level.elements or each.number in level.packed:
                self._head_bytes -= each.end - each.at
                self._packed_left -= (each.end - each.at) * level.packed.get(each.number, 0)


def _fields(data: bytes, at: int, end: int) -> Iterator[_Field]:
    """Those of one message. Raises MalformedRequest; of a group too, which proto3 does not have."""
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        number, wire_type = tag >> 3, tag & 7
        stop = at
        if wire_type == VARINT:
            _, stop = _varint(data, at, end)
        elif wire_type == DELIMITED:
            length, at = _varint(data, at, end)
            stop = at + length
        elif wire_type in FIXED_SIZES:
            stop = at + FIXED_SIZES[wire_type]
        if wire_type not in WIRE_TYPES or stop > end or not MIN_TAG <= tag <= MAX_TAG:
            raise _no_message()
        yield _Field(number, wire_type, start, at, stop)
        at = stop


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number, and where it ends."""
    if at < end and data[at] < 0x80:  # most are of one byte
        return data[at], at + 1
    value = 0
    for i, byte in enumerate(data[at : min(end, at + MAX_VARINT_BYTES)]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise _no_message()


def _no_message() -> MalformedRequest:
    return MalformedRequest(f"the bytes are no {ModelInferRequest.DESCRIPTOR.full_name}")
