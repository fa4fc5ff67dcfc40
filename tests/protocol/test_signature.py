import base64
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.engine.base import Normalised
from serve_app.errors import BadTensor
from serve_app.protocol.signature import Signature, from_base64
from serve_app.protocol.tensor import Tensor
from tests.protocol.values import ANY, MAX_MESSAGE, made

MAX_IMAGES = 8
SIDES = [3, 4, 224]


def check(name: str, datatype: str, shape: tuple[int, ...], side: int = 4) -> None:
    Signature(side, 10).check_input(name, datatype, shape, MAX_IMAGES)


def refusal(name: str, datatype: str, shape: tuple[int, ...], side: int = 4) -> str:
    with pytest.raises(BadTensor) as error:
        check(name, datatype, shape, side)
    assert len(error.value.message) < MAX_MESSAGE
    return error.value.message


def arrays(tensor: Tensor, side: int) -> list[Any]:
    images = Signature(side, 10).images(tensor)
    return [image.pixels if isinstance(image, Normalised) else image for image in images]


@pytest.mark.parametrize("number", [1, 2, MAX_IMAGES])
@pytest.mark.parametrize("side", SIDES)
def test_every_input_is_taken_in_both_of_its_layouts(side: int, number: int) -> None:
    check("image", "BYTES", (number,), side)
    check("image", "BYTES", (number, 1), side)
    for name, datatype in (("pixels", "UINT8"), ("normalized", "FP32")):
        check(name, datatype, (number, side, side, 3), side)
        check(name, datatype, (number, 3, side, side), side)


@pytest.mark.parametrize(
    ("name", "datatype", "shape", "words"),
    [
        ("", "BYTES", (1,), "no input ''; the model takes one of image, pixels, normalized"),
        ("Image", "BYTES", (1,), "no input 'Image'"),
        ("x" * 10**6, "BYTES", (1,), "no input"),
        ("image", "UINT8", (1,), "input image is BYTES, not 'UINT8'"),
        ("pixels", "FP32", (1, 4, 4, 3), "input pixels is UINT8, not 'FP32'"),
        ("pixels", "x" * 10**6, (1, 4, 4, 3), "input pixels is UINT8, not 'xxx"),
        ("image", "BYTES", (), "its shape is [N, 1] or [N], not []"),
        ("image", "BYTES", (1, 2), "its shape is [N, 1] or [N], not [1, 2]"),
        ("image", "BYTES", (1, 1, 1), "its shape is [N, 1] or [N], not [1, 1, 1]"),
        ("pixels", "UINT8", (), "its shape is [N, 4, 4, 3] or [N, 3, 4, 4], not []"),
        ("pixels", "UINT8", (4, 4, 3), "not [4, 4, 3]"),
        ("pixels", "UINT8", (1, 4, 4, 4), "not [1, 4, 4, 4]"),
        ("pixels", "UINT8", (1, 5, 5, 3), "not [1, 5, 5, 3]"),
        ("pixels", "UINT8", (1, 4, 3, 4), "not [1, 4, 3, 4]"),
        ("normalized", "FP32", (1, 4, 4, 1), "its shape is [N, 3, 4, 4] or [N, 4, 4, 3], not [1, 4, 4, 1]"),
        ("pixels", "UINT8", (-1, 4, 4, 3), "a size below zero in its shape [-1, 4, 4, 3]"),
        ("pixels", "UINT8", (-1, -4, -4, 3), "a size below zero"),
        ("pixels", "UINT8", (-(10**4000), 4, 4, 3), "a size below zero in its shape [-1000000000, 4, 4, 3]"),
        ("pixels", "UINT8", (1, 10**4000, 4, 3), "not [1, 1000000000, 4, 3]"),
        ("pixels", "UINT8", (1,) * 10**5, "not [1, 1, 1, 1, 1, 1, 1, 1]"),
        ("image", "BYTES", (0,), "a request holds 1 to 8 images (max_images), not 0"),
        ("pixels", "UINT8", (0, 4, 4, 3), "a request holds 1 to 8 images (max_images), not 0"),
        ("image", "BYTES", (9, 1), "a request holds 1 to 8 images (max_images), not 9"),
        ("image", "BYTES", (10**4000,), "a request holds 1 to 8 images (max_images), not 1,000,000,000"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else None,
)
def test_what_the_model_does_not_take_is_refused_with_what_it_takes(
    name: str, datatype: str, shape: tuple[int, ...], words: str
) -> None:
    assert words in refusal(name, datatype, shape)


@pytest.mark.parametrize("side", SIDES)
def test_images_are_hwc_and_normalised_ones_chw_whatever_the_layout_they_came_in(side: int) -> None:
    hwc = np.arange(2 * side * side * 3).reshape(2, side, side, 3)
    chw = hwc.transpose(0, 3, 1, 2)
    cases: list[tuple[str, str, Any, Any]] = [
        ("pixels", "UINT8", hwc.astype(np.uint8), hwc.astype(np.uint8)),
        ("pixels", "UINT8", chw.astype(np.uint8), hwc.astype(np.uint8)),
        ("normalized", "FP32", chw.astype(np.float32), chw.astype(np.float32)),
        ("normalized", "FP32", hwc.astype(np.float32), chw.astype(np.float32)),
    ]
    if side == 3:  # both layouts fit: the documented one counts
        cases[1] = ("pixels", "UINT8", chw.astype(np.uint8), chw.astype(np.uint8))
        cases[3] = ("normalized", "FP32", hwc.astype(np.float32), hwc.astype(np.float32))
    for name, datatype, given_array, expected in cases:
        found = arrays(Tensor(name, datatype, given_array.shape, given_array), side)
        assert np.array_equal(np.stack(found), expected)
        assert all(image.flags.c_contiguous for image in found)


def test_images_in_the_documented_layout_are_not_copied() -> None:
    pixels, normalised = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 3, 4, 4), np.float32)
    assert all(np.shares_memory(i, pixels) for i in arrays(Tensor("pixels", "UINT8", pixels.shape, pixels), 4))
    found = arrays(Tensor("normalized", "FP32", normalised.shape, normalised), 4)
    assert all(np.shares_memory(i, normalised) for i in found)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_normalised_value_that_is_no_finite_number_is_refused(value: float) -> None:
    batch = np.zeros((2, 3, 4, 4), np.float32)
    batch[1, 2, 3, 3] = value
    with pytest.raises(BadTensor, match="a value is not a finite number"):
        Signature(4, 10).images(Tensor("normalized", "FP32", batch.shape, batch))


