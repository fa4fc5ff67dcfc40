"""JPEG bytes -> crops in the network's input, on the GPU: nvJPEG, then the resize kernel.

nvJPEG is called through torchvision, which is here anyway. Its codecs are deprecated since 0.29 in favour of
torchcodec (10 MB more, no FFmpeg for images, batches on the GPU since 0.16). But that one always turns photos
upright in a pass of its own, by its own reading of EXIF, which the kernel does for nothing and by Pillow's. When
torchvision drops them, `nvjpeg` is the one function to change.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from itertools import pairwise

import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from serve_app.decode import Decode, Pixels
from serve_app.errors import RequestError
from serve_app.jpeg import Jpeg
from serve_app.model_spec import Geometry

logger = logging.getLogger(__name__)

DecodeBatch = Callable[[list[torch.Tensor]], list[torch.Tensor]]
"""Bytes of JPEGs, uint8 (length,) on the CPU -> uint8 (3, height, width) on the device; RuntimeError if one fails."""

# Of memory while they are decoded: 1.2 GB. 256 photos of 12 MP would want 9 GB at once.
MAX_PIXELS_PER_CALL = 400_000_000
FALLBACK_THREADS = 4


def nvjpeg(encoded: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """As DecodeBatch. The GIL is free meanwhile."""
    return list(decode_jpeg(encoded, mode=ImageReadMode.RGB, device=device))


class GpuDecoder:
    """Decodes for one model. One thread drives it."""

    def __init__(
        self, geometry: Geometry, fallback: Decode, device: torch.device, decode_batch: DecodeBatch | None = None
    ) -> None:
        """`fallback`: the CPU path, for what the GPU refuses. `decode_batch`: None is nvJPEG on `device`.

        Raises ImportError without Triton.
        """
        from serve_app.engine.resize_kernel import resize_into  # where there is no CUDA there may be no Triton

        self._resize_into = resize_into
        self._geometry = geometry
        self._fallback = fallback
        self._device = device
        self._decode_batch = decode_batch or partial(nvjpeg, device=device)
        self._threads = ThreadPoolExecutor(FALLBACK_THREADS, "decode")
        self._has_warned = False
        self._staging = torch.empty(0, dtype=torch.uint8)
        # Neither is news at every batch: bytes are not writable, and nvJPEG does not write to them.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities of TorchVision")

    def warm_up(self) -> None:
        """Loads nvJPEG and compiles the kernel: seconds that the first batch would take longer.

        Raises RuntimeError where nvJPEG is not to be had, which `decode_into` would pass to the CPU unnoticed.
        """
        jpeg = BLANK
        out = torch.empty((1, *self._crop_shape), dtype=torch.uint8, device=self._device)
        self._decode_together([jpeg])
        self.decode_into([jpeg], out)
        self._settle()

    @torch.inference_mode()
    def decode_into(self, images: Sequence[Jpeg | Pixels], out: torch.Tensor) -> dict[int, RequestError]:
        """Each image into its row of `out`; what could not be decoded, by its place, whose rows stay as they are.

        `images`: JPEGs, and crops uint8 (crop_size, crop_size, 3). `out`: uint8 (at least len(images), crop_size,
        crop_size, 3) on the device, contiguous. It is written on the current stream: returns before that is past it.
        """
        self._settle()
        jpegs = {i: image for i, image in enumerate(images) if isinstance(image, Jpeg)}
        crops = {i: image for i, image in enumerate(images) if not isinstance(image, Jpeg)}
        errors: dict[int, RequestError] = {}
        refused = [i for group in _groups(jpegs) for i in self._decode_group(group, out)]
        for i, found in zip(refused, self._threads.map(self._on_the_cpu, [jpegs[i] for i in refused]), strict=True):
            if isinstance(found, RequestError):
                errors[i] = found
            else:
                crops[i] = found
        self._copy_in(crops, out)
        return errors

    def _on_the_cpu(self, jpeg: Jpeg) -> Pixels | RequestError:
        try:
            return self._fallback(jpeg.data)
        except RequestError as error:
            return error

    def _decode_group(self, jpegs: dict[int, Jpeg], out: torch.Tensor) -> list[int]:
        """The places of those that the GPU refuses; the others are in their rows of `out`."""
        decoded = dict(zip(jpegs, self._decode(list(jpegs.values())), strict=True))
        done = {i: image for i, image in decoded.items() if image is not None}
        if done:
            self._resize_into(
                list(done.values()), [jpegs[i].orientation for i in done], list(done), out, self._geometry
            )
        return [i for i in decoded if i not in done]

    def _decode(self, jpegs: list[Jpeg]) -> list[torch.Tensor | None]:
        """uint8 (3, height, width) each, on the device; None for those that the GPU refuses."""
        try:
            return self._decode_together(jpegs)
        except RuntimeError as error:
            self._warn_once(error)
            self._settle_all()
        if len(jpegs) == 1:
            return [None]
        # One damaged image fails its whole list: halving finds it in fewer calls than one for each.
        half = len(jpegs) // 2
        return self._decode(jpegs[:half]) + self._decode(jpegs[half:])

    def _decode_together(self, jpegs: list[Jpeg]) -> list[torch.Tensor | None]:
        # nvJPEG's hardware engine starts at once, not when the stream gets there, and writes into memory that the
        # allocator hands out again although kernels queued on this stream still read it: the resize of the last
        # images, whose tensors are gone (pytorch/vision#9606, meta-pytorch/torchcodec#1634). So none may be queued.
        self._settle()
        decoded = self._decode_batch([torch.frombuffer(jpeg.data, dtype=torch.uint8) for jpeg in jpegs])
        # The kernel reads as much as the shape says; nvJPEG might understand another size than `jpeg.parse`.
        return [
            image if image.shape == (3, jpeg.height, jpeg.width) else None
            for image, jpeg in zip(decoded, jpegs, strict=True)
        ]

    def _copy_in(self, crops: dict[int, Pixels], out: torch.Tensor) -> None:
        """Through pinned memory, rows that lie side by side in one copy. It is not in use: `decode_into` settled it."""
        if not crops:
            return
        rows = sorted(crops)
        staging = self._staging_buffer(rows[-1] + 1)
        for row in rows:
            staging[row].numpy()[:] = crops[row]
        for start, end in _runs(rows):
            out[start:end].copy_(staging[start:end], non_blocking=True)

    def _staging_buffer(self, size: int) -> torch.Tensor:
        """uint8 (at least size, crop_size, crop_size, 3), pinned where there is a GPU."""
        if len(self._staging) < size:
            is_pinned = self._device.type == "cuda"
            self._staging = torch.empty((size, *self._crop_shape), dtype=torch.uint8, pin_memory=is_pinned)
        return self._staging

    @property
    def _crop_shape(self) -> tuple[int, int, int]:
        return (self._geometry.crop_size, self._geometry.crop_size, 3)

    def _settle(self) -> None:
        """Wait until the current stream has done all that was queued on it."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()

    def _settle_all(self) -> None:
        """The same of every stream: a decode that failed halfway may still write. Raises what broke the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()  # it may have been for want of memory: torchvision does not tell

    def _warn_once(self, error: RuntimeError) -> None:
        """A log must not grow with what clients send; but a GPU that decodes nothing is to be noticed."""
        logger.log(
            logging.DEBUG if self._has_warned else logging.WARNING,
            "JPEGs that the GPU did not decode are decoded on the CPU (said once): %s",
            str(error).partition("\n")[0],
        )
        self._has_warned = True


def _groups(jpegs: dict[int, Jpeg]) -> Iterator[dict[int, Jpeg]]:
    """Of MAX_PIXELS_PER_CALL at most, or of one image."""
    group: dict[int, Jpeg] = {}
    pixels = 0
    for i, jpeg in jpegs.items():
        pixels += jpeg.width * jpeg.height
        if group and pixels > MAX_PIXELS_PER_CALL:
            yield group
            group, pixels = {}, jpeg.width * jpeg.height
        group[i] = jpeg
    if group:
        yield group


def _runs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and past the last of each run of consecutive rows; `rows` ascend."""
    starts = [i for i, row in enumerate(rows) if i == 0 or row != rows[i - 1] + 1]
    for start, end in pairwise([*starts, len(rows)]):
        yield rows[start], rows[end - 1] + 1


def _gray(width: int, height: int) -> Jpeg:
    file = BytesIO()
    Image.new("RGB", (width, height), (128, 128, 128)).save(file, "JPEG")
    return Jpeg(file.getvalue(), width, height, orientation=1)


BLANK = _gray(500, 375)
"""To warm up with: of a usual photo's size."""
