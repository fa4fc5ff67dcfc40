"""The networks that can be served, by name -> a torch module with random weights.

torch and torchvision are imported by `build` alone: `serve-app check` and `run` look at names only,
and with torchvision they would be 650 MB larger for as long as the service runs.
"""

import difflib
from typing import TYPE_CHECKING

from serve_app.config import ConfigError

if TYPE_CHECKING:
    from torch import nn

NARROW = "resnet10_narrow"
NAMES = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("wide_resnet50_2", "wide_resnet101_2"),
    NARROW,
)


def check(arch: str) -> str:
    """`arch` itself. Raises ConfigError, with the nearest names, if there is no such architecture."""
    if arch in NAMES:
        return arch
    near = difflib.get_close_matches(arch, NAMES, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(NAMES)}"
    raise ConfigError(f"arch: no ResNet is called {arch!r}; {hint}")


def build(arch: str, num_classes: int) -> "nn.Module":
    """The network in training mode, fp32, on the CPU: float32 (N, 3, H, W) -> float32 (N, num_classes)."""
    import torchvision

    from serve_app.narrow_resnet import NarrowResNet

    if check(arch) == NARROW:
        return NarrowResNet(num_classes)
    model: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=num_classes)
    return model
