"""Of how many parts an image file is made: small files that would keep a decoder for minutes are told by it.

libjpeg goes through the whole image for each scan, and Pillow takes each segment, chunk, block and directory entry by
itself, in Python, which holds the GIL. Pillow 13 took 38 s of CPU for 49 MP in 1,000 empty scans, 0.3 MB (16 MB have
room for 150,000); 31 s for 15,000 ICC profiles in a PNG; 4 to 12 s for 16 MB of markers, chunks, entries, strips or
runs. This reads the parts' heads alone.

At these limits 16 MB still take up to 1.3 s of Python (Photoshop's resources in a JPEG; 100,000 strips 0.9, EXIF 0.5,
pixel chunks 0.7); what C takes, as of 49 MP in 64 scans, is without the GIL.
"""

import struct
from collections.abc import Callable

from serve_app.errors import UnreadableImage

MAX_SCANS = 64
"""Of a JPEG; progressive ones have some ten. 40 ms each, of 49 MP."""
MAX_SEGMENTS = 4_000
"""Of a JPEG before its first scan, and bytes between them; XMP of 16 MB is 256."""
MAX_EXIF_SEGMENTS = 256
"""Of a JPEG: Pillow copies the EXIF that it has for each one more, so that 4,000 of 4 kB took 7 s."""
MAX_CHUNKS = 500
"""Of a PNG, but those of pixels and frames."""
MAX_PIXEL_CHUNKS = 100_000
"""Of a PNG, frames too; libpng's are of 8 kB, so that 16 MB are 2,000."""
MAX_BLOCKS = 100_000
"""Of a GIF before its first frame: XMP in it is taken for thousands."""
MAX_ENTRIES = 4_000
"""Of a TIFF's directory; a photo has some 30. Those of an unknown type cost as much, and BigTIFF counts in 64 bits."""
MAX_STRIPS = 100_000
"""Of a TIFF; tiles too."""
MAX_CODED_BYTES, MAX_CODED_PIXELS = 1 << 20, 4_000_000
"""Of a BMP that is compressed, which Pillow reads run by run."""

JPEG_SOS, JPEG_STANDALONE = 0xDA, frozenset({0x01, *range(0xD0, 0xDA)})
JPEG_EXIF, EXIF = 0xE1, b"Exif\0\0"
JPEG_SEQUENTIAL, JPEG_FRAMES = (0xC0, 0xC1), frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
# A scan's marker and the first byte of its length: never in coded data, by chance once in 16 MB of a video behind it.
JPEG_SCAN = b"\xff\xda\x00"
PNG_FIRST, PNG_CHUNK, PNG_CRC_BYTES = 8, struct.Struct(">I4s"), 4
PNG_END, PNG_PIXELS = b"IEND", frozenset({b"IDAT", b"fdAT", b"fcTL"})
GIF_HEADER_BYTES, GIF_EXTENSION, GIF_FRAME, GIF_END = 13, 0x21, 0x2C, 0x3B
TIFF_ORDERS = {b"II": "<", b"MM": ">"}
TIFF_BIG = ord("+")
TIFF_OFFSETS = frozenset({273, 324})
BMP_HEADER, BMP_CODED = struct.Struct("<Iii4xI"), (1, 2)


def check(data: bytes, image_format: str) -> None:
    """Raises UnreadableImage for a file of more parts than any that is meant to be seen."""
    is_too_much = CHECKS.get(image_format)
    try:
        refused = is_too_much is not None and is_too_much(data)
    except (struct.error, OverflowError):  # cut short, or said to be beyond any file: for the decoder to say
        return
    if refused:
        raise UnreadableImage(f"the {image_format} image is made of too many parts; save it anew, as a PNG, say")


def _jpeg(data: bytes) -> bool:
    at = 2
    frames: list[bytes] = []
    exif_segments = 0
    for _ in range(MAX_SEGMENTS):
        marker, code = data[at : at + 1], data[at + 1 : at + 2]
        if not code or (marker == b"\xff" and code[0] == JPEG_SOS):
            is_one_scan = frames == [data[at + 4 : at + 5]]
            return not is_one_scan and data.count(JPEG_SCAN) > MAX_SCANS
        if marker != b"\xff" or code in (b"\xff", b"\0"):
            at += 1
        elif code[0] in JPEG_STANDALONE:
            at += 2
        else:
            if code[0] in JPEG_FRAMES:
                # Of a sequential frame whose first scan has all of its components libjpeg reads no second one.
                frames.append(data[at + 9 : at + 10] if code[0] in JPEG_SEQUENTIAL else b"")
            exif_segments += code[0] == JPEG_EXIF and data.startswith(EXIF, at + 4)
            if exif_segments > MAX_EXIF_SEGMENTS:
                return True
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return True


def _png(data: bytes) -> bool:
    at, others, pixels = PNG_FIRST, 0, 0
    while others <= MAX_CHUNKS and pixels <= MAX_PIXEL_CHUNKS:
        length, name = PNG_CHUNK.unpack_from(data, at)
        if name == PNG_END:
            return False
        is_pixels = name in PNG_PIXELS
        pixels += is_pixels
        others += not is_pixels
        at += PNG_CHUNK.size + length + PNG_CRC_BYTES
    return True


def _gif(data: bytes) -> bool:
    if len(data) < GIF_HEADER_BYTES:
        return False
    flags = data[10]
    at = GIF_HEADER_BYTES + (3 * (2 << (flags & 7)) if flags & 0x80 else 0)
    within = False
    for _ in range(MAX_BLOCKS):
        byte = data[at] if at < len(data) else GIF_END
        if within:
            at += 1 + byte
            within = byte > 0
        elif byte in (GIF_FRAME, GIF_END):
            return False
        else:
            within = byte == GIF_EXTENSION
            at += 2 if within else 1
    return True


def _tiff(data: bytes) -> bool:
    order = TIFF_ORDERS[data[:2]]
    is_big = data[2] == TIFF_BIG  # as Pillow has it, to which the BigTIFF of Motorola's order is a TIFF
    (directory,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    (number,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, directory)
    entry = struct.Struct(order + ("HHQ8x" if is_big else "HHI4x"))
    begin = directory + (8 if is_big else 2)
    whole = min(number, (len(data) - begin) // entry.size)  # the decoder, too, ends with the file
    if whole > MAX_ENTRIES:
        return True
    entries = entry.iter_unpack(data[begin : begin + whole * entry.size])
    return any(tag in TIFF_OFFSETS and count > MAX_STRIPS for tag, _, count in entries)


def _bmp(data: bytes) -> bool:
    size, width, height, compression = BMP_HEADER.unpack_from(data, 14)
    is_coded = size >= BMP_HEADER.size and compression in BMP_CODED
    return is_coded and (len(data) > MAX_CODED_BYTES or abs(width * height) > MAX_CODED_PIXELS)


CHECKS: dict[str, Callable[[bytes], bool]] = {"JPEG": _jpeg, "PNG": _png, "GIF": _gif, "TIFF": _tiff, "BMP": _bmp}
