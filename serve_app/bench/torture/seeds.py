"""Good images of every kind that the service reads, a few kB each: what hostile ones are made of."""

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from serve_app.bench.images import MAX_TOTAL_BYTES
from serve_app.config import ConfigError

SIDE = 48
ORIENTATION = 0x0112
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"),
}


@cache
def seeds() -> dict[str, bytes]:
    """By what they are; the same at every call and on every machine with this Pillow."""
    return dict(_all())


def digits() -> list[bytes]:
    """The bundled samples 0 to 9: images that a service is to answer the same whatever else it is sent."""
    folder = files("serve_app.bundled") / "samples"
    return [(folder / f"{i}.png").read_bytes() for i in range(10)]


def below(folder: Path) -> list[bytes]:
    """Every file in it and its subfolders, in any state and of any name. Raises ConfigError."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise ConfigError(f"{folder}: there is no file in it")
    if (total := sum(path.stat().st_size for path in paths)) > MAX_TOTAL_BYTES:
        raise ConfigError(f"{folder}: {total >> 20} MiB, of {MAX_TOTAL_BYTES >> 20} at most")
    try:
        return [path.read_bytes() for path in paths]
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None


def _all() -> Iterator[tuple[str, bytes]]:
    pictures = [_picture(i) for i in range(3)]
    for kind, modes in MODES.items():
        for mode in modes:
            yield f"{kind} {mode}", _encoded(_in_mode(pictures[0], mode), kind)
    yield "JPEG progressive", _encoded(pictures[0], "JPEG", progressive=True)
    yield "JPEG 4:4:4, restarts", _encoded(pictures[0], "JPEG", subsampling=0, restart_marker_rows=1)
    yield "JPEG with EXIF and ICC", _encoded(pictures[1], "JPEG", exif=_exif(6), icc_profile=bytes(range(256)) * 8)
    yield "JPEG of several pictures", _encoded(pictures[0], "MPO", pictures[1:], save_all=True)
    yield "PNG interlaced text", _encoded(pictures[1], "PNG", pnginfo=_text(), exif=_exif(3))
    yield "PNG animated", _encoded(pictures[0], "PNG", pictures[1:], save_all=True)
    yield "WebP lossless", _encoded(pictures[1], "WEBP", lossless=True, exif=_exif(8).tobytes())
    for kind in ("WEBP", "GIF", "TIFF"):
        yield f"{kind} of several frames", _encoded(pictures[0], kind, pictures[1:], save_all=True)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"TIFF {compression}", _encoded(pictures[2], "TIFF", compression=compression)
    yield "TIFF group4", _encoded(_in_mode(pictures[2], "1"), "TIFF", compression="group4")


def _picture(seed: int) -> Image.Image:
    x = np.linspace(0, 2 * np.pi, SIDE)
    waves = np.stack([np.sin((seed + 1) * x[:, None] + c) * np.cos(x[None] * (c + 1)) for c in range(3)], -1)
    return Image.fromarray(((waves + 1) * 127).astype(np.uint8))


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    if mode in ("LA", "RGBA"):
        picture = picture.copy()
        picture.putalpha(picture.convert("L"))
    return picture.convert(mode)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Title", "é" * 200, zip=True)
    info.add_text("Comment", "c" * 200, zip=True)
    return info


def _encoded(image: Image.Image, kind: str, more: Sequence[Image.Image] = (), **options: Any) -> bytes:
    buffer = BytesIO()
    # Copies: Pillow leaves one encoder's settings on an image, which another then trips over.
    frames = {"append_images": [each.copy() for each in more]} if more else {}
    image.copy().save(buffer, kind, **frames, **options)
    return buffer.getvalue()
