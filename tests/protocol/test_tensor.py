import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.errors import BadTensor
from serve_app.protocol import tensor
from serve_app.protocol.tensor import DTYPES, MAX_NAME_LENGTH, Tensor, quoted
from tests.protocol.values import ANY, MAX_MESSAGE, made

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def refused(error: pytest.ExceptionInfo[BadTensor]) -> str:
    assert len(error.value.message) < MAX_MESSAGE
    return error.value.message


@pytest.mark.parametrize(
    ("elements", "datatype", "raw"),
    [
        (np.array([1.0, -2.0], np.float32), "FP32", "0000803f 000000c0"),
        (np.array([258, -1], np.int64), "INT64", "0201000000000000 ffffffffffffffff"),
        (np.array([0, 255], np.uint8), "UINT8", "00 ff"),
        ([b"ab", b""], "BYTES", "02000000 6162 00000000"),
    ],
    ids=["FP32", "INT64", "UINT8", "BYTES"],
)
def test_the_binary_form_is_little_endian_and_bytes_follow_their_length(elements: Any, datatype: str, raw: str) -> None:
    assert tensor.to_bytes(Tensor("x", datatype, (2,), elements)) == bytes.fromhex(raw)


def test_the_binary_form_of_a_big_endian_array_is_little_endian() -> None:
    assert tensor.to_bytes(Tensor("x", "INT64", (1,), np.array([1], ">i8"))) == b"\x01" + bytes(7)


def test_the_binary_form_of_a_transposed_array_is_row_major() -> None:
    columns = np.arange(6, dtype=np.uint8).reshape(2, 3).T
    assert tensor.to_bytes(Tensor("x", "UINT8", (3, 2), columns)) == bytes([0, 3, 1, 4, 2, 5])


@settings(deadline=None)
@given(st.sampled_from(sorted(DTYPES)), SHAPES, st.data())
def test_numbers_come_back_from_their_binary_form(datatype: str, shape: tuple[int, ...], data: st.DataObject) -> None:
    size = math.prod(shape) * DTYPES[datatype].itemsize
    raw = data.draw(st.binary(min_size=size, max_size=size))
    found = tensor.from_bytes("x", datatype, shape, memoryview(raw))
    assert isinstance(found.elements, np.ndarray)
    assert (found.elements.shape, found.elements.dtype) == (shape, DTYPES[datatype])
    assert tensor.to_bytes(found) == raw


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=5))
def test_bytes_come_back_from_their_binary_form(elements: list[bytes]) -> None:
    raw = tensor.to_bytes(Tensor("x", "BYTES", (len(elements),), elements))
    assert tensor.from_bytes("x", "BYTES", (len(elements),), memoryview(raw)).elements == elements


def test_numbers_are_not_copied_from_their_binary_form_wherever_they_begin() -> None:
    body = bytearray(9)
    found = tensor.from_bytes("x", "FP32", (2,), memoryview(body)[1:])
    assert isinstance(found.elements, np.ndarray)
    assert np.shares_memory(found.elements, np.frombuffer(body, np.uint8))


@pytest.mark.parametrize("length", [0, 1, 7, 9, 16])
def test_binary_data_of_another_length_than_the_shape_says_is_refused(length: int) -> None:
    with pytest.raises(BadTensor) as error:
        tensor.from_bytes("x", "FP32", (2, 1), memoryview(bytes(length)))
    assert refused(error) == f"input x: shape [2, 1] of FP32 takes 8 bytes, and {length} came"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "says 2 elements, and the data ends after 0"),
        (b"\1\0\0\0a", "says 2 elements, and the data ends after 1"),
        (b"\1\0\0\0a\0\0\0", "says 2 elements, and the data ends after 1"),
        (b"\2\0\0\0a", "element 0 says it has 2 bytes, more than the data holds"),
        (b"\1\0\0\0a\xff\xff\xff\xffb", "element 1 says it has 4,294,967,295 bytes, more than the data holds"),
        (b"\0\0\0\0\0\0\0\0x", "says 2 elements, and 1 bytes are left over after them"),
    ],
)
def test_bytes_that_do_not_agree_with_their_lengths_are_refused(raw: bytes, words: str) -> None:
    with pytest.raises(BadTensor) as error:
        tensor.from_bytes("x", "BYTES", (2,), memoryview(raw))
    assert words in refused(error)


@settings(deadline=None)
@given(st.sampled_from([*sorted(DTYPES), "BYTES"]), SHAPES, st.binary(max_size=64))
def test_any_binary_data_is_a_tensor_or_refused(datatype: str, shape: tuple[int, ...], raw: bytes) -> None:
    found = made(lambda: tensor.from_bytes("x", datatype, shape, memoryview(raw)))
    assert found is None or tensor.to_bytes(found) == raw


