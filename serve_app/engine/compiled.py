"""`torch.compile` of a network, once for every batch size; what it makes is kept on disk."""

import torch
import torch._inductor.config

from serve_app.engine.network import Network, Top

COMPILE_PROCESSES = 4


class Compiled:
    """The network, compiled on its first batch; needs a C compiler, as Triton does.

    Torch keeps the result in TORCHINDUCTOR_CACHE_DIR (/tmp/torchinductor_USER), where the next replica of the
    same network, GPU and torch finds it. The batch dimension is symbolic, so a batch size costs no compilation
    of its own; a batch of one is a graph of its own, since torch specialises ones.
    """

    def __init__(self, network: Network) -> None:
        # By default as many as cores, each a Python of its own, in every replica.
        torch._inductor.config.compile_threads = COMPILE_PROCESSES
        self._network = torch.compile(network, fullgraph=True)

    def __call__(self, pixels: torch.Tensor) -> Top:
        if len(pixels) > 1:
            torch._dynamo.mark_dynamic(pixels, 0)
        top: Top = self._network(pixels)
        return top
