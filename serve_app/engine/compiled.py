"""`torch.compile` of a network, once for every batch size; what it makes is kept on disk."""

import logging

import torch

from serve_app.engine.network import Network, Top

logger = logging.getLogger(__name__)


class Compiled:
    """The network, compiled on its first batch; needs a C compiler, as Triton does.

    Torch keeps the result in TORCHINDUCTOR_CACHE_DIR (/tmp/torchinductor_USER), where the next replica of the
    same network, GPU and torch finds it. The batch dimension is symbolic, so a batch size costs no compilation
    of its own; a batch of one is a graph of its own, since torch specialises ones.
    """

    def __init__(self, network: Network) -> None:
        self._network = torch.compile(network, fullgraph=True)

    def __call__(self, pixels: torch.Tensor) -> Top:
        if len(pixels) > 1:
            torch._dynamo.mark_dynamic(pixels, 0)
        top: Top = self._network(pixels)
        return top
