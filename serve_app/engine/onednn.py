"""A network's convolutions, each with what follows it, as one oneDNN primitive; on x86 CPUs.

What `torch.compile` with freezing makes of them, at once and without a C++ compiler. resnet18, bf16, two cores of an
EPYC, images/s one by one and in batches of 8: with the BatchNorm folded alone 131 and 214, this 196 and 218, compiled
184 and 234, OpenVINO 220 and 240 (180 MB more to install, and 1 ms less). The operators are those that inductor
calls; they are not documented.
"""

import operator
import platform
from dataclasses import dataclass

import torch
from torch import fx, nn

PACKED_FOR = 8
"""Images for which the layout of the weights is chosen."""


def is_available() -> bool:
    operators = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")
    return (
        platform.machine() == "x86_64"
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in operators)
    )


def fused(model: nn.Module) -> fx.GraphModule:
    """The same network, changed in place: its dtype is final, and its inputs are to be channels_last."""
    assert isinstance(model, fx.GraphModule)  # noqa: S101 - as folding the BatchNorms left it
    order = {node: place for place, node in enumerate(model.graph.nodes)}
    convs = [node for node in order if isinstance(_module(model, node), nn.Conv2d)]
    for chain in [_chain(model, conv, order) for conv in convs]:
        _replace(model, chain)
    model.recompile()
    return model


class FusedConv(nn.Module):
    """A convolution, a tensor that is added to it, a ReLU: the last two optional. The tensor is overwritten."""

    def __init__(self, conv: nn.Conv2d, relu: bool) -> None:
        super().__init__()
        self._weight = conv.weight.detach()
        self._bias = None if conv.bias is None else conv.bias.detach()
        self._geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self._activation: tuple[str, list[None], str] = ("relu" if relu else "none", [], "")
        self._is_packed = False

    def forward(self, pixels: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """float (N, in, H, W) and (N, out, H', W') -> (N, out, H', W'), all channels_last."""
        if not self._is_packed:
            self._pack(pixels)
        arguments = (pixels, self._weight, self._bias, *self._geometry)
        result: torch.Tensor
        if other is None:
            result = torch.ops.mkldnn._convolution_pointwise(*arguments, *self._activation)
        else:
            run = torch.ops.mkldnn._convolution_pointwise_.binary
            result = run(other, *arguments, "add", 1.0, *self._activation)
        return result

    def _pack(self, pixels: torch.Tensor) -> None:
        size = [PACKED_FOR, *pixels.shape[1:]]
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(self._weight, *self._geometry, size)
        self._is_packed = True


@dataclass(frozen=True)
class _Chain:
    """Nodes of a graph that become one."""

    conv: fx.Node
    add: fx.Node | None
    relu: fx.Node | None


def _chain(model: fx.GraphModule, conv: fx.Node, order: dict[fx.Node, int]) -> _Chain:
    add = next(iter(conv.users))
    if not _may_absorb(conv, add, order):
        return _Chain(conv, None, _relu_after(model, conv))
    return _Chain(conv, add, _relu_after(model, add))


def _may_absorb(conv: fx.Node, add: fx.Node, order: dict[fx.Node, int]) -> bool:
    """Whether what is added to the convolution can be overwritten: nobody reads it later."""
    if add.target is not operator.add or len(conv.users) > 1 or add.args[0] is not conv:
        return False
    other = add.args[1]
    if not isinstance(other, fx.Node) or other.op != "call_module":
        return False
    return max(order[user] for user in other.users) == order[add]


def _relu_after(model: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    user = next(iter(node.users))
    return user if len(node.users) == 1 and isinstance(_module(model, user), nn.ReLU) else None


def _replace(model: fx.GraphModule, chain: _Chain) -> None:
    name = f"fused_{chain.conv.target}".replace(".", "_")
    conv = model.get_submodule(str(chain.conv.target))
    assert isinstance(conv, nn.Conv2d)  # noqa: S101 - chosen for it
    model.add_submodule(name, FusedConv(conv, chain.relu is not None))
    other = () if chain.add is None else (chain.add.args[1],)
    nodes = [node for node in (chain.relu, chain.add, chain.conv) if node is not None]
    with model.graph.inserting_before(nodes[0]):
        nodes[0].replace_all_uses_with(model.graph.call_module(name, (chain.conv.args[0], *other)))
    for node in nodes:
        model.graph.erase_node(node)
    model.delete_submodule(str(chain.conv.target))


def _module(model: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None
