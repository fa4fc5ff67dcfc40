"""torch on a CUDA device: channels_last, bf16, pinned staging buffers, one stream."""

import traceback
from collections.abc import Sequence

import numpy as np
import torch

from serve_app.decode import Pixels
from serve_app.engine.base import Engine, Normalise, Prediction, blank, top_classes
from serve_app.weights import Checkpoint


class CudaEngine(Engine):
    def __init__(self, checkpoint: Checkpoint, precision: str, top_k: int) -> None:
        super().__init__(top_k)
        self._device = torch.device("cuda", torch.cuda.current_device())
        self.device = str(self._device)
        native_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        self.precision = ("bf16" if native_bf16 else "fp32") if precision == "auto" else precision
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self._geometry = checkpoint.spec.geometry
        self._normalise = Normalise(self._geometry, dtype).to(self._device)
        self._model = checkpoint.build_model().to(self._device, dtype).to(memory_format=torch.channels_last)
        self._stream = torch.cuda.Stream(self._device)
        # Pageable memory copies at a third of the speed of pinned memory (17 against 50 GB/s on an
        # H200). One buffer suffices: `_run` ends with a synchronisation, so none is in use after it.
        self._staging = torch.empty(0, dtype=torch.uint8)

    def start(self) -> None:
        torch.cuda.set_device(self._device)
        torch.set_num_threads(1)

    def _blank(self) -> Pixels:
        return blank(self._geometry)

    def infer(self, images: Sequence[Pixels]) -> list[Prediction]:
        try:
            return super().infer(images)
        except torch.OutOfMemoryError as error:
            # The parts of the batch run next: they need its memory, which the frames of its failure hold.
            traceback.clear_frames(error.__traceback__)
            torch.cuda.empty_cache()
            raise

    def _copy_in(self, images: Sequence[Pixels], bucket: int) -> torch.Tensor:
        staging = self._staging_buffer(bucket)
        np.stack(images, out=staging[: len(images)].numpy())
        with torch.cuda.stream(self._stream):
            return staging.to(self._device, non_blocking=True)

    @torch.inference_mode()
    def _forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.cuda.stream(self._stream):
            return top_classes(self._model(self._normalise(pixels)), self._top_k)

    def _copy_out(self, top: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.cuda.stream(self._stream):
            scores, class_ids = (tensor.to("cpu", non_blocking=True) for tensor in top)
        self._stream.synchronize()
        return scores, class_ids

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def _between_ms(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return float(start.elapsed_time(end))

    def _staging_buffer(self, bucket: int) -> torch.Tensor:
        """Pinned uint8 (bucket, crop_size, crop_size, 3), part of the largest one needed so far.

        Rows past the batch hold old pixels: padding, whose results are dropped.
        """
        if len(self._staging) < bucket:
            side = self._geometry.crop_size
            self._staging = torch.empty((bucket, side, side, 3), dtype=torch.uint8, pin_memory=True)
        return self._staging[:bucket]