@pytest.mark.parametrize(
    "values", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]], [[1, 2.0, 3], [4, 5, 6]]], ids=["flat", "nested", "mixed"]
)
def test_numbers_are_flat_or_nested_as_the_shape_says(values: list[Any]) -> None:
    found = tensor.from_list("x", "FP32", (2, 3), values)
    assert isinstance(found.elements, np.ndarray)
    assert found.elements.dtype == np.float32
    assert found.elements.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("datatype", "values", "words"),
    [
        ("UINT8", [1, 2, 3], "shape [2, 2] takes 4 elements, and 3 came"),
        ("UINT8", [], "shape [2, 2] takes 4 elements, and 0 came"),
        ("UINT8", [1, 2, 3, 4, 5], "shape [2, 2] takes 4 elements, and 5 came"),
        ("UINT8", [[1, 2], [3]], "not nested as its shape [2, 2] says"),
        ("UINT8", [[1, 2, 3, 4]], "not nested as its shape [2, 2] says"),
        ("UINT8", [[1, 2], 3], "not nested as its shape [2, 2] says"),
        ("UINT8", [[[1], [2]], [[3], [4]]], "whole numbers"),
        ("UINT8", [[], []], "not nested as its shape [2, 2] says"),
        ("UINT8", [1, 2, 3, [4]], "whole numbers"),
        ("UINT8", [1, 2, 3, 256], "a value is out of the range of UINT8"),
        ("UINT8", [1, 2, 3, -1], "a value is out of the range of UINT8"),
        ("UINT8", [1, 2, 3, 10**30], "a value is out of the range of UINT8"),
        ("UINT8", [1, 2, 3, 4.0], "whole numbers"),
        ("UINT8", [1, 2, 3, True], "whole numbers"),
        ("UINT8", [1, 2, 3, None], "whole numbers"),
        ("UINT8", [1, 2, 3, "4"], "whole numbers"),
        ("UINT8", [1, 2, 3, {}], "whole numbers"),
        ("FP32", [1, 2, 3, True], "the elements of FP32 are numbers"),
        ("FP32", [1, 2, 3, "4"], "the elements of FP32 are numbers"),
        ("FP32", [1, 2, 3, 1e39], "a value is out of the range of FP32"),
        ("FP32", [1, 2, 3, -1e39], "a value is out of the range of FP32"),
        ("FP32", [1, 2, 3, math.inf], "a value is out of the range of FP32"),
        ("FP32", [1, 2, 3, 10**400], "a value is out of the range of FP32"),
    ],
)
def test_elements_that_are_not_what_the_tensor_says_are_refused(datatype: str, values: list[Any], words: str) -> None:
    with pytest.raises(BadTensor) as error:
        tensor.from_list("x", datatype, (2, 2), values)
    assert words in refused(error)


@pytest.mark.parametrize("value", [float(np.finfo(np.float32).max), -3.4028234663852886e38, 1e-46, -0.0])
def test_every_number_in_the_range_of_fp32_is_taken(value: float) -> None:
    found = tensor.from_list("x", "FP32", (1,), [value])
    assert isinstance(found.elements, np.ndarray)
    assert found.elements.tolist() == [float(np.float32(value))]


@settings(deadline=None)
@given(st.sampled_from(["UINT8", "FP32"]), SHAPES, st.lists(ANY, max_size=6))
def test_any_list_is_a_tensor_or_refused(datatype: str, shape: tuple[int, ...], values: list[Any]) -> None:
    found = made(lambda: tensor.from_list("x", datatype, shape, values))
    assert found is None or np.shape(found.elements) == shape


@settings(deadline=None)
@given(
    SHAPES.flatmap(
        lambda shape: st.lists(st.integers(0, 255), min_size=math.prod(shape), max_size=math.prod(shape)).map(
            lambda values: np.array(values, np.uint8).reshape(shape)
        )
    )
)
def test_nested_and_flat_values_are_one_tensor(array: Any) -> None:
    for values in (array.tolist(), array.ravel().tolist()):
        found = tensor.from_list("x", "UINT8", array.shape, values)
        assert np.array_equal(found.elements, array)


def test_values_for_json_are_flat_and_null_where_they_are_no_finite_number() -> None:
    array = np.array([[1.5, math.nan], [math.inf, -math.inf]], np.float32)
    assert tensor.to_list(Tensor("x", "FP32", (2, 2), array)) == [1.5, None, None, None]


def test_bytes_for_json_are_text_mended_where_they_are_no_utf_8() -> None:
    texts = [b"K\xc3\xa4fer", b"\xff"]
    assert tensor.to_list(Tensor("x", "BYTES", (2,), texts)) == ["Käfer", "\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize(
    "name",
    ["", "x", "it's", 'a"b', "\n", "x" * 5000, "\U000e0001" * 5000, "\0" * 41, "'\"" * 40],
    ids=lambda name: ascii(name)[:20],
)
def test_a_clients_word_is_quoted_and_cut(name: str) -> None:
    shown = quoted(name)
    assert shown.isprintable()
    assert (shown[0], shown[-1]) == ("'", "'")
    assert len(shown) <= MAX_NAME_LENGTH + 2


def test_there_are_as_many_elements_as_the_sizes_multiply_to() -> None:
    assert [tensor.count(shape) for shape in ((), (0, 5), (2, 3, 4))] == [1, 0, 24]
