"""The images that a measurement sends or decodes: files of a folder, or generated JPEGs."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from serve_app.config import ConfigError
from serve_app.decode import Decoder
from serve_app.errors import RequestError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
MAX_TOTAL_BYTES = 256 << 20  # every generator process holds them all
GENERATED = 16  # distinct ones, so that nobody answers from a cache
JPEG_QUALITY = 90
# Amplitudes fall with the frequency as in photos; with this much of it a 500 x 375 JPEG has some 100 kB,
# the mean of the photos that this project was measured with.
CONTRAST = 33.0


@dataclass(frozen=True)
class Images:
    """Encoded images, and what they are in a phrase."""

    files: tuple[bytes, ...]
    description: str

    @property
    def mean_bytes(self) -> float:
        return sum(map(len, self.files)) / len(self.files)


def from_folder(folder: Path) -> Images:
    """The image files below `folder`, by suffix, in order, up to 256 MiB. Raises ConfigError if there are none."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    files: list[bytes] = []
    total = 0
    for path in paths:
        total += path.stat().st_size
        if files and total > MAX_TOTAL_BYTES:
            break
        try:
            files.append(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
    if not files:
        raise ConfigError(f"{folder}: there is no image in it ({', '.join(sorted(SUFFIXES))})")
    left_out = f" (the first of {len(paths)})" if len(files) < len(paths) else ""
    return _described(files, f"files from {folder.name or folder}{left_out}")


def generated(width: int, height: int, seed: int = 0) -> Images:
    """JPEGs of `width` x `height` pixels with a photo's spectrum: they cost about what photos cost to decode."""
    generator = np.random.default_rng(seed)
    return _described(
        [_jpeg(width, height, generator) for _ in range(GENERATED)], f"generated JPEGs {width} x {height}"
    )


def readable(files: Sequence[bytes], decoder: Decoder) -> list[bytes]:
    """Those that the service would read. Raises ConfigError if there are none."""
    found = [file for file in files if _is_readable(file, decoder)]
    if not found:
        raise ConfigError("none of the images can be read")
    return found


def _is_readable(file: bytes, decoder: Decoder) -> bool:
    try:
        decoder.read(file)
    except RequestError:
        return False
    return True


def _described(files: list[bytes], what: str) -> Images:
    images = Images(tuple(files), "")
    return Images(images.files, f"{len(files)} {what}, {images.mean_bytes / 1e3:.0f} kB on average")


def _jpeg(width: int, height: int, generator: np.random.Generator) -> bytes:
    fy, fx = np.meshgrid(np.fft.fftfreq(height), np.fft.rfftfreq(width), indexing="ij")
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = np.inf
    channels = []
    for _ in range(3):
        phases = np.exp(2j * np.pi * generator.random(frequency.shape))
        field = np.fft.irfft2(phases / frequency, s=(height, width))
        channels.append(128 + CONTRAST * field / max(field.std(), 1e-12))
    file = BytesIO()
    Image.fromarray(np.clip(np.stack(channels, axis=2), 0, 255).astype(np.uint8)).save(
        file, "JPEG", quality=JPEG_QUALITY
    )
    return file.getvalue()
