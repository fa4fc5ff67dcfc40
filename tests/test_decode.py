import re
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import pil_to_tensor
from torchvision.transforms.v2 import functional

from serve_app.decode import MAX_EXACT_ASPECT, Decoder, Pixels
from serve_app.errors import RequestError, TooManyPixels, UnreadableImage, UnsupportedImage
from serve_app.model_spec import Geometry
from serve_app.reader import FORMATS
from tests.memory import peak_mib

IMAGENET = Geometry()
SIDE = 32
# An image of SIDE x SIDE passes through unchanged, so that a test can compare pixels.
IDENTITY = Geometry(resize_size=SIDE, crop_size=SIDE)
WHITE = 255

NOISE: Pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def decode(
    data: bytes, geometry: Geometry = IDENTITY, max_image_pixels: int = 1_000_000, exif_orientation: bool = True
) -> Pixels:
    return Decoder(geometry, max_image_pixels, exif_orientation)(data)


def encode(image: Image.Image | npt.NDArray[Any], image_format: str, **options: Any) -> bytes:
    file = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, image_format, **options)
    return file.getvalue()


def torchvisions(image: Image.Image, geometry: Geometry) -> Pixels:
    """What torchvision's own transforms make of the pixels of `image`."""
    interpolation = InterpolationMode(geometry.interpolation)
    resized = functional.resize(pil_to_tensor(image), [geometry.resize_size], interpolation, antialias=True)
    cropped = functional.center_crop(resized, [geometry.crop_size, geometry.crop_size])
    pixels: Pixels = cropped.permute(1, 2, 0).numpy()
    return pixels


def pillows(image: Image.Image, geometry: Geometry) -> Pixels:
    """What they make of `image` itself, which is then Pillow's own arithmetic."""
    interpolation = InterpolationMode(geometry.interpolation)
    resized: Any = functional.resize(image, [geometry.resize_size], interpolation, antialias=True)  # type: ignore[arg-type]
    return np.asarray(functional.center_crop(resized, [geometry.crop_size, geometry.crop_size]))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


def largest_difference(a: Pixels, b: Pixels) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


# --- as torchvision does it ----------------------------------------------------------------------


def test_photos_equal_torchvisions_transforms_pixel_for_pixel(shared_data: Path) -> None:
    decoder = Decoder(IMAGENET, max_image_pixels=50_000_000)
    photos = sorted((shared_data / "images" / "labelled").iterdir())
    assert len(photos) == 63
    unequal, differences = [], []
    for photo in photos:
        upright = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
        decoded = decoder(photo.read_bytes())
        if not np.array_equal(decoded, torchvisions(upright, IMAGENET)):
            unequal.append(photo.name)
        differences.append(np.abs(decoded.astype(int) - pillows(upright, IMAGENET)))

    assert unequal == []
    of_all = np.stack(differences)
    print(f"to Pillow's resize: {of_all.max()} at most, {(of_all > 0).mean():.2%} of the values differ")
    assert of_all.max() <= 1
    assert (of_all > 0).mean() < 0.005


@given(
    width=st.integers(1, 600),
    height=st.integers(1, 600),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    sides=st.sampled_from([(256, 224), (232, 224), (257, 224), (32, 32), (33, 32)]),
)
@example(width=1, height=1, interpolation="bilinear", sides=(256, 224))
@example(width=1, height=7, interpolation="bilinear", sides=(256, 224))
@example(width=3, height=48, interpolation="bicubic", sides=(257, 224))
@example(width=255, height=257, interpolation="bilinear", sides=(256, 224))
@settings(deadline=None, max_examples=60)
def test_images_of_odd_sizes_equal_torchvisions_transforms(
    width: int, height: int, interpolation: Literal["bilinear", "bicubic"], sides: tuple[int, int]
) -> None:
    assume(max(width, height) <= MAX_EXACT_ASPECT * min(width, height))
    geometry = Geometry(resize_size=sides[0], crop_size=sides[1], interpolation=interpolation)
    image = noise(width, height)
    assert np.array_equal(decode(encode(image, "BMP"), geometry), torchvisions(image, geometry))


