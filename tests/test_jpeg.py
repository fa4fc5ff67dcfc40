import struct
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from serve_app.decode import Decoder
from serve_app.errors import UnreadableImage
from serve_app.jpeg import MAX_SEGMENTS, MIN_SIDE, TAIL, Jpeg, parse
from serve_app.model_spec import Geometry

MAX_PIXELS = 50_000_000
WIDTH, HEIGHT = 96, 80
ORIENTATION_TAG, SHORT = 0x0112, 3
COMMENT, APP1 = 0xFE, 0xE1
XMP = b"http://ns.adobe.com/xap/1.0/\0"


def noise(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encode(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def inserted(*segments: bytes, into: bytes | None = None) -> bytes:
    """The plain JPEG with `segments` right after its start."""
    plain = PLAIN if into is None else into
    return plain[:2] + b"".join(segments) + plain[2:]


def exif(
    *entries: tuple[int, int, int, int], order: str = "<", start: int = 8, count: int | None = None, tail: bytes = b""
) -> bytes:
    """A segment with one directory: (tag, type, count, value) each, the value in the entry itself."""
    directory = struct.pack(order + "H", len(entries) if count is None else count)
    for tag, kind, number, value in entries:
        packed = struct.pack(order + "HH", value, 0) if kind == SHORT else struct.pack(order + "I", value)
        directory += struct.pack(order + "HHI", tag, kind, number) + packed
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", start)
    return segment(APP1, b"Exif\0\0" + head + directory + bytes(4) + tail)


PLAIN = encode(noise())
TABLES = PLAIN.index(b"\xff\xdb")
FRAME = PLAIN.index(b"\xff\xc0")
SCAN = PLAIN.index(b"\xff\xda")


def replaced(at: int, new: bytes) -> bytes:
    return PLAIN[:at] + new + PLAIN[at + len(new) :]


def by_pillow(data: bytes, exif_orientation: bool = True) -> tuple[bytes, tuple[int, int]]:
    """The pixels that Pillow shows, and their size."""
    image: Image.Image = Image.open(BytesIO(data))
    if exif_orientation:
        with suppress(struct.error):  # of EXIF that it cannot write back without the tag; by then it has turned
            ImageOps.exif_transpose(image, in_place=True)
    return image.tobytes(), image.size


def agrees_with_pillow(jpeg: Jpeg) -> bool:
    """Whether Pillow shows the same once its stored pixels are turned by `jpeg`'s orientation alone."""
    stored = Image.open(BytesIO(jpeg.data))
    stored.load()
    turned = Image.fromarray(np.asarray(stored))
    turned.getexif()[ORIENTATION_TAG] = jpeg.orientation
    turned = ImageOps.exif_transpose(turned)
    return stored.size == (jpeg.width, jpeg.height) and (turned.tobytes(), turned.size) == by_pillow(jpeg.data)


# --- what goes to the GPU ---------------------------------------------------------------------------


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(MIN_SIDE, MIN_SIDE), (640, 480), (MIN_SIDE * 16, MIN_SIDE), (333, 777)])
def test_baseline_jpegs_are_recognised(size: tuple[int, int], subsampling: str) -> None:
    data = encode(noise(*size), subsampling=subsampling)
    assert parse(data, MAX_PIXELS, exif_orientation=True) == Jpeg(data, *size, orientation=1)


def test_pixels_are_limited_inclusively() -> None:
    assert parse(PLAIN, WIDTH * HEIGHT, exif_orientation=True)
    assert parse(PLAIN, WIDTH * HEIGHT - 1, exif_orientation=True) is None


@pytest.mark.parametrize(
    "data",
    [
        encode(noise(), icc_profile=b"x" * 200_000),
        encode(noise(), comment=b"x" * 60_000),
        encode(noise(), restart_marker_rows=1),
        encode(noise(), optimize=True),
        PLAIN + bytes(TAIL - 2),
        inserted(segment(0xEE, b"Adobe" + bytes([0, 100, 0, 0, 0, 0, 1]))),
        inserted(*[segment(COMMENT, b"")] * (MAX_SEGMENTS - 20)),
    ],
    ids=["ICC", "comment", "restarts", "optimised", "padded", "Adobe YCbCr", "comments"],
)
def test_what_changes_no_pixel_changes_nothing(data: bytes) -> None:
    assert parse(data, MAX_PIXELS, exif_orientation=True) == Jpeg(data, WIDTH, HEIGHT, orientation=1)


# --- what does not --------------------------------------------------------------------------------

