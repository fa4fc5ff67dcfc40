"""Image bytes -> uint8 (H, W, 3) crop for the network, on the CPU.

The result equals torchvision's `Resize`, `CenterCrop` (v2) of the decoded uint8 tensor pixel by pixel; what they make
of a PIL image differs in 0.2 % of a photo's values, by one level. Pillow decodes: torchvision decodes JPEGs to the same
pixels in as much time (0.87 against 0.89 ms for 500 x 375), and its codecs are deprecated. Torch resizes, in a third
of Pillow's time (0.3 against 0.9 ms). Pillow's draft mode was dropped: pixels are off by
up to 82. Alpha is composed on white; of several frames the first is used.
Nothing here knows HTTP or a device.
"""

import logging
import warnings
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from serve_app.errors import TooManyPixels, UnreadableImage, UnsupportedImage
from serve_app.model_spec import Geometry

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), RGB, contiguous: a stack of them is a channels_last batch without a copy."""

BACKGROUND = (255, 255, 255)
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# Beyond this aspect ratio the resized image would be huge (1 x 60,000 pixels would become 256 x 15
# million), so resize and crop are fused there, at the size of the crop: one level off at most
# (bicubic: 21, on noise).
MAX_EXACT_ASPECT = 16
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


class Decoder:
    """Decodes for one model: `decoder(data)` in any number of threads at once."""

    def __init__(self, geometry: Geometry, max_image_pixels: int, exif_orientation: bool = True) -> None:
        self._geometry = geometry
        self._max_image_pixels = max_image_pixels
        self._exif_orientation = exif_orientation
        # Pillow's own check is the second line, for frames larger than the header said. It is a
        # module-wide number: one replica process has one Decoder.
        Image.MAX_IMAGE_PIXELS = max_image_pixels
        # Pillow warns of every oddity of a damaged header; a log must not grow with hostile input.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        # Torch does, once, of Pillow's pixels, which it is only to read.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

    def __call__(self, data: bytes) -> Pixels:
        """uint8 (crop_size, crop_size, 3). Raises what `read` raises."""
        return resize_and_crop(self.read(data), self._geometry)

    def read(self, data: bytes) -> Image.Image:
        """The image of the file, in RGB, upright, of its own size.

        Raises UnsupportedImage, TooManyPixels (before any pixel is decoded) or UnreadableImage.
        """
        image_format = sniff(data)
        try:
            return self._upright_rgb(data, image_format)
        except (TooManyPixels, UnsupportedImage):
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


def resize_and_crop(image: Image.Image, geometry: Geometry) -> Pixels:
    """As torchvision's `Resize(resize_size)`, `CenterCrop(crop_size)` with antialiasing, of an RGB image."""
    short, long = sorted(image.size)
    resized_long = int(geometry.resize_size * long / short)
    width, height = (
        (geometry.resize_size, resized_long) if image.width <= image.height else (resized_long, geometry.resize_size)
    )
    left = round((width - geometry.crop_size) / 2)
    top = round((height - geometry.crop_size) / 2)
    box = (left, top, left + geometry.crop_size, top + geometry.crop_size)
    if long <= MAX_EXACT_ASPECT * short:
        resized = _resize(_pixels(image), width, height, geometry.interpolation)
        return np.ascontiguousarray(resized[top : top + geometry.crop_size, left : left + geometry.crop_size])
    x, y = image.width / width, image.height / height
    source = (box[0] * x, box[1] * y, min(box[2] * x, image.width), min(box[3] * y, image.height))
    resampling = RESAMPLING[geometry.interpolation]
    return np.asarray(image.resize((geometry.crop_size, geometry.crop_size), resampling, box=source))


def _pixels(image: Image.Image) -> Pixels:
    """uint8 (H, W, 3). In strips: Pillow hands its pixels over in parts that it then joins, so at once in twice the
    memory (a process of 512 MB at its peak for 49 MP, 401 so).
    """
    if image.height <= STRIP_ROWS:
        return np.asarray(image)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def _resize(pixels: Pixels, width: int, height: int, interpolation: str) -> Pixels:
    import torch  # not by the processes of the load generator, which import this file for its formats

    if pixels.shape[:2] == (height, width):
        return pixels
    with torch.inference_mode():
        # channels_last, as it lies in memory: torch has vector code for it, and nothing is copied.
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(image, (height, width), mode=interpolation, antialias=True)
        found: Pixels = resized[0].permute(1, 2, 0).numpy()
    return found


def _upright(image: Image.Image) -> Image.Image:
    try:
        ImageOps.exif_transpose(image, in_place=True)  # which copies nothing where it has nothing to turn
    except Exception:  # damaged EXIF says nothing about the pixels
        logger.debug("unreadable EXIF", exc_info=True)
    return image


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    """What Pillow leaves undone for grey of 9 to 16 bits: their range, TIFF's inversion, PNG's transparent level."""
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
