"""Image bytes -> RGB image, upright: what runs in Pillow's C code, and nothing heavier is imported for it.

Pillow decodes: torchvision decodes JPEGs to the same pixels in as much time (0.87 against 0.89 ms for 500 x 375), and
its codecs are deprecated. Pillow's draft mode was dropped: pixels are off by up to 82. Alpha is composed on white; of
several frames the first is used.
"""

import logging
import warnings
from io import BytesIO

from PIL import Image, ImageOps

from serve_app import structure
from serve_app.errors import TooManyPixels, UnreadableImage, UnsupportedImage

logger = logging.getLogger(__name__)

BACKGROUND = (255, 255, 255)
STRIP_ROWS = 512

SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)
# libtiff prints a line per damaged row of the other fax codings: a file of 1 kB wrote 123 MB of log.
TIFF_COMPRESSIONS = {"raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "jpeg", "group4"}
TIFF_BITS_PER_SAMPLE, TIFF_PHOTOMETRIC, TIFF_WHITE_IS_ZERO = 258, 262, 0
FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF")


class Reader:
    """`reader(data)`, in any number of threads at once."""

    def __init__(self, max_image_pixels: int, exif_orientation: bool = True) -> None:
        self._max_image_pixels = max_image_pixels
        self._exif_orientation = exif_orientation
        # Pillow's own check is the second line, for frames larger than the header said. It is a
        # module-wide number: one process has one Reader.
        Image.MAX_IMAGE_PIXELS = max_image_pixels
        # Pillow warns of every oddity of a damaged header; a log must not grow with hostile input.
        warnings.filterwarnings("ignore", module=r"PIL\.")

    def __call__(self, data: bytes) -> Image.Image:
        """The image of the file, in RGB, upright, of its own size.

        Raises UnsupportedImage, TooManyPixels (before any pixel is decoded) or UnreadableImage.
        """
        image_format = sniff(data)
        try:
            structure.check(data, image_format)
            return self._upright_rgb(data, image_format)
        except (TooManyPixels, UnsupportedImage, UnreadableImage):
            raise
        except Image.DecompressionBombError:
            raise TooManyPixels(self._pixel_message()) from None
        except Exception as error:
            # Pillow's plugins raise whatever their parser trips over: OSError, SyntaxError,
            # ValueError, TypeError, struct.error, zlib.error, MemoryError, ...
            logger.debug("unreadable %s", image_format, exc_info=True)
            raise UnreadableImage(_unreadable_message(error, image_format)) from None

    def _upright_rgb(self, data: bytes, image_format: str) -> Image.Image:
        with Image.open(BytesIO(data), formats=(image_format,)) as file:
            self._check_pixels(file)
            if image_format == "TIFF" and file.info.get("compression") not in TIFF_COMPRESSIONS:
                raise UnsupportedImage("this compression of TIFF is not supported; use deflate or LZW, or send a PNG")
            file.load()
            self._check_pixels(file)
            image = _eight_bit_grey(file) if file.mode.startswith("I;16") else file
            return _rgb(_upright(image) if self._exif_orientation else image)

    def _check_pixels(self, image: Image.Image) -> None:
        if image.width * image.height > self._max_image_pixels:
            raise TooManyPixels(f"the image is {image.width} x {image.height}; {self._pixel_message()}")

    def _pixel_message(self) -> str:
        return f"at most {self._max_image_pixels:,} pixels are allowed: send a smaller image"


def sniff(data: bytes) -> str:
    """Pillow's name of the format, by the first bytes: content types and file names lie.

    Raises UnsupportedImage for anything that is no format we read.
    """
    for signature, name in SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    raise UnsupportedImage(f"the body is no image of a known type; send one of {', '.join(FORMATS)}")


def write_pixels(image: Image.Image, to: memoryview) -> None:
    """uint8 (H, W, 3) of an RGB image into the beginning of `to`, which are bytes.

    In strips: Pillow hands its pixels over in parts that it then joins, so at once in twice the memory (a process of
    512 MB at its peak for 49 MP, 401 so).
    """
    row_bytes = 3 * image.width
    for top in range(0, image.height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, image.height)
        strip = image if image.height <= STRIP_ROWS else image.crop((0, top, image.width, bottom))
        to[top * row_bytes : bottom * row_bytes] = strip.tobytes()


def _upright(image: Image.Image) -> Image.Image:
    try:
        ImageOps.exif_transpose(image, in_place=True)  # which copies nothing where it has nothing to turn
    except Exception:  # damaged EXIF says nothing about the pixels
        logger.debug("unreadable EXIF", exc_info=True)
    return image


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    """What Pillow leaves undone for grey of 9 to 16 bits: their range, TIFF's inversion, PNG's transparent level."""
    import numpy as np  # not by a decode worker before it meets such a file: half of its start

    values = np.asarray(image).astype(np.uint16)
    tags = getattr(image, "tag_v2", {})
    grey = (values >> (tags.get(TIFF_BITS_PER_SAMPLE, (16,))[0] - 8)).astype(np.uint8)
    if tags.get(TIFF_PHOTOMETRIC) == TIFF_WHITE_IS_ZERO:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    converted = Image.fromarray(grey)
    if "exif" in image.info:
        converted.info["exif"] = image.info["exif"]
    return converted


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        # Their range is not in the file; any guess could be a wrong answer given quietly.
        raise UnsupportedImage("pixels of 32 bits per channel are not supported; send 8 or 16 bits")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    background = Image.new("RGB", rgba.size, BACKGROUND)
    background.paste(rgba, mask=rgba.getchannel("A"))
    return background


def _unreadable_message(error: Exception, image_format: str) -> str:
    if "truncated" in str(error).lower():
        return f"the {image_format} image is cut short: send the whole file"
    return f"the {image_format} image is damaged or of a kind that cannot be read"
