"""Small image files that would take minutes or gigabytes, and metadata that leads astray: of every format."""

import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from serve_app import structure

MEBIBYTE = 1 << 20
ORIENTATION, SUB_IFD = 0x0112, 0x8769


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(before: bytes = b"", behind: bytes = b"", pixels: bytes | None = None) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(25 * 8))) if pixels is None else pixels
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + behind + chunk(b"IEND")


def animated_png(frames: int) -> bytes:
    def control(number: int) -> bytes:
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 8, 8, 0, 0, 1, 10, 0, 0))

    pixels = zlib.compress(bytes(25 * 8))
    more = (control(2 * i - 1) + chunk(b"fdAT", struct.pack(">I", 2 * i) + pixels) for i in range(1, frames))
    return png(chunk(b"acTL", struct.pack(">II", frames, 0)) + control(0), b"".join(more))


JPEG = encoded(Image.new("RGB", (8, 8), "red"), "JPEG")
GIF = encoded(Image.new("L", (8, 8), 200), "GIF")
GIF_SCREEN = 13 + 3 * (2 << (GIF[10] & 7))
PROFILE = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(MEBIBYTE), 9))


def jpeg(segments: bytes) -> bytes:
    return JPEG[:2] + segments + JPEG[2:]


def gif(extensions: bytes) -> bytes:
    return GIF[:GIF_SCREEN] + extensions + GIF[GIF_SCREEN:]


def scans(number: int, side: int = 8, **options: Any) -> bytes:
    """A JPEG whose last scan comes again and again, without data."""
    data = encoded(Image.new("RGB", (side, side), "red"), "JPEG", **options)
    last = data.rindex(b"\xff\xda")
    head = data[last : last + 2 + int.from_bytes(data[last + 2 : last + 4], "big")]
    return data[:-2] + head * number + data[-2:]


def bmp(width: int, height: int, runs: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078) + header + bytes(1024) + runs


def tiff(strips: int, mark: bytes = b"II*\0") -> bytes:
    """One pixel wide, a row a strip, all of them the same byte."""
    order = "<" if mark.startswith(b"I") else ">"
    short, long, at = 3, 4, 8 + 2 + 9 * 12 + 4
    entries = [(256, long, 1, 1), (257, long, 1, strips), (258, short, 1, 8), (259, short, 1, 1), (262, short, 1, 1)]
    entries += [(273, long, strips, at), (277, short, 1, 1), (278, long, 1, 1), (279, long, strips, at + 4 * strips)]
    left = {short: lambda value: value << 16 if order == ">" else value, long: lambda value: value}
    directory = b"".join(
        struct.pack(order + "HHII", tag, kind, number, left[kind](value)) for tag, kind, number, value in entries
    )
    rows = struct.pack(order + "I", 8) * strips + struct.pack(order + "I", 1) * strips
    return mark + struct.pack(order + "IH", 8, len(entries)) + directory + bytes(4) + rows


def entries(number: int) -> bytes:
    """A BigTIFF of entries of a type that nobody knows."""
    return (
        b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, number) + struct.pack("<HHQQ", 40_000, 99, 1, 0) * number + bytes(8)
    )


def tags(number: int, size: int) -> bytes:
    """A directory of entries that each claim the whole file."""
    entries = b"".join(struct.pack("<HHII", 1000 + i, 7, size - 100, 8) for i in range(number))
    directory = b"II*\0" + struct.pack("<IH", 8, number) + entries + bytes(4)
    return directory + bytes(max(0, size - len(directory)))


def interlaced_png(side: int) -> bytes:
    """Black, in the seven passes of Adam7, which a decoder has to keep whole."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    sizes = [(len(range(x, side, dx)), len(range(y, side, dy))) for x, y, dx, dy in passes]
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(bytes((1 + 3 * width) * height)) for width, height in sizes) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND")


def tiff_pages(number: int) -> bytes:
    """Each of one pixel; the last is followed by the first."""
    entries = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    entries += [(277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 1)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    size = len(directory) + 4
    pages = (directory + struct.pack("<I", 12 + size * ((i + 1) % number)) for i in range(number))
    return b"II*\0" + struct.pack("<I", 12) + bytes(4) + b"".join(pages)


def exif(entries: list[tuple[int, int, int, int]], following: int = 0) -> bytes:
    """A directory of (tag, type, count, value), and where the next one is."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", following)


def segment(code: int, content: bytes) -> bytes:
    return bytes((0xFF, code)) + struct.pack(">H", 2 + len(content)) + content


def exif_segment(size: int) -> bytes:
    return segment(0xE1, b"Exif\0\0" + bytes(size))