@pytest.mark.parametrize("size", [(3, 500), (500, 3), (1, 17), (17, 1), (2, 333), (60, 1000)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_beyond_the_exact_aspect_ratio_few_levels_differ(
    size: tuple[int, int], interpolation: Literal["bilinear", "bicubic"]
) -> None:
    geometry = Geometry(interpolation=interpolation)
    decoded = decode(encode(noise(*size), "BMP"), geometry)
    limit = {"bilinear": 1, "bicubic": 21}[interpolation]
    assert largest_difference(decoded, pillows(noise(*size), geometry)) <= limit


def test_a_crop_is_contiguous_uint8_of_the_models_geometry() -> None:
    pixels = decode(encode(noise(90, 70), "PNG"), IMAGENET)
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


# --- EXIF orientation ----------------------------------------------------------------------------

# From the EXIF standard: on which side of the picture the stored row 0 and column 0 belong.
STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,  # top, left
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.transpose(1, 0, 2),  # left, top
    6: lambda upright: np.rot90(upright),  # right, top
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
    8: lambda upright: np.rot90(upright, -1),  # left, bottom
}
ORIENTATION_TAG = 0x0112
ENCODINGS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "TIFF": {},
    "WEBP": {"lossless": True},
    "JPEG": {"quality": 100, "subsampling": 0},
}
# The transform of JPEG rounds rows and columns in a different order.
JPEG_TOLERANCE = 3
LANDSCAPE = Geometry(resize_size=24, crop_size=24)


def asymmetric() -> Pixels:
    """48 x 32, different from itself in every other orientation."""
    y, x = np.mgrid[0:32, 0:48]
    return np.stack([x * 5, y * 7, (x > 30) & (y > 20)], axis=2).astype(np.uint8) * np.array([1, 1, 200], np.uint8)


def stored(orientation: int, image_format: str, tag: int | None = None) -> bytes:
    """The asymmetric picture as a camera held in `orientation` stores it."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation if tag is None else tag
    pixels = np.ascontiguousarray(STORED[orientation](asymmetric()))
    return encode(pixels, image_format, exif=exif, **ENCODINGS[image_format])


@pytest.mark.parametrize("image_format", ENCODINGS)
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_is_turned_upright(orientation: int, image_format: str) -> None:
    upright = decode(encode(asymmetric(), "PNG"), LANDSCAPE)
    tolerance = JPEG_TOLERANCE if image_format == "JPEG" else 0
    assert largest_difference(decode(stored(orientation, image_format), LANDSCAPE), upright) <= tolerance


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", STORED)
def test_without_exif_orientation_pixels_stay_as_stored(orientation: int, image_format: str) -> None:
    untagged = decode(stored(orientation, image_format, tag=1), LANDSCAPE)
    as_stored = decode(stored(orientation, image_format), LANDSCAPE, exif_orientation=False)
    assert np.array_equal(as_stored, untagged)


@pytest.mark.parametrize("orientation", STORED)
def test_the_orientation_of_tiff_itself_always_counts(orientation: int) -> None:
    upright = decode(encode(asymmetric(), "PNG"), LANDSCAPE)
    assert np.array_equal(decode(stored(orientation, "TIFF"), LANDSCAPE, exif_orientation=False), upright)


@pytest.mark.parametrize("tag", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(tag: int) -> None:
    upright = decode(encode(asymmetric(), "PNG"), LANDSCAPE)
    assert np.array_equal(decode(stored(1, "PNG", tag), LANDSCAPE), upright)


def test_damaged_exif_does_not_spoil_the_pixels() -> None:
    damaged = encode(NOISE, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert np.array_equal(decode(damaged), NOISE)


# --- formats -------------------------------------------------------------------------------------


def png(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes | None, trns: bytes = b"") -> bytes:
    """A PNG file by hand, for what Pillow reads but does not write; `rows` None: no pixel data at all."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0))
    transparency = chunk(b"tRNS", trns) if trns else b""
    pixels = b"" if rows is None else chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + transparency + pixels + chunk(b"IEND", b"")


