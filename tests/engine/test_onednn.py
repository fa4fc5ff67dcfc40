"""Fused convolutions compute what the network did before; whatever cannot be fused safely is left."""

import operator

import pytest
import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from serve_app import architectures
from serve_app.engine import onednn

pytestmark = pytest.mark.skipif(not onednn.is_available(), reason="needs oneDNN on x86")


def folded(arch: str) -> nn.Module:
    """Random weights, and BatchNorm statistics that are not those of a fresh network."""
    torch.manual_seed(0)
    model = architectures.build(arch, 10).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    plain: nn.Module = fuse(model).to(memory_format=torch.channels_last)
    return plain


def images(count: int, channels: int = 3, side: int = 64) -> torch.Tensor:
    return torch.randn(count, channels, side, side).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "resnext50_32x4d", architectures.NARROW])
def test_every_convolution_is_fused_and_nothing_changes(arch: str) -> None:
    plain, fused = folded(arch), onednn.fused(folded(arch))
    assert not any(isinstance(module, nn.Conv2d) for module in fused.modules())
    called = [module for node in fused.graph.nodes if (module := onednn._module(fused, node)) is not None]
    assert not any(isinstance(module, nn.ReLU) for module in called)
    assert not any(node.target is operator.add for node in fused.graph.nodes)
    for count in (1, 5, 2):  # the weights are packed at the first
        pixels = images(count)
        before = pixels.clone()
        expected = plain(pixels)
        torch.testing.assert_close(fused(pixels), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert torch.equal(pixels, before)


class Awkward(nn.Module):
    """What is added is read again later, or is the input itself: neither may be overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, bias=False)
        self.relu = nn.ReLU()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        identity = self.relu(self.first(pixels) + pixels)
        result: torch.Tensor = self.relu(self.second(identity) + identity) - identity
        return result


@torch.inference_mode()
def test_what_is_needed_later_is_not_overwritten() -> None:
    torch.manual_seed(0)
    module = Awkward()
    fused = onednn.fused(fx.symbolic_trace(module))
    for _ in range(2):
        pixels = images(2, channels=4, side=8)
        before = pixels.clone()
        torch.testing.assert_close(fused(pixels), module(before))
        assert torch.equal(pixels, before)
