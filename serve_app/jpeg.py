"""Which JPEGs a GPU's decoder may get, told by their headers alone.

`parse` runs on the event loop: 7 us for a JPEG without EXIF, 12 us at most for a camera's, and 80 us for bytes
made to be slow (one core of a Xeon). It is strict: whatever is unusual, damaged or merely doubtful is
`None` and goes down the CPU path, which decodes it or words the error.
"""

import struct
from dataclasses import dataclass

from serve_app.decode import MAX_EXACT_ASPECT

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
DHT, DQT, DRI, SOF0, SOS, COM = 0xC4, 0xDB, 0xDD, 0xC0, 0xDA, 0xFE
APP0, APP1, APP2, APP14, APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
# Of frames only SOF0, baseline: all others (progressive, lossless, arithmetic, hierarchical) are decoded in
# software or not at all. Nor the fill bytes and the junk between segments that Pillow skips.
MARKERS = frozenset({DHT, DQT, DRI, SOF0, SOS, COM, *range(APP0, APP15 + 1)})
# Photos have 8 to 40. A comment can be empty: without a bound, 10 MB of them would hold the loop for a second.
MAX_SEGMENTS = 128

# 4:4:4, 4:2:2, 4:2:0, 4:4:0: horizontal and vertical factors of Y, Cb, Cr, a nibble each.
SAMPLINGS = {(0x11, 0x11, 0x11), (0x21, 0x11, 0x11), (0x22, 0x11, 0x11), (0x12, 0x11, 0x11)}
# Decoders tell YCbCr from RGB by these ids where neither JFIF nor Adobe says it; all other ids are guesswork.
YCBCR = (1, 2, 3)
ADOBE_YCBCR = 1
WHOLE_SPECTRUM = b"\x00\x3f\x00"
TABLE_SIZES = (65, 130, 195, 260)
# Below it the CPU decodes in less time than a launch takes, and hardware decoders state a smallest size (NVDEC's
# JPEGs begin at 64 x 64) that nvJPEG's manual does not mention.
MIN_SIDE = 64
# The end marker is looked for in so many last bytes. Cameras append padding, some whole videos: those pay with a
# decode on the CPU, for a search through megabytes is none for an event loop.
TAIL = 64

JFIF, EXIF, XMP, MULTI_PICTURE, ADOBE = b"JFIF\0", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"MPF\0", b"Adobe"
BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
ORIENTATION, SHORT, UPRIGHT = 0x0112, 3, 1
# Bytes of TIFF's types; others are skipped.
TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
MAX_TAGS = 256

Segment = tuple[int, int, int]
"""Marker, first byte of the payload, first byte past it."""


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A baseline YCbCr JPEG of 8 bits that ends where it should."""

    data: bytes
    width: int
    """As stored, before the orientation is applied; so is the height."""
    height: int
    orientation: int
    """EXIF's, 1 to 8; 1 is upright."""


def parse(data: bytes, max_pixels: int, exif_orientation: bool) -> Jpeg | None:
    """The JPEG that `data` is, if the GPU may decode it. Raises nothing, whatever the bytes.

    None: for the CPU path, also of more than `max_pixels`, of tiny sides and of extreme aspect ratios.
    `exif_orientation` False: the orientation is 1 whatever EXIF says.
    """
    segments = _segments(data)
    if segments is None or not _is_plain(data, segments):
        return None
    size = _size(data, segments)
    if size is None or not _is_decodable(size, max_pixels):
        return None
    orientation = _orientation(data, segments) if exif_orientation else UPRIGHT
    return None if orientation is None else Jpeg(data, *size, orientation)


def _segments(data: bytes) -> list[Segment] | None:
    """Those of the header, the start of scan the last."""
    if not data.startswith(SOI):
        return None
    segments = []
    at = len(SOI)
    for _ in range(MAX_SEGMENTS):
        head = data[at : at + 4]
        if len(head) < 4 or head[0] != 0xFF or head[1] not in MARKERS:
            return None
        start, at = at + 4, at + 2 + (head[2] << 8 | head[3])
        if not start <= at <= len(data):
            return None
        segments.append((head[1], start, at))
        if head[1] == SOS:
            return segments
    return None


