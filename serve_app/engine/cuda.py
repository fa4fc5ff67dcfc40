"""torch on a CUDA device: bf16, compiled, one CUDA graph per bucket, two batches in flight.

A batch with a Normalised in it runs without compile and graph: graphs are of uint8 pixels.

While one batch is on the device the next is written into pinned memory and copied, on a stream of its own.
A graph costs 20 us to launch instead of 2-4 ms, and those milliseconds hold the GIL that HTTP needs.
"""

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from time import perf_counter

import numpy as np
import torch

from serve_app.decode import Decode
from serve_app.engine.base import STAGES, Engine, Execution, Item, Normalised, blank, set_apart
from serve_app.engine.compiled import Compiled
from serve_app.engine.network import Network, Top
from serve_app.errors import RequestError
from serve_app.jpeg import Jpeg
from serve_app.weights import Checkpoint

logger = logging.getLogger(__name__)

CAPTURE_AFTER_RUNS = 2
"""Eager runs before a graph is captured: for cuDNN to choose its algorithms."""
UNALLOCATED_BYTES = 1 << 30
"""Of a process's share of the memory, for what torch's allocator does not count: CUDA itself, cuDNN, nvJPEG."""
COMPILED_FOR = 32
"""Images for which the code for every batch size is tuned."""


@dataclass
class Graph:
    """The network for batches of one size, recorded."""

    pixels: torch.Tensor
    """uint8 (bucket, crop_size, crop_size, 3), read by it."""
    top: Top
    """Written by it, `bucket` rows."""
    graph: torch.cuda.CUDAGraph


class Slot:
    """The buffers of one batch in flight, for up to `size` images."""

    def __init__(self, size: int, crop_size: int, top_k: int, num_classes: int, device: torch.device) -> None:
        shape = (size, crop_size, crop_size, 3)
        # Pageable memory copies at a third of the speed of pinned memory (17 against 50 GB/s on an H200).
        self.staging = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self.pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        self.normalised: tuple[list[int], torch.Tensor] | None = None
        """Of a batch that has any: their places, and float32 (len(places), 3, crop_size, crop_size) on the device.

        Held here until the device is done with the batch: it is made on one stream and read on another.
        """
        self.top = Top(
            scores=torch.empty((size, top_k), dtype=torch.float32, pin_memory=True),
            class_ids=torch.empty((size, top_k), dtype=torch.int64, pin_memory=True),
            logits=torch.empty((size, num_classes), dtype=torch.float32, pin_memory=True),
        )
        # Blocking: who waits sleeps. Spinning, each replica would keep a core from those that decode.
        self.done = torch.cuda.Event(blocking=True)


