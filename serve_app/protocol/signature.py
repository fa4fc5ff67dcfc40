"""What the model takes and gives, and how a request's tensors become images.

A request holds one of three inputs:

    image        BYTES (N) or (N, 1)               files, as they are: JPEG, PNG, ...; base64 where the tensor is JSON
    pixels       UINT8 (N, H, W, 3) or (N, 3, H, W)   RGB of the network's geometry
    normalized   FP32  (N, 3, H, W) or (N, H, W, 3)   the same, scaled to the network's mean and std already
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serve_app.decode import Pixels
from serve_app.engine.base import Normalised
from serve_app.errors import BadTensor
from serve_app.protocol.request import MAX_RANK
from serve_app.protocol.tensor import BYTES, Tensor, quoted

CHANNELS = 3
MAX_SHOWN = 10**9
"""Of a size, in a message for who sent it."""

Image = bytes | Pixels | Normalised
"""A file, a uint8 (crop_size, crop_size, 3) crop, or float32 (3, crop_size, crop_size)."""


@dataclass(frozen=True)
class TensorSpec:
    name: str
    datatype: str
    shape: tuple[int, ...]
    """Of one image; -1 where the request decides."""


class Signature:
    """The inputs and outputs of a network with crops of `crop_size` and `num_classes` classes."""

    def __init__(self, crop_size: int, num_classes: int) -> None:
        self.crop_size = crop_size
        self.inputs = (
            TensorSpec("image", BYTES, (1,)),
            TensorSpec("pixels", "UINT8", (crop_size, crop_size, CHANNELS)),
            TensorSpec("normalized", "FP32", (CHANNELS, crop_size, crop_size)),
        )
        self.outputs = (
            TensorSpec("class_ids", "INT64", (-1,)),
            TensorSpec("labels", BYTES, (-1,)),
            TensorSpec("probabilities", "FP32", (num_classes,)),
            TensorSpec("logits", "FP32", (num_classes,)),
        )

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(output.name for output in self.outputs)

    def check_input(self, name: str, datatype: str, shape: Sequence[int], max_images: int) -> None:
        """Raise BadTensor where no input may be so: to be asked before its data is read."""
        spec = self._input(name)
        if datatype != spec.datatype:
            raise BadTensor(f"input {name} is {spec.datatype}, not {quoted(datatype)}")
        if any(size < 0 for size in shape):
            raise BadTensor(f"input {name}: a size below zero in its shape {_given(shape)}")
        if not shape or tuple(shape[1:]) not in self.layouts(spec):
            raise BadTensor(f"input {name}: its shape is {self._shapes(spec)}, not {_given(shape)}")
        if not 1 <= shape[0] <= max_images:
            raise BadTensor(
                f"input {name}: a request holds 1 to {max_images} images (max_images), not {_shown(shape[0]):,}"
            )

    def check_output(self, name: str) -> None:
        """Raise BadTensor where there is no such output."""
        if name not in self.output_names:
            raise BadTensor(f"no output {quoted(name)}; the model gives {', '.join(self.output_names)}")

    def images(self, tensor: Tensor) -> list[Image]:
        """The images of a tensor whose shape has been checked.

        Raises BadTensor for values that are no numbers.
        """
        if isinstance(tensor.elements, list):
            return list(tensor.elements)
        batch = self._in_own_layout(tensor)
        if tensor.datatype == "UINT8":
            return list(batch)
        if not np.isfinite(batch).all():
            raise BadTensor(f"input {tensor.name}: a value is not a finite number")
        return [Normalised(image) for image in batch]

    def _input(self, name: str) -> TensorSpec:
        spec = next((each for each in self.inputs if each.name == name), None)
        if spec is None:
            names = ", ".join(each.name for each in self.inputs)
            raise BadTensor(f"no input {quoted(name)}; the model takes one of {names}")
        return spec

    def layouts(self, spec: TensorSpec) -> tuple[tuple[int, ...], ...]:
        """Of one image: the documented one first, which counts where both fit (crops of 3 x 3)."""
        if spec.datatype == BYTES:
            return ((1,), ())
        side = self.crop_size
        other = (CHANNELS, side, side) if spec.datatype == "UINT8" else (side, side, CHANNELS)
        return (spec.shape, other)

    def _in_own_layout(self, tensor: Tensor) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
        """UINT8 (N, H, W, 3), FP32 (N, 3, H, W), contiguous."""
        batch = np.asarray(tensor.elements)
        if batch.shape[1:] != self._input(tensor.name).shape:
            batch = batch.transpose(0, 2, 3, 1) if tensor.datatype == "UINT8" else batch.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(batch)

    def _shapes(self, spec: TensorSpec) -> str:
        return " or ".join(str(["N", *layout]).replace("'", "") for layout in self.layouts(spec))


def _given(shape: Sequence[int]) -> str:
    return str([_shown(size) for size in shape[:MAX_RANK]])


def _shown(size: int) -> int:
    return max(-MAX_SHOWN, min(size, MAX_SHOWN))


def from_base64(name: str, values: Sequence[object]) -> list[bytes]:
    """The elements of a BYTES input in JSON, where bytes have to be base64. Raises BadTensor."""
    return [_decoded(name, i, value) for i, value in enumerate(values)]


def _decoded(name: str, i: int, value: object) -> bytes:
    if not isinstance(value, str):
        raise BadTensor(f"input {name}: element {i} is not a string of base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise BadTensor(f"input {name}: element {i} is not base64; without it images go as a binary tensor") from None
