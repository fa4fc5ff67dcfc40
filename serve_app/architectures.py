"""The networks that can be served, by name -> a torch module with random weights."""

import difflib

import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from serve_app.config import ConfigError

NARROW = "resnet10_narrow"
FAMILIES = ("resnet", "resnext", "wide_resnet")


class NarrowResNet(ResNet):
    """torchvision's ResNet with one block per stage and a quarter of the width: 0.3 M parameters.

    Its input may be as small as 32 x 32. The bundled checkpoint is one.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)
        self.inplanes = 16
        self.conv1 = nn.Conv2d(3, 16, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._make_layer(BasicBlock, 16, 1)
        self.layer2 = self._make_layer(BasicBlock, 32, 1, stride=2)
        self.layer3 = self._make_layer(BasicBlock, 64, 1, stride=2)
        self.layer4 = self._make_layer(BasicBlock, 128, 1, stride=2)
        self.fc = nn.Linear(128, num_classes)


def names() -> list[str]:
    """Every architecture that `build` knows."""
    torchvision_names = torchvision.models.list_models(module=torchvision.models)
    return [*(n for n in torchvision_names if n.startswith(FAMILIES)), NARROW]


def check(arch: str) -> str:
    """`arch` itself. Raises ConfigError, with the nearest names, if there is no such architecture."""
    if arch in names():
        return arch
    near = difflib.get_close_matches(arch, names(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names())}"
    raise ConfigError(f"arch: no ResNet is called {arch!r}; {hint}")


def build(arch: str, num_classes: int) -> nn.Module:
    """The network in training mode, fp32, on the CPU: float32 (N, 3, H, W) -> float32 (N, num_classes)."""
    if check(arch) == NARROW:
        return NarrowResNet(num_classes)
    model: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=num_classes)
    return model