def _is_plain(data: bytes, segments: list[Segment]) -> bool:
    """Whole, one picture in one scan, with its tables, its colours YCbCr."""
    markers = [marker for marker, _, _ in segments]
    # Without its tables one JPEG would fail the batch that it is decoded in.
    if markers.count(SOF0) != 1 or DQT not in markers or DHT not in markers:
        return False
    _, start, end = segments[-1]
    # A file cut short has no end marker after the scan's start: a decoder would paint its missing half gray.
    return (
        data.rfind(EOI, max(end, len(data) - TAIL)) >= 0
        and _is_whole_scan(data[start:end])
        and all(_is_harmless(data, segment) for segment in segments)
    )


def _is_whole_scan(scan: bytes) -> bool:
    return len(scan) == 10 and (scan[0], *scan[1:7:2]) == (3, *YCBCR) and scan.endswith(WHOLE_SPECTRUM)


def _is_harmless(data: bytes, segment: Segment) -> bool:
    """Whether it neither changes how the pixels are read nor is one that Pillow refuses."""
    marker, start, end = segment
    if marker == DQT:  # baseline has tables of 8 bits only, at most four: their first bytes are 0 to 3
        return end - start in TABLE_SIZES and max(data[start:end:65]) < 4
    if marker == APP0:
        return not data.startswith(JFIF, start) or end - start >= 14
    if marker == APP2:
        return not data.startswith(MULTI_PICTURE, start)
    if marker == APP14 and data.startswith(ADOBE, start):
        return end - start >= 12 and data[start + 11] == ADOBE_YCBCR
    return True


def _size(data: bytes, segments: list[Segment]) -> tuple[int, int] | None:
    """Width and height, of 8 bits and three components in one of SAMPLINGS."""
    start, end = next((start, end) for marker, start, end in segments if marker == SOF0)
    if end - start != 15:
        return None
    bits, height, width, count, *components = struct.unpack_from(">BHHB9B", data, start)
    ids, samplings = tuple(components[::3]), tuple(components[1::3])
    return (width, height) if (bits, count, ids) == (8, 3, YCBCR) and samplings in SAMPLINGS else None


def _is_decodable(size: tuple[int, int], max_pixels: int) -> bool:
    short, long = sorted(size)
    return short >= MIN_SIDE and long <= MAX_EXACT_ASPECT * short and short * long <= max_pixels


def _orientation(data: bytes, segments: list[Segment]) -> int | None:
    """What Pillow's `ImageOps.exif_transpose` goes by; None where its answer follows from more than a plain tag."""
    app1 = [(start, end) for marker, start, end in segments if marker == APP1]
    exif = [slice(start + len(EXIF), end) for start, end in app1 if data.startswith(EXIF, start)]
    xmp = [slice(start, end) for start, end in app1 if data.startswith(XMP, start)]
    if len(exif) > 1 or len(xmp) > 1:
        return None
    found = _tiff_orientation(data[exif[0]]) if exif else 0
    # Pillow goes by XMP where EXIF has no orientation.
    if found == 0 and not (xmp and b"tiff:Orientation" in data[xmp[0]]):
        return UPRIGHT
    return found or None


def _tiff_orientation(tiff: bytes) -> int | None:
    """1 to 8; 0 where there is none; None where the directory is odd."""
    order = BYTE_ORDERS.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return None
    (at,) = struct.unpack_from(order + "I", tiff, 4)
    if at + 2 > len(tiff):
        return None
    (count,) = struct.unpack_from(order + "H", tiff, at)
    directory = tiff[at + 2 : at + 2 + 12 * count]
    if count > MAX_TAGS or len(directory) != 12 * count:
        return None
    return _tag_orientation(tiff, directory, order)


def _tag_orientation(tiff: bytes, directory: bytes, order: str) -> int | None:
    found = None
    for at, (tag, kind, count, place) in enumerate(struct.iter_unpack(order + "HHII", directory)):
        size = count * TYPE_SIZES.get(kind, 0)
        if size > 4 and place + size > len(tiff):
            return None  # Pillow reads no further than this
        if tag != ORIENTATION:
            continue
        # Pillow takes rationals and floats too, and of two tags the first or the last, by its version.
        if (kind, count) != (SHORT, 1) or found is not None:
            return None
        (found,) = struct.unpack_from(order + "H", directory, 12 * at + 8)
    if found is None:
        return 0
    return found if 1 <= found <= 8 else UPRIGHT
