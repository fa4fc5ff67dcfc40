"""torch on the CPU: channels_last, bf16 where the processor computes in it, a bounded number of threads."""

from collections.abc import Sequence

import numpy as np
import torch

from serve_app.decode import Pixels
from serve_app.engine.base import Engine, Normalise, blank, top_classes
from serve_app.weights import Checkpoint


def has_fast_bf16() -> bool:
    """Whether this processor multiplies matrices in bf16 (AMX).

    avx512_bf16 alone does not pay: 16 images of a resnet18 took 433 ms in it and 368 in fp32 (two cores
    of a Xeon without AMX, torch 2.15); with AMX bf16 was four times faster.
    """
    return bool(torch.cpu._is_amx_tile_supported())


class CpuEngine(Engine):
    def __init__(self, checkpoint: Checkpoint, precision: str, top_k: int, num_threads: int) -> None:
        super().__init__(top_k)
        self.device = "cpu"
        self.precision = ("bf16" if has_fast_bf16() else "fp32") if precision == "auto" else precision
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self._num_threads = num_threads
        self._geometry = checkpoint.spec.geometry
        self._normalise = Normalise(self._geometry, dtype)
        self._model = checkpoint.build_model().to(dtype).to(memory_format=torch.channels_last)

    def start(self) -> None:
        # The number belongs to the calling thread (OpenMP keeps it per thread): set elsewhere, it has
        # no effect here.
        torch.set_num_threads(self._num_threads)

    def _blank(self) -> Pixels:
        return blank(self._geometry)

    def _copy_in(self, images: Sequence[Pixels], bucket: int) -> torch.Tensor:
        batch = np.zeros((bucket, *images[0].shape), dtype=np.uint8)
        np.stack(images, out=batch[: len(images)])
        return torch.from_numpy(batch)

    @torch.inference_mode()
    def _forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return top_classes(self._model(self._normalise(pixels)), self._top_k)