TOO_MANY_PARTS: dict[str, Callable[[], bytes]] = {
    "JPEG of empty progressive scans": lambda: scans(structure.MAX_SCANS, progressive=True),
    "JPEG of one component a scan": lambda: scans(structure.MAX_SCANS).replace(
        b"\0\x0c\x03\1\0\2\x11\3\x11", b"\0\x08\1\1\0"
    ),
    "JPEG of empty segments": lambda: jpeg(b"\xff\xe5\0\2" * 1_000_000),
    "JPEG of comments": lambda: jpeg(b"\xff\xfe\0\2" * 1_000_000),
    "JPEG of too many EXIF segments": lambda: jpeg(exif_segment(4_000) * (structure.MAX_EXIF_SEGMENTS + 1)),
    "JPEG of fill bytes": lambda: jpeg(b"\xff" * 4_000_000),
    "JPEG of junk": lambda: jpeg(b"\xff\xe5\0\2" + bytes(4_000_000)),
    "PNG of profiles": lambda: png(PROFILE * 2_000),
    "PNG of unknown chunks": lambda: png(chunk(b"abCd") * 100_000),
    "PNG of too many pixel chunks": lambda: png(behind=chunk(b"IDAT") * structure.MAX_PIXEL_CHUNKS),
    "PNG of frames": lambda: png(behind=chunk(b"fcTL") * structure.MAX_PIXEL_CHUNKS),
    "PNG of chunks behind its pixels": lambda: png(behind=chunk(b"abCd") * 100_000),
    "GIF of comments": lambda: gif(b"!\xfe" + b"\1x" * 2_000_000 + b"\0"),
    "GIF of extensions": lambda: gif(b"!\xff\1x\0" * 1_000_000),
    "TIFF of strips": lambda: tiff(structure.MAX_STRIPS + 1),
    "TIFF of strips, in Motorola's order": lambda: tiff(structure.MAX_STRIPS + 1, b"MM\0*"),
    "TIFF of strips that Pillow takes for no BigTIFF": lambda: tiff(structure.MAX_STRIPS + 1, b"MM\0+"),
    "TIFF of too many overlapping tags": lambda: tags(structure.MAX_ENTRIES + 1, 4_000_000),
    "BigTIFF of too many entries": lambda: entries(structure.MAX_ENTRIES + 1),
    "BMP of short runs": lambda: bmp(7_000, 7_000, b"\1\2" * 1_000_000),
    "BMP of one long row": lambda: bmp(49_000_000, 1, b"\1\2\0\0" * 10),
}
"""Refused by their heads."""
BORNE: dict[str, Callable[[], bytes]] = {
    "JPEG of as many scans as may be": lambda: scans(structure.MAX_SCANS - 10, side=1000, progressive=True),
    "JPEG with EXIF of overlapping tags": lambda: jpeg(segment(0xE1, b"Exif\0\0" + tags(4_000, 60_000))),
    "JPEG of EXIF segments": lambda: jpeg(exif_segment(65_000) * structure.MAX_EXIF_SEGMENTS),
    "JPEG with a profile of 16 MB": lambda: jpeg(segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(65_000)) * 250),
    "JPEG cut short, of 50 MP": lambda: encoded(Image.new("RGB", (9_999, 5_000)), "JPEG")[:3_000],
    "PNG of 49 MP": lambda: encoded(Image.new("RGB", (7_000, 7_000)), "PNG"),
    "PNG with texts of 1 MB each": lambda: png(
        b"".join(chunk(b"zTXt", b"k%d\0\0" % i + zlib.compress(bytes(MEBIBYTE))) for i in range(100))
    ),
    "PNG with a profile of 100 MB": lambda: png(chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(100 * MEBIBYTE)))),
    "PNG with EXIF of overlapping tags": lambda: png(chunk(b"eXIf", tags(60_000, 4_000_000))),
    "PNG of empty pixel chunks": lambda: png(chunk(b"IDAT") * (structure.MAX_PIXEL_CHUNKS - 1)),
    "PNG of 10,000 frames": lambda: animated_png(10_000),
    "GIF of 49 MP": lambda: encoded(Image.new("L", (7_000, 7_000)), "GIF"),
    "GIF of 10,000 frames": lambda: GIF[:GIF_SCREEN] + GIF[GIF_SCREEN:-1] * 10_000 + b";",
    "WebP of 10,000 frames": lambda: encoded(
        Image.new("RGB", (8, 8)),
        "WEBP",
        save_all=True,
        append_images=[Image.new("RGB", (8, 8), (i % 256, i // 256, 0)) for i in range(1, 10_000)],
    ),
    "WebP of 49 MP": lambda: encoded(Image.new("RGB", (7_000, 7_000)), "WEBP", lossless=True, method=0),
    "TIFF of overlapping tags": lambda: tags(structure.MAX_ENTRIES, 4_000_000),
    "BigTIFF of entries of an unknown type": lambda: entries(structure.MAX_ENTRIES),
    "TIFF of as many strips as may be": lambda: tiff(structure.MAX_STRIPS),
    "TIFF by deflate of 49 MP": lambda: encoded(Image.new("RGB", (7_000, 7_000)), "TIFF", compression="tiff_deflate"),
    "TIFF by LZW of 49 MP": lambda: encoded(Image.new("RGB", (7_000, 7_000)), "TIFF", compression="tiff_lzw"),
    "BMP of steps upwards": lambda: bmp(2_000, 2_000, b"\0\2\0\xff" * 100_000),
    "JPEG of 49 MP": lambda: encoded(Image.new("L", (7_000, 7_000)), "JPEG"),
    "PNG interlaced, of 49 MP": lambda: interlaced_png(7_000),
    "TIFF of 10,000 pages, in a circle": lambda: tiff_pages(10_000),
    "BMP by runs of 4 MP": lambda: bmp(2_000, 2_000, b"\xff\1" * 15_000),
}
"""Decoded, or refused later."""
HEAVY = (
    *("JPEG of as many scans as may be", "JPEG of EXIF segments", "JPEG with a profile of 16 MB", "JPEG of 49 MP"),
    *("JPEG with EXIF of overlapping tags", "PNG of 49 MP", "PNG interlaced, of 49 MP", "PNG with texts of 1 MB each"),
    *("PNG with EXIF of overlapping tags", "PNG of empty pixel chunks", "GIF of 49 MP", "WebP of 49 MP"),
    *(
        "TIFF of overlapping tags",
        "TIFF of as many strips as may be",
        "TIFF by deflate of 49 MP",
        "TIFF by LZW of 49 MP",
    ),
)
"""Of BORNE: those that take a tenth of a second of a core, or more; or 16 MB of the network."""
LIGHT = tuple(name for name in (*TOO_MANY_PARTS, *BORNE) if name not in HEAVY)


@cache
def made(name: str) -> bytes:
    """One of TOO_MANY_PARTS or BORNE."""
    return {**TOO_MANY_PARTS, **BORNE}[name]()


def with_metadata(generator: np.random.Generator) -> bytes:
    """A good picture with an odd colour profile or EXIF."""
    if generator.random() < 0.5:
        return jpeg(profile(generator)) if generator.random() < 0.7 else png(_png_profile(generator))
    data = odd_exif(generator)
    return jpeg(segment(0xE1, b"Exif\0\0" + data[:65_000])) if generator.random() < 0.7 else png(chunk(b"eXIf", data))


def profile(generator: np.random.Generator) -> bytes:
    """Segments of a JPEG: some missing, twice, of other numbers than they say, of noise, up to 2 MB."""
    parts = int(generator.integers(1, 5 if generator.random() < 0.9 else 33))
    segments = []
    for part in range(parts):
        number, total = (int(each) for each in generator.integers(0, 256, 2))
        told = (part + 1, parts) if generator.random() < 0.7 else (number, total)
        content = generator.bytes(int(generator.integers(0, 65_000)))
        segments.append(segment(0xE2, b"ICC_PROFILE\0" + bytes(told) + content))
    return b"".join(segments)


def _png_profile(generator: np.random.Generator) -> bytes:
    packed = zlib.compress(generator.bytes(int(generator.integers(0, 100_000))), 1)
    kept = packed[: int(generator.integers(len(packed) + 1))]
    return chunk(b"iCCP", b"p\0" + bytes([int(generator.integers(2))]) + kept)


def odd_exif(generator: np.random.Generator) -> bytes:
    """Orientations that are none, of other types, told in thousands; directories that follow themselves; cut ones."""
    orientation = int(generator.choice([0, 1, 6, 8, 9, 0xFFFF, 0xFFFFFFFF]))
    kind, count = int(generator.integers(0, 14)), int(generator.choice([0, 1, 2, 1000, 0xFFFFFFFF]))
    # 8: the directory that it stands in.
    entries = [(ORIENTATION, kind, count, orientation), (SUB_IFD, 4, 1, int(generator.choice([0, 8, 26, 0xFFFFFFFF])))]
    data = exif(entries, following=int(generator.choice([0, 8, 0xFFFFFFFF])))
    if generator.random() < 0.2:
        data = tags(int(generator.integers(1, 4_000)), 60_000)
    return data[: int(generator.integers(len(data) + 1))] if generator.random() < 0.3 else data
