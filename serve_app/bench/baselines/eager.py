"""The network as torchvision gives it: channels first, one float tensor per image, nothing prepared."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from serve_app.decode import Pixels
from serve_app.engine.base import StagedEngine, blank
from serve_app.engine.network import Top
from serve_app.weights import Checkpoint


class EagerEngine(StagedEngine):
    def __init__(self, checkpoint: Checkpoint, precision: str, top_k: int, device: str) -> None:
        super().__init__(top_k)
        self.device = device
        self.precision = precision
        self._geometry = checkpoint.spec.geometry
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._mean = torch.tensor(self._geometry.mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(self._geometry.std, device=device).view(3, 1, 1)
        self._model = checkpoint.build_model().to(device, self._dtype)

    def _blank(self) -> Pixels:
        return blank(self._geometry)

    def _copy_in(self, images: Sequence[Any], bucket: int) -> torch.Tensor:
        """float32 (number of images, 3, crop_size, crop_size); no padding."""
        tensors = [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 for image in images]
        return torch.stack(tensors).to(self.device)

    @torch.inference_mode()
    def _forward(self, pixels: torch.Tensor) -> Top:
        inputs = ((pixels - self._mean) / self._std).to(self._dtype)
        logits = self._model(inputs)
        scores, class_ids = logits.softmax(dim=1).topk(self._top_k)
        return Top(scores, class_ids, logits)

    def _copy_out(self, top: Top) -> Top:
        return Top(top.scores.float().cpu(), top.class_ids.cpu(), top.logits.float().cpu())