REFUSED = {
    "empty": b"",
    "start alone": b"\xff\xd8",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "progressive": encode(noise(), progressive=True),
    "gray": encode(noise().convert("L")),
    "CMYK": encode(noise().convert("CMYK")),
    "RGB": encode(noise(), keep_rgb=True),
    "Adobe RGB": inserted(segment(0xEE, b"Adobe" + bytes(7))),
    "Adobe cut short": inserted(segment(0xEE, b"Adobe")),
    "JFIF cut short": inserted(segment(0xE0, b"JFIF\0")),
    "several pictures": inserted(segment(0xE2, b"MPF\0" + bytes(20))),
    "narrow": encode(noise(MIN_SIDE - 1, 500)),
    "flat": encode(noise(500, MIN_SIDE - 1)),
    "too wide": encode(noise(MIN_SIDE * 16 + 1, MIN_SIDE)),
    "12 bits": replaced(FRAME + 4, b"\x0c"),
    "extended": replaced(FRAME + 1, b"\xc1"),
    "lossless": replaced(FRAME + 1, b"\xc3"),
    "arithmetic": replaced(FRAME + 1, b"\xc9"),
    "no height": replaced(FRAME + 5, b"\0\0"),
    "4:1:1": replaced(FRAME + 11, b"\x41"),
    "odd component ids": replaced(FRAME + 10, b"\0"),
    "two frames": PLAIN[:SCAN] + PLAIN[FRAME : FRAME + 19] + PLAIN[SCAN:],
    "no frame": PLAIN[:FRAME] + PLAIN[FRAME + 19 :],
    "no tables": PLAIN[:TABLES] + PLAIN[FRAME:],
    "tables of 16 bits": replaced(TABLES + 4, b"\x10"),
    "tables cut short": inserted(segment(0xDB, bytes(64))),
    "one component in the scan": replaced(SCAN + 4, b"\x01"),
    "part of the spectrum": replaced(SCAN + 12, b"\x05"),
    "no end": PLAIN[:-2],
    "end far off": PLAIN + bytes(TAIL),
    "half": PLAIN[: len(PLAIN) // 2],
    "cut in a scan with an end in its header": inserted(segment(COMMENT, b"\xff\xd9"))[: SCAN + 20],
    "junk between segments": PLAIN[:2] + b"\0" + PLAIN[2:],
    "fill bytes": PLAIN[:2] + b"\xff" + PLAIN[2:],
    "a length below 2": PLAIN[:2] + b"\xff\xfe\0\0" + PLAIN[2:],
    "many segments": inserted(*[segment(COMMENT, b"")] * MAX_SEGMENTS),
    "endless segments": b"\xff\xd8" + b"\xff\xfe\0\2" * 100_000,
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_unusual_and_the_damaged_are_left_to_the_cpu(name: str) -> None:
    assert parse(REFUSED[name], MAX_PIXELS, exif_orientation=True) is None


@pytest.mark.parametrize("place", range(0, len(PLAIN) - 1, 101))
def test_a_file_cut_short_anywhere_is_left_to_the_cpu(place: int) -> None:
    assert parse(PLAIN[:place], MAX_PIXELS, exif_orientation=True) is None


# --- EXIF -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", [*range(1, 9), 0, 9, 65535])
def test_the_orientation_is_pillows(value: int, order: str) -> None:
    jpeg = parse(inserted(exif((ORIENTATION_TAG, SHORT, 1, value), order=order)), MAX_PIXELS, exif_orientation=True)
    assert jpeg is not None
    assert jpeg.orientation == (value if 1 <= value <= 8 else 1)
    assert agrees_with_pillow(jpeg)


def test_the_orientation_can_be_ignored() -> None:
    damaged = exif((ORIENTATION_TAG, SHORT, 1, 6), count=9)
    for data in (inserted(exif((ORIENTATION_TAG, SHORT, 1, 6))), inserted(damaged)):
        assert parse(data, MAX_PIXELS, exif_orientation=False) == Jpeg(data, WIDTH, HEIGHT, orientation=1)


ASCII, LONG, BYTE = 2, 4, 1
TAG = (ORIENTATION_TAG, SHORT, 1, 6)
ODD_EXIF = {
    "no tag": exif((0x0110, SHORT, 1, 6)),
    "nothing": segment(APP1, b"Exif\0\0"),
    "no directory": segment(APP1, b"Exif\0\0II*\0"),
    "directory past the end": exif(TAG, start=500),
    "directory cut short": exif(TAG, count=3),
    "not TIFF": segment(APP1, b"Exif\0\0XX*\0" + bytes(20)),
    "twice": exif(TAG) + exif((ORIENTATION_TAG, SHORT, 1, 3)),
    "two tags": exif(TAG, (ORIENTATION_TAG, SHORT, 1, 3)),
    "long": exif((ORIENTATION_TAG, LONG, 1, 6)),
    "byte": exif((ORIENTATION_TAG, BYTE, 1, 6)),
    "two values": exif((ORIENTATION_TAG, SHORT, 2, 6)),
    "text before it past the end": exif((0x010F, ASCII, 500, 900), TAG),
    "text after it past the end": exif(TAG, (0x0131, ASCII, 500, 900)),
    "text before it": exif((0x010F, ASCII, 8, 38), TAG, tail=bytes(20)),
    "unknown type before it": exif((0x010F, 99, 500, 900), TAG),
    "by XMP": segment(APP1, XMP + b'<x tiff:Orientation="6"/>'),
    "EXIF before XMP": exif(TAG) + segment(APP1, XMP + b'<x tiff:Orientation="3"/>'),
    "EXIF that does not exist before XMP": exif((ORIENTATION_TAG, SHORT, 1, 0))
    + segment(APP1, XMP + b'<x tiff:Orientation="3"/>'),
    "XMP without it": segment(APP1, XMP + b"<x/>"),
    "two XMP": segment(APP1, XMP + b"<x/>") + segment(APP1, XMP + b'<x tiff:Orientation="3"/>'),
}
LEFT_TO_THE_CPU = {
    "nothing",
    "no directory",
    "directory past the end",
    "directory cut short",
    "not TIFF",
    "twice",
    "two tags",
    "long",
    "byte",
    "two values",
    "text before it past the end",
    "text after it past the end",
    "by XMP",
    "two XMP",
}


@pytest.mark.filterwarnings("ignore:.*EXIF", "ignore:Truncated File Read", "ignore:Metadata Warning")
@pytest.mark.filterwarnings("ignore:Tag data larger than file")
@pytest.mark.parametrize("name", ODD_EXIF)
def test_of_odd_exif_the_orientation_is_pillows_or_left_to_it(name: str) -> None:
    jpeg = parse(inserted(ODD_EXIF[name]), MAX_PIXELS, exif_orientation=True)
    assert (jpeg is None) == (name in LEFT_TO_THE_CPU)
    assert jpeg is None or agrees_with_pillow(jpeg)


# --- whatever the bytes ---------------------------------------------------------------------------


@given(data=st.binary(max_size=2_000), header=st.sampled_from([b"", b"\xff\xd8", PLAIN[:TABLES], PLAIN[:SCAN]]))
def test_no_bytes_raise(data: bytes, header: bytes) -> None:
    assert parse(header + data, MAX_PIXELS, exif_orientation=True) is None or header == PLAIN[:SCAN]


WITH_EXIF = inserted(exif((0x010F, ASCII, 8, 38), TAG, tail=bytes(20)))
HEADER = WITH_EXIF.index(b"\xff\xda") + 14


@given(
    changes=st.dictionaries(st.integers(0, HEADER), st.integers(0, 255), min_size=1, max_size=4),
    length=st.integers(0, len(WITH_EXIF)) | st.just(len(WITH_EXIF)),
)
@example(changes={2: 0xFF}, length=len(WITH_EXIF))
@example(changes={22: 0}, length=len(WITH_EXIF))
@settings(max_examples=500)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_header_is_read_as_pillow_reads_it_or_left_to_it(changes: dict[int, int], length: int) -> None:
    damaged = bytearray(WITH_EXIF)
    for place, byte in changes.items():
        damaged[place] = byte
    jpeg = parse(bytes(damaged[:length]), MAX_PIXELS, exif_orientation=True)
    if jpeg is None:
        return
    try:
        Image.open(BytesIO(jpeg.data)).load()
    except (OSError, SyntaxError):
        return  # tables that make no sense: the GPU refuses them too, and the CPU path words it
    assert agrees_with_pillow(jpeg)


# --- files of the world ---------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_jpeg_of_the_shared_data_is_read_as_pillow_reads_it(shared_data: Path) -> None:
    files = [file for file in sorted((shared_data / "images").rglob("*")) if file.is_file()]
    jpegs = {file: jpeg for file in files if (jpeg := parse(file.read_bytes(), MAX_PIXELS, exif_orientation=True))}
    damaged = [file for file, jpeg in jpegs.items() if not is_readable(jpeg.data)]
    # A marker in the midst of the scan: no header tells.
    assert (len(jpegs), len(damaged)) == (94, 8)
    assert {file.parent.name for file in damaged} == {"jpeg-decoder-crashtest"}
    for file in jpegs.keys() - set(damaged):
        opened = Image.open(file)
        assert (opened.format, opened.mode, "progressive" in opened.info) == ("JPEG", "RGB", False), file
        assert agrees_with_pillow(jpegs[file]), file


def is_readable(data: bytes) -> bool:
    try:
        Decoder(Geometry(), MAX_PIXELS)(data)
    except UnreadableImage:
        return False
    return True


@pytest.mark.parametrize("folder", ["labelled", "exif"])
def test_nearly_all_photos_go_to_the_gpu(shared_data: Path, folder: str) -> None:
    photos = [file.read_bytes() for file in (shared_data / "images" / folder).iterdir()]
    jpegs = [photo for photo in photos if photo.startswith(b"\xff\xd8")]
    assert sum(parse(jpeg, MAX_PIXELS, exif_orientation=True) is not None for jpeg in jpegs) >= 0.9 * len(jpegs)