class CudaEngine(Engine):
    max_in_flight = 2

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: str,
        top_k: int,
        compile_network: bool | None = None,
        decoder: Decode | None = None,
        memory_share: float = 1.0,
    ) -> None:
        """`compile_network`: None compiles where it can. `decoder`: for what the GPU cannot decode, where it is
        to decode at all. `memory_share`: of the device's memory, what this process may allocate.
        """
        super().__init__(top_k)
        self._device = torch.device("cuda", torch.cuda.current_device())
        self.device = str(self._device)
        if memory_share < 1:
            total = torch.cuda.get_device_properties(self._device).total_memory
            allocated = max(memory_share - UNALLOCATED_BYTES / total, memory_share / 2)
            torch.cuda.set_per_process_memory_fraction(allocated, self._device)
        native_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        self.precision = ("bf16" if native_bf16 else "fp32") if precision == "auto" else precision
        self._geometry = checkpoint.spec.geometry
        self._num_classes = checkpoint.spec.num_classes
        self._blank_crop = blank(self._geometry)
        network = Network(checkpoint, torch.bfloat16 if self.precision == "bf16" else torch.float32, top_k)
        self._network = network.to(self._device)
        self._run_network: Callable[[torch.Tensor], Top] = self._network
        self._compile = compile_network
        self._decoder = decoder
        self._copying = torch.cuda.Stream(self._device)
        self._computing = torch.cuda.Stream(self._device)
        self._graphs: dict[int, Graph] = {}
        self._pool = torch.cuda.graph_pool_handle()  # of one memory: graphs run one after another
        self._pixels = torch.empty(0)
        self._slots: SimpleQueue[Slot] = SimpleQueue()

    def start(self) -> None:
        torch.cuda.set_device(self._device)
        torch.set_num_threads(1)
        torch.backends.cudnn.allow_tf32 = False  # asked for fp32, torch would compute in TF32
        torch.backends.cudnn.benchmark = True  # each shape runs for ever: its best algorithm is worth a trial
        self._grow(COMPILED_FOR)
        if self._compile is not False:
            self._try_to_compile()
        if self._decoder is not None:
            from serve_app.engine.gpu_decode import GpuDecoder  # Triton, which only this path needs

            self._gpu_decoder = GpuDecoder(self._geometry, self._decoder, self._device)
            with torch.cuda.stream(self._copying):
                self._gpu_decoder.warm_up()

    def _try_to_compile(self) -> None:
        started = perf_counter()
        try:
            compiled = Compiled(self._network)
            with torch.inference_mode():
                for size in (1, COMPILED_FOR):
                    compiled(self._pixels[:size])
        except Exception as error:
            if self._compile:
                raise
            self._do_without_compilation(error)
            return
        self._run_network, self.is_compiled = compiled, True
        logger.info("The network was compiled, or found compiled, in %.1f s", perf_counter() - started)

    def _blank(self) -> Item:
        if self._decoder is None:
            return self._blank_crop
        from serve_app.engine.gpu_decode import BLANK

        return BLANK

    def _prepare(self, size: int) -> None:
        before = self._pixels, self._slots
        try:
            self._grow(size)
            self._graphs[size] = self._graphs.get(size) or self._capture(size)
        except torch.OutOfMemoryError as error:
            self._pixels, self._slots = before
            _release_memory_of(error)
            raise
        except Exception as error:
            if self._compile or not self.is_compiled:
                raise
            self._do_without_compilation(error)
            self._prepare(size)

    def _do_without_compilation(self, error: Exception) -> None:
        reason = str(error).strip().partition("\n")[0]
        logger.warning("The network runs without torch.compile, and slower: %s", reason)
        self._run_network, self.is_compiled = self._network, False

    def _grow(self, size: int) -> None:
        """Buffers for batches of `size`, at least doubled. No batch is in flight."""
        if len(self._pixels) >= size:
            return
        size = max(size, 2 * len(self._pixels))  # doubled, for graphs keep the buffer that they were captured with
        side = self._geometry.crop_size
        slots = [Slot(size, side, self._top_k, self._num_classes, self._device) for _ in range(self.max_in_flight)]
        self._pixels = torch.zeros((size, side, side, 3), dtype=torch.uint8, device=self._device)
        self._slots = SimpleQueue()
        for slot in slots:
            self._slots.put(slot)

    @torch.inference_mode()
    def _capture(self, size: int) -> Graph:
        pixels = self._pixels[:size]
        torch.cuda.synchronize(self._device)
        with torch.cuda.stream(self._computing):
            for _ in range(CAPTURE_AFTER_RUNS):
                self._run_network(pixels)
        self._computing.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Thread-local: another thread of the process may use CUDA meanwhile, as Ray's metrics do.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._computing, capture_error_mode="thread_local"):
            top = self._run_network(pixels)
        return Graph(pixels, top, graph)

    def _launch(self, images: Sequence[Item], bucket: int) -> Execution:
        started = perf_counter()
        slot = self._slots.get()
        try:
            errors = self._copy_in(slot, images)
            self._copying.record_event(copied := torch.cuda.Event())
            self._computing.wait_event(copied)
            self._copy_out(slot, self._run(slot, len(images), bucket))
            slot.done.record(self._computing)
        except BaseException as error:
            try:
                torch.cuda.synchronize(self._device)
            finally:  # a device that is broken raises here too: nobody is to wait for its slot
                self._give_back(slot)
            if isinstance(error, torch.OutOfMemoryError):
                _release_memory_of(error)
            raise
        return Execution(len(images), started, lambda: self._collect(slot, len(images)), errors)

    def _collect(self, slot: Slot, num_images: int) -> Top:
        """Once the device is done. Copies, for the slot is another batch's then."""
        try:
            slot.done.synchronize()
            return Top(*(part[:num_images].clone() for part in slot.top))
        finally:
            self._give_back(slot)

    def _give_back(self, slot: Slot) -> None:
        slot.normalised = None
        self._slots.put(slot)

    # --- the three stages, each on its stream ---------------------------------------------------------

    def _copy_in(self, slot: Slot, images: Sequence[Item]) -> Mapping[int, RequestError]:
        """Into the slot's pixels on the device; what could not be decoded, by its place."""
        crops, normalised = set_apart(images, self._blank_crop)
        with torch.cuda.stream(self._copying):
            if normalised:
                slot.normalised = list(normalised), self._copy_in_normalised(list(normalised.values()))
            if any(isinstance(crop, Jpeg) for crop in crops):
                errors: dict[int, RequestError] = self._gpu_decoder.decode_into(crops, slot.pixels)
                return errors
            np.stack(crops, out=slot.staging[: len(images)].numpy())
            slot.pixels[: len(images)].copy_(slot.staging[: len(images)], non_blocking=True)
        return {}

    def _copy_in_normalised(self, images: Sequence[Normalised]) -> torch.Tensor:
        """float32 (len(images), 3, crop_size, crop_size) on the device, on the current stream."""
        shape = (len(images), 3, self._geometry.crop_size, self._geometry.crop_size)
        staging = torch.empty(shape, dtype=torch.float32, pin_memory=True)  # kept by its allocator until it is copied
        np.stack([image.pixels for image in images], out=staging.numpy())
        return torch.empty(shape, dtype=torch.float32, device=self._device).copy_(staging, non_blocking=True)

    def _run(self, slot: Slot, num_images: int, bucket: int) -> Top:
        # Rows past the batch hold old pixels: padding, whose results are dropped.
        with torch.cuda.stream(self._computing):
            if slot.normalised is not None:
                return self._run_normalised(slot.pixels[:bucket], *slot.normalised)
            return self._replay(slot, num_images, bucket)

    def _replay(self, slot: Slot, num_images: int, bucket: int) -> Top:
        # From a slot's pixels into those of the graph is 25 us for 256 images: so batches in flight share graphs.
        graph = self._graphs[bucket]
        graph.pixels[:num_images].copy_(slot.pixels[:num_images])
        graph.graph.replay()
        return graph.top

    @torch.inference_mode()
    def _run_normalised(self, pixels: torch.Tensor, rows: Sequence[int], normalised: torch.Tensor) -> Top:
        """Without compile and graph; nothing warms it up, so the first batch of each size takes longer."""
        return self._network.top(self._network.inputs(pixels, rows, normalised))

    def _copy_out(self, slot: Slot, top: Top) -> None:
        with torch.cuda.stream(self._computing):
            for ours, theirs in zip(slot.top, top, strict=True):
                ours[: len(theirs)].copy_(theirs, non_blocking=True)

    def profile(self, images: Sequence[Item]) -> dict[str, float]:
        slot = self._slots.get()
        try:
            return self._profiled(slot, images)
        finally:
            self._give_back(slot)

    def _profiled(self, slot: Slot, images: Sequence[Item]) -> dict[str, float]:
        bucket = self._bucket(len(images))
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(STAGES) + 1)]
        marks[0].record(self._copying)
        self._copy_in(slot, images)
        marks[1].record(self._copying)
        self._computing.wait_event(marks[1])
        top = self._run(slot, len(images), bucket)
        marks[2].record(self._computing)
        self._copy_out(slot, top)
        marks[3].record(self._computing)
        marks[3].synchronize()
        return {stage: float(marks[i].elapsed_time(marks[i + 1])) for i, stage in enumerate(STAGES)}


def _release_memory_of(error: torch.OutOfMemoryError) -> None:
    """What runs next needs the memory that the frames of this failure hold."""
    traceback.clear_frames(error.__traceback__)
    torch.cuda.empty_cache()
