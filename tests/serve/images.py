"""Images that the stub device puts into a wanted class."""

from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image

from serve_app import weights
from serve_app.config import Args
from serve_app.decode import Decoder


@cache
def image_of_class(wanted: int) -> bytes:
    """A PNG of noise, found by trying: the class follows from the sum of its decoded pixels."""
    checkpoint = weights.load(Args(weights="bundled"))
    decode = Decoder(checkpoint.spec.geometry, max_image_pixels=10**6)
    generator = np.random.default_rng(wanted)
    while True:
        buffer = BytesIO()
        Image.fromarray(generator.integers(0, 256, (32, 32), dtype=np.uint8)).save(buffer, "PNG")
        if decode(buffer.getvalue()).sum(dtype=np.int64) % checkpoint.spec.num_classes == wanted:
            return buffer.getvalue()
