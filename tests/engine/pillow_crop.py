"""What the resize kernel is to compute, by Pillow, columns first in all of its versions."""

import numpy as np
from PIL import Image, ImageOps

from serve_app.decode import RESAMPLING, Pixels
from serve_app.model_spec import Geometry

ORIENTATION_TAG = 0x0112


def upright(pixels: Pixels, orientation: int) -> Image.Image:
    image = Image.fromarray(pixels)
    image.getexif()[ORIENTATION_TAG] = orientation
    return ImageOps.exif_transpose(image)


def pillow_crop(pixels: Pixels, geometry: Geometry, orientation: int = 1) -> Pixels:
    """uint8 (crop_size, crop_size, 3) of stored `pixels`, uint8 (height, width, 3)."""
    image = upright(pixels, orientation)
    size = [int(geometry.resize_size * side / min(image.size)) for side in image.size]
    left, top = (round((side - geometry.crop_size) / 2) for side in size)
    resampling = RESAMPLING[geometry.interpolation]
    # One axis at a time: Pillow 13 takes the rows first where an image loses many more of them than columns.
    resized = image.resize((size[0], image.height), resampling).resize((size[0], size[1]), resampling)
    return np.asarray(resized.crop((left, top, left + geometry.crop_size, top + geometry.crop_size)))
