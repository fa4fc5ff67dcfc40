"""Tensors as the protocol has them: a name, a datatype, a shape, and the elements.

Binary form: little-endian, row-major; of BYTES each element after its length as 4 bytes
(Triton's binary tensor data extension; `raw_input_contents` of gRPC is the same).
"""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.errors import BadTensor

BYTES = "BYTES"
DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "INT64": np.dtype("<i8"), "FP32": np.dtype("<f4")}
"""The datatypes of the model's tensors, without BYTES."""
MAX_NAME_LENGTH = 40
"""Of what a client sent, in a message for it."""
LENGTH = struct.Struct("<I")

Elements = npt.NDArray[Any] | list[bytes]
"""Of the tensor's shape; of BYTES a flat list."""


@dataclass(frozen=True)
class Tensor:
    name: str
    datatype: str
    """BYTES or one of DTYPES."""
    shape: tuple[int, ...]
    elements: Elements


def quoted(name: str) -> str:
    """A client's own word for a message to it, at most MAX_NAME_LENGTH characters, escapes and all."""
    return f"'{repr(name[:MAX_NAME_LENGTH])[1:-1][:MAX_NAME_LENGTH]}'"


def count(shape: Sequence[int]) -> int:
    """How many elements a tensor of this shape has."""
    return math.prod(shape)


def from_bytes(name: str, datatype: str, shape: tuple[int, ...], raw: memoryview) -> Tensor:
    """A tensor from its binary form; `raw` is not copied, except for BYTES.

    Raises BadTensor where shape and data do not agree.
    """
    if datatype == BYTES:
        return Tensor(name, datatype, shape, _split(name, count(shape), raw))
    dtype = DTYPES[datatype]
    if len(raw) != (expected := count(shape) * dtype.itemsize):
        raise BadTensor(
            f"input {name}: shape {list(shape)} of {datatype} takes {expected:,} bytes, and {len(raw):,} came"
        )
    return Tensor(name, datatype, shape, np.frombuffer(raw, dtype).reshape(shape))


def _split(name: str, number: int, raw: memoryview) -> list[bytes]:
    elements = []
    at = 0
    for i in range(number):
        start = at + LENGTH.size
        if start > len(raw):
            raise BadTensor(f"input {name}: its shape says {number} elements, and the data ends after {i}")
        (length,) = LENGTH.unpack_from(raw, at)
        at = start + length
        if at > len(raw):
            raise BadTensor(f"input {name}: element {i} says it has {length:,} bytes, more than the data holds")
        elements.append(bytes(raw[start:at]))
    if at != len(raw):
        raise BadTensor(
            f"input {name}: its shape says {number} elements, and {len(raw) - at:,} bytes are left over after them"
        )
    return elements


def from_list(name: str, datatype: str, shape: tuple[int, ...], values: Sequence[Any]) -> Tensor:
    """A tensor from numbers, flat or nested as its shape says; not for BYTES.

    Raises BadTensor where the values are not of the datatype, or do not agree with the shape.
    """
    flat = flattened(name, shape, values)
    kinds = {int, float} if datatype == "FP32" else {int}
    if not set(map(type, flat)) <= kinds:
        wanted = "numbers" if datatype == "FP32" else "whole numbers"
        raise BadTensor(f"input {name}: the elements of {datatype} are {wanted}")
    try:
        array = np.array(flat, np.float64 if datatype == "FP32" else np.int64)
    except OverflowError:
        raise _out_of_range(name, datatype) from None
    return from_array(name, datatype, shape, array)


def from_array(name: str, datatype: str, shape: tuple[int, ...], values: npt.NDArray[Any]) -> Tensor:
    """A tensor from numbers of another width, as many as its shape has.

    Raises BadTensor where one does not fit the datatype.
    """
    return Tensor(name, datatype, shape, _narrowed(name, datatype, values).reshape(shape))


def _narrowed(name: str, datatype: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    dtype = DTYPES[datatype]
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    # The comparison is False for NaN too: its own message follows where the values are looked at.
    if ((array < limits.min) | (array > limits.max)).any():
        raise _out_of_range(name, datatype)
    return array.astype(dtype, copy=False)


def _out_of_range(name: str, datatype: str) -> BadTensor:
    return BadTensor(f"input {name}: a value is out of the range of {datatype}")


def flattened(name: str, shape: Sequence[int], values: Sequence[Any]) -> Sequence[Any]:
    """The elements in row-major order, of values that are flat, or nested as the shape says.

    Raises BadTensor where there are more or fewer, or where they are nested otherwise.
    """
    if values and isinstance(values[0], list):  # a list further on is no element, and is refused as such
        values = _unnested(name, shape, values)
    if len(values) != count(shape):
        raise BadTensor(f"input {name}: shape {list(shape)} takes {count(shape):,} elements, and {len(values):,} came")
    return values


def _unnested(name: str, shape: Sequence[int], values: Sequence[Any]) -> Sequence[Any]:
    level: Sequence[Any] = [values]
    for size in shape:
        if not all(isinstance(each, list) and len(each) == size for each in level):
            raise BadTensor(f"input {name}: the data is not nested as its shape {list(shape)} says")
        level = list(chain.from_iterable(level))
    return level


def to_bytes(tensor: Tensor) -> bytes:
    """The binary form."""
    if isinstance(tensor.elements, list):
        return b"".join(_with_lengths(tensor.elements))
    raw: bytes = tensor.elements.astype(DTYPES[tensor.datatype], copy=False).tobytes()
    return raw


def _with_lengths(elements: Sequence[bytes]) -> Iterator[bytes]:
    for element in elements:
        yield LENGTH.pack(len(element))
        yield element


def to_list(tensor: Tensor) -> list[Any]:
    """The elements for JSON, flat; null where a value is no finite number, which JSON cannot say."""
    if isinstance(tensor.elements, list):
        return [element.decode("utf-8", "replace") for element in tensor.elements]
    flat = tensor.elements.ravel()
    values: list[Any] = flat.tolist()
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        return [value if math.isfinite(value) else None for value in values]
    return values