def test_files_are_images_as_they_are() -> None:
    assert Signature(4, 10).images(Tensor("image", "BYTES", (2, 1), [b"a", b"b"])) == [b"a", b"b"]


def test_outputs_are_of_the_models_classes() -> None:
    signature = Signature(4, 10)
    shapes = {output.name: output.shape for output in signature.outputs}
    assert shapes == {"class_ids": (-1,), "labels": (-1,), "probabilities": (10,), "logits": (10,)}
    for name in signature.output_names:
        signature.check_output(name)


@pytest.mark.parametrize("name", ["", "LOGITS", "pixels", "x" * 10**6, "\U000e0001" * 99])
def test_an_unknown_output_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(BadTensor, match="the model gives class_ids, labels, probabilities, logits") as error:
        Signature(4, 10).check_output(name)
    assert len(error.value.message) < MAX_MESSAGE


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=4))
def test_base64_comes_back_as_the_bytes_it_was(files: list[bytes]) -> None:
    assert from_base64("image", [base64.b64encode(file).decode() for file in files]) == files


@pytest.mark.parametrize(
    "value",
    [
        "=",
        "a",
        "YQ",
        "YQ=",
        "YQ==\n",
        " YQ==",
        "YQ-_",
        "YQ==YQ==",
        "é",
        "data:image/png;base64,YQ==",
        None,
        1,
        ["YQ=="],
    ],
)
def test_what_is_no_base64_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(BadTensor, match="input image: element 1 is not"):
        from_base64("image", ["YQ==", value])


@settings(deadline=None)
@given(st.lists(ANY, max_size=3))
def test_any_values_are_base64_or_refused(values: list[object]) -> None:
    found = made(lambda: from_base64("image", values))
    assert found is None or all(isinstance(each, bytes) for each in found)
