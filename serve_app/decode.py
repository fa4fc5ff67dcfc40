"""Image bytes -> uint8 (H, W, 3) crop for the network, on the CPU.

The result equals torchvision's `Resize`, `CenterCrop` (v2) of the decoded uint8 tensor pixel by pixel; what they make
of a PIL image differs in 0.2 % of a photo's values, by one level. Torch resizes, in a third of Pillow's time (0.3
against 0.9 ms). Nothing here knows HTTP or a device.
"""

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from serve_app.model_spec import Geometry
from serve_app.reader import STRIP_ROWS, Reader, write_pixels

Pixels = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), RGB, contiguous: a stack of them is a channels_last batch without a copy."""

Decode = Callable[[bytes], Pixels]
"""An image file -> its crop uint8 (crop_size, crop_size, 3). Raises what `Reader` raises."""

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# Beyond this aspect ratio the resized image would be huge (1 x 60,000 pixels would become 256 x 15
# million), so resize and crop are fused there, at the size of the crop: one level off at most
# (bicubic: 21, on noise).
MAX_EXACT_ASPECT = 16


class Decoder:
    """Decodes for one model: `decoder(data)` in any number of threads at once."""

    def __init__(self, geometry: Geometry, max_image_pixels: int, exif_orientation: bool = True) -> None:
        self._geometry = geometry
        self.read = Reader(max_image_pixels, exif_orientation)
        # Torch does, once, of Pillow's pixels, which it is only to read.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

    def __call__(self, data: bytes) -> Pixels:
        """uint8 (crop_size, crop_size, 3). Raises what `Reader` raises."""
        return resize_and_crop(self.read(data), self._geometry)


def resize_and_crop(image: Image.Image | Pixels, geometry: Geometry) -> Pixels:
    """As torchvision's `Resize(resize_size)`, `CenterCrop(crop_size)` with antialiasing, of an RGB image or its pixels.

    Of an image that is of this size already it may be a view.
    """
    own_width, own_height = image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])
    short, long = sorted((own_width, own_height))
    resized_long = int(geometry.resize_size * long / short)
    width, height = (
        (geometry.resize_size, resized_long) if own_width <= own_height else (resized_long, geometry.resize_size)
    )
    left = round((width - geometry.crop_size) / 2)
    top = round((height - geometry.crop_size) / 2)
    box = (left, top, left + geometry.crop_size, top + geometry.crop_size)
    if long <= MAX_EXACT_ASPECT * short:
        pixels = _pixels(image) if isinstance(image, Image.Image) else image
        resized = _resize(pixels, width, height, geometry.interpolation)
        return np.ascontiguousarray(resized[top : top + geometry.crop_size, left : left + geometry.crop_size])
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    x, y = own_width / width, own_height / height
    source = (box[0] * x, box[1] * y, min(box[2] * x, own_width), min(box[3] * y, own_height))
    resampling = RESAMPLING[geometry.interpolation]
    return np.asarray(image.resize((geometry.crop_size, geometry.crop_size), resampling, box=source))


def _pixels(image: Image.Image) -> Pixels:
    """uint8 (H, W, 3)."""
    if image.height <= STRIP_ROWS:
        return np.asarray(image)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    write_pixels(image, pixels.reshape(-1).data)
    return pixels


def _resize(pixels: Pixels, width: int, height: int, interpolation: str) -> Pixels:
    import torch  # not by the processes of the load generator, which import this file for its formats

    if pixels.shape[:2] == (height, width):
        return pixels
    with torch.inference_mode():
        # channels_last, as it lies in memory: torch has vector code for it, and nothing is copied.
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(image, (height, width), mode=interpolation, antialias=True)
        found: Pixels = resized[0].permute(1, 2, 0).numpy()
    return found