def tiff(
    bits: int, photometric: int, strip: bytes, compression: int = 1, size: tuple[int, int] = (SIDE, SIDE)
) -> bytes:
    """A one-channel TIFF file by hand, one strip."""
    short, long = 3, 4
    entries = [
        (256, long, size[0]),
        (257, long, size[1]),
        (258, short, bits),
        (259, short, compression),
        (262, short, photometric),
        (273, long, 8),
        (277, short, 1),
        (278, long, size[1]),
        (279, long, len(strip)),
    ]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    start = 8 + len(strip)
    return b"II*\0" + struct.pack("<I", start) + strip + struct.pack("<H", len(entries)) + directory + bytes(4)


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"compression": "packbits"}),
    ],
)
def test_lossless_formats_keep_every_pixel(image_format: str, options: dict[str, Any]) -> None:
    assert np.array_equal(decode(encode(NOISE, image_format, **options)), NOISE)


@pytest.mark.parametrize("image_format", ["PNG", "GIF", "BMP", "TIFF"])
def test_palettes_become_their_colours(image_format: str) -> None:
    palette = Image.fromarray(NOISE).quantize(64)
    assert np.array_equal(decode(encode(palette, image_format)), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("image_format", ["PNG", "GIF", "BMP", "TIFF", "JPEG"])
def test_grayscale_becomes_three_equal_channels(image_format: str) -> None:
    gray = np.full((SIDE, SIDE), 77, np.uint8)
    assert (decode(encode(gray, image_format)) == 77).all()


@pytest.mark.parametrize("image_format", ["PNG", "GIF", "BMP", "TIFF"])
def test_one_bit_becomes_black_and_white(image_format: str) -> None:
    bits = Image.fromarray(NOISE).convert("1")
    assert np.array_equal(decode(encode(bits, image_format))[:, :, 0], np.asarray(bits) * WHITE)


def test_cmyk_jpeg_is_not_inverted() -> None:
    colour = Image.new("RGB", (SIDE, SIDE), (200, 30, 90))
    decoded = decode(encode(colour.convert("CMYK"), "JPEG", quality=100))
    assert largest_difference(decoded, np.asarray(colour)) <= JPEG_TOLERANCE


def test_progressive_jpeg_decodes_as_baseline_does() -> None:
    progressive = encode(noise(70, 50), "JPEG", progressive=True)
    assert np.array_equal(decode(progressive), decode(encode(noise(70, 50), "JPEG")))


def test_sixteen_bit_gray_keeps_its_high_bits() -> None:
    levels = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 64
    assert np.array_equal(decode(encode(levels, "PNG"))[:, :, 0], levels >> 8)
    assert np.array_equal(decode(encode(levels, "TIFF"))[:, :, 0], levels >> 8)


def test_sixteen_bit_colour_keeps_its_high_bits() -> None:
    row = b"\0" + struct.pack(">HHH", 0x12FF, 0x80FF, 0xFEFF) * SIDE
    assert (decode(png(SIDE, SIDE, 16, 2, row * SIDE)) == (0x12, 0x80, 0xFE)).all()


def test_twelve_bit_gray_is_scaled_to_white() -> None:
    white = tiff(bits=12, photometric=1, strip=b"\xff" * (SIDE * SIDE * 12 // 8))
    assert (decode(white) == WHITE).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_whose_zero_is_white_is_inverted(bits: int) -> None:
    white = tiff(bits, photometric=0, strip=bytes(SIDE * SIDE * bits // 8))
    assert (decode(white) == WHITE).all()


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composed_on_white(image_format: str) -> None:
    rgba = np.dstack([NOISE, np.repeat(np.array([[0, 85, 170, 255]], np.uint8), SIDE // 4, axis=1).repeat(SIDE, 0)])
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    alpha = rgba[:, :, 3:] / 255
    expected = np.rint(NOISE * alpha + WHITE * (1 - alpha)).astype(np.uint8)
    assert largest_difference(decode(encode(rgba, image_format, **options)), expected) <= 1


def test_gray_with_alpha_is_composed_on_white() -> None:
    image = Image.merge("LA", [Image.new("L", (SIDE, SIDE), 40), Image.new("L", (SIDE, SIDE), 0)])
    image.paste((40, 255), (0, 0, SIDE, SIDE // 2))
    decoded = decode(encode(image, "PNG"))
    assert (decoded[: SIDE // 2] == 40).all()
    assert (decoded[SIDE // 2 :] == WHITE).all()


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(image_format: str) -> None:
    palette = Image.new("P", (SIDE, SIDE), 1)
    palette.putpalette([10, 20, 30, 200, 0, 0])
    palette.paste(0, (0, 0, SIDE, SIDE // 2))
    decoded = decode(encode(palette, image_format, transparency=1))
    assert (decoded[: SIDE // 2] == (10, 20, 30)).all()
    assert (decoded[SIDE // 2 :] == WHITE).all()


@pytest.mark.parametrize(("bit_depth", "sample"), [(8, b"\x28"), (16, b"\x28\x00")])
def test_a_transparent_gray_level_is_white(bit_depth: int, sample: bytes) -> None:
    row = b"\0" + sample * SIDE
    assert (decode(png(SIDE, SIDE, bit_depth, 0, row * SIDE, trns=sample.rjust(2, b"\0"))) == WHITE).all()


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_used(image_format: str) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "green", "blue")]
    options = {"lossless": True} if image_format == "WEBP" else {}
    animation = encode(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    assert (decode(animation) == (255, 0, 0)).all()


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_32_bits_are_refused(dtype: type[np.generic]) -> None:
    with pytest.raises(UnsupportedImage, match="32 bits"):
        decode(encode(np.zeros((SIDE, SIDE), dtype), "TIFF"))


# --- errors --------------------------------------------------------------------------------------

NOT_IMAGES = {
    "nothing": b"",
    "one byte": b"\xff",
    "garbage": bytes(range(7, 250)),
    "text": b"hello",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "html": b"<!doctype html><img>",
    "heif": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "avif": b"\0\0\0\x1cftypavif\0\0\0\0mif1avif",
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "wave": b"RIFF\x24\0\0\0WAVEfmt ",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "icon": b"\0\0\1\0\1\0\x10\x10",
    "space before a jpeg": b" " + encode(NOISE, "JPEG"),
}
DAMAGED = {
    "signature only": b"\xff\xd8\xff",
    "bmp in name": b"BM is how this text starts",
    "png of zero pixels": png(0, 0, 8, 2, b""),
    "png without pixels": png(SIDE, SIDE, 8, 2, None),
    "png of a wrong bit depth": png(SIDE, SIDE, 3, 2, b""),
    "tiff without a directory": b"II*\0\xff\xff\xff\x7f",
    "gif header": b"GIF89a\x20\0\x20\0",
    "webp header": b"RIFF\x24\0\0\0WEBPVP8 ",
}
CUT_JPEGS = {
    "baseline": encode(noise(300, 200), "JPEG"),
    "progressive": encode(noise(99, 70), "JPEG", progressive=True),
}
CUT_PNG = encode(noise(300, 200), "PNG")


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_what_is_no_image_is_unsupported(name: str) -> None:
    with pytest.raises(UnsupportedImage, match=", ".join(FORMATS)):
        decode(NOT_IMAGES[name])


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_is_unreadable(name: str) -> None:
    with pytest.raises(UnreadableImage):
        decode(DAMAGED[name])


# The last two bytes only mark the end: without them all pixels are there.
@pytest.mark.parametrize("kind", CUT_JPEGS)
@pytest.mark.parametrize("place", range(20))
def test_a_jpeg_cut_anywhere_is_unreadable(place: int, kind: str) -> None:
    data = CUT_JPEGS[kind]
    with pytest.raises(UnreadableImage):
        decode(data[: np.linspace(4, len(data) - 3, 20, dtype=int)[place]])


@pytest.mark.parametrize("place", range(20))
def test_a_png_cut_before_its_last_row_is_unreadable(place: int) -> None:
    with pytest.raises(UnreadableImage):
        decode(CUT_PNG[: np.linspace(9, len(CUT_PNG) * 0.99, 20, dtype=int)[place]])


@pytest.mark.parametrize("data", [CUT_JPEGS["baseline"], CUT_PNG], ids=["JPEG", "PNG"])
def test_a_file_cut_short_says_so(data: bytes) -> None:
    with pytest.raises(UnreadableImage, match="cut short"):
        decode(data[: len(data) // 2])


# Above twice the limit Pillow itself refuses, below it is only our check that does.
@pytest.mark.parametrize("side", [8_000, 30_000])
def test_too_many_pixels_are_refused_by_the_header_alone(side: int) -> None:
    with pytest.raises(TooManyPixels, match="50,000,000"):
        decode(png(side, side, 8, 2, rows=None), max_image_pixels=50_000_000)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_the_pixel_limit_is_inclusive(image_format: str) -> None:
    data = encode(noise(40, 30), image_format)
    assert decode(data, max_image_pixels=1200).shape == (SIDE, SIDE, 3)
    with pytest.raises(TooManyPixels, match="40 x 30"):
        decode(data, max_image_pixels=1199)


def test_a_gif_frame_larger_than_its_screen_counts() -> None:
    data = bytearray(encode(noise(40, 30), "GIF"))
    data[6:10] = struct.pack("<HH", 1, 1)
    with pytest.raises(TooManyPixels):
        decode(bytes(data), max_image_pixels=1000)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_an_extreme_aspect_ratio_takes_no_more_memory_than_the_crop(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "black")
    centre = (0, 29_900, 1, 30_100) if size[0] == 1 else (29_900, 0, 30_100, 1)
    image.paste((255, 0, 0), centre)
    taken_mib, pixels = decoded_apart(encode(image, "PNG"))
    assert taken_mib < 100
    assert pixels.shape == (224, 224, 3)
    assert (pixels == (255, 0, 0)).all()


def test_a_square_image_takes_the_memory_of_its_pixels() -> None:
    """So that what the test above sees is that of a decoder."""
    taken_mib, _ = decoded_apart(encode(Image.new("RGB", (8_000, 6_000)), "PNG"))
    assert taken_mib > 100


def decoded_apart(data: bytes) -> tuple[float, Pixels]:
    """The most MiB it takes, and the crop: in a process of its own, for this one has memory that was freed to use."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(decoded_and_weighed, data).result()


def decoded_and_weighed(data: bytes) -> tuple[float, Pixels]:
    decoded: list[Pixels] = []
    return peak_mib(lambda: decoded.append(decode(data, IMAGENET, 50_000_000))), decoded[0]


@pytest.mark.parametrize("data", [*NOT_IMAGES.values(), *DAMAGED.values(), CUT_PNG[:5000], png(9999, 9999, 8, 2, None)])
def test_messages_hold_nothing_internal(data: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        decode(data)
    assert not re.search(r"PIL|Pillow|Traceback|Error|/|\\|\.py|0x|<", refused.value.message)
    assert refused.value.message == str(refused.value)


def test_a_damaged_tiff_writes_nothing_to_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    group3 = 3
    garbage = np.random.default_rng(0).bytes(500)
    with suppress(RequestError):
        decode(tiff(bits=1, photometric=0, strip=garbage, compression=group3, size=(8, 1000)))
    assert capfd.readouterr().err == ""


# --- totality ------------------------------------------------------------------------------------

MUTATED = {
    "JPEG": encode(noise(40, 30), "JPEG"),
    "progressive JPEG": encode(noise(40, 30), "JPEG", progressive=True),
    "PNG": encode(noise(20, 15), "PNG"),
    "palette PNG": encode(noise(20, 15).quantize(16), "PNG", transparency=3),
    "GIF": encode(noise(20, 15), "GIF", save_all=True, append_images=[noise(15, 20)]),
    "WebP": encode(noise(40, 30), "WEBP"),
    "TIFF": encode(noise(20, 15), "TIFF"),
    "LZW TIFF": encode(noise(20, 15), "TIFF", compression="tiff_lzw"),
    "BMP": encode(noise(20, 15), "BMP"),
    "palette BMP": encode(noise(20, 15).quantize(16), "BMP"),
}
# Headers are where parsers trip: half of the places are in the first hundred bytes.
PLACES = st.integers(0, 100) | st.integers(0, 5000)
BYTES = st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255)


@pytest.mark.parametrize("kind", MUTATED)
@given(edits=st.lists(st.tuples(PLACES, BYTES), min_size=1, max_size=6), cut=st.none() | PLACES)
@settings(deadline=None, max_examples=100)
def test_a_mutated_file_gives_a_crop_or_a_request_error(
    kind: str, edits: list[tuple[int, int]], cut: int | None
) -> None:
    data = bytearray(MUTATED[kind])
    for place, value in edits:
        data[place % len(data)] = value
    with suppress(RequestError):
        assert decode(bytes(data[:cut])).shape == (SIDE, SIDE, 3)
