"""From pixels to top classes and logits: all that an engine runs on its device, as one module."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.fx.experimental.optimization import fuse

from serve_app.model_spec import Geometry

if TYPE_CHECKING:
    from serve_app.weights import Checkpoint


class Top(NamedTuple):
    """The answers to N images, one a row."""

    scores: torch.Tensor
    """float32 (N, k), softmax probabilities, best first"""
    class_ids: torch.Tensor
    """int64 (N, k), in the order of `scores`"""
    logits: torch.Tensor
    """float32 (N, num_classes), by class id"""


class Network(torch.nn.Module):
    """uint8 (N, crop_size, crop_size, 3) -> Top; channels_last, normalisation and BatchNorm folded in.

    Folded in fp32, before the weights are rounded to `dtype`.
    """

    def __init__(self, checkpoint: "Checkpoint", dtype: torch.dtype, top_k: int) -> None:
        super().__init__()
        self.normalise = Normalise(checkpoint.spec.geometry, dtype)
        model = fuse(checkpoint.build_model())
        exact = ExactLinear(model.get_submodule("fc"))
        self.model = model.to(memory_format=torch.channels_last).to(dtype)
        self.model.fc = exact
        self._top_k = top_k
        self.eval()

    def forward(self, pixels: torch.Tensor) -> Top:
        return self.top(self.normalise(pixels))

    def inputs(self, pixels: torch.Tensor, rows: Sequence[int], normalised: torch.Tensor) -> torch.Tensor:
        """`pixels`, normalised, with `normalised` as it is in the given rows: what `top` takes.

        `pixels`: uint8 (N, crop_size, crop_size, 3); its `rows` may hold anything. `normalised`: float32 (len(rows), 3,
        crop_size, crop_size). Returns (N, 3, crop_size, crop_size) channels_last of the network's dtype.
        """
        inputs: torch.Tensor = self.normalise(pixels)
        for row, image in zip(rows, normalised, strict=True):
            inputs[row].copy_(image)
        return inputs

    def top(self, inputs: torch.Tensor) -> Top:
        """(N, 3, crop_size, crop_size) channels_last of the network's dtype, normalised -> Top."""
        return top_classes(self.model(inputs), self._top_k)


class ExactLinear(torch.nn.Module):
    """A linear layer in fp32, whatever the network's dtype.

    bf16 rounds a logit of 16 by up to 1/32: 62 of 63 photos kept their first class, and with this all of them.
    """

    def __init__(self, linear: torch.nn.Module) -> None:
        super().__init__()
        self._linear = copy.deepcopy(linear).float()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._linear(features.float())
        return logits


class Normalise(torch.nn.Module):
    """uint8 (N, H, W, 3) -> (N, 3, H, W) channels_last of `dtype`, scaled to the network's mean and std."""

    def __init__(self, geometry: Geometry, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        mean, std = torch.tensor(geometry.mean), torch.tensor(geometry.std)
        self._dtype = dtype
        self.register_buffer("scale", (1 / (255 * std)).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        # The permuted view of a contiguous NHWC tensor is channels_last already: no copy. The
        # arithmetic is fp32 whatever the network's dtype: bf16 has too few bits for 0..255.
        channels_first = pixels.permute(0, 3, 1, 2).float()
        normalised: torch.Tensor = channels_first.mul_(self.scale).add_(self.shift)
        return normalised.to(self._dtype)


def top_classes(logits: torch.Tensor, k: int) -> Top:
    """(N, num_classes) of any float dtype -> the k best of each row."""
    logits = logits.float()
    scores, class_ids = logits.softmax(dim=1).topk(k, dim=1)
    return Top(scores, class_ids, logits)
