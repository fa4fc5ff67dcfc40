"""On the CPU: Pillow stands in for nvJPEG, the interpreter for the GPU; tests/gpu has both for real."""

import logging
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from serve_app.decode import Decoder, Pixels
from serve_app.engine import gpu_decode
from serve_app.engine.gpu_decode import DecodeBatch, GpuDecoder
from serve_app.errors import RequestError, UnreadableImage
from serve_app.jpeg import Jpeg, parse
from serve_app.model_spec import Geometry
from tests.engine import interpreted

# Of the CPU path, whose own filter ends with the import: pytest sets filters anew for each test.
pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")

SIDE = 32
GEOMETRY = Geometry(resize_size=48, crop_size=SIDE)
CPU = torch.device("cpu")
MAX_PIXELS = 1_000_000
UNTOUCHED = 201
ORIENTATION_TAG = 0x0112
DECODER = Decoder(GEOMETRY, MAX_PIXELS)


@pytest.fixture(scope="module", autouse=True)
def _kernel_is_interpreted() -> Iterator[None]:
    with interpreted.resize_kernel():
        yield


def photo(width: int, height: int, orientation: int = 1) -> Jpeg:
    random = np.random.default_rng(width * 1009 + height)
    image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    file = BytesIO()
    image.save(file, "JPEG", exif=exif)
    jpeg = parse(file.getvalue(), MAX_PIXELS, exif_orientation=True)
    assert jpeg is not None
    assert jpeg.orientation == orientation
    return jpeg


def by_pillow(encoded: list[torch.Tensor]) -> list[torch.Tensor]:
    """A DecodeBatch. As nvJPEG, it fails the whole list for one damaged image."""
    try:
        images = [np.array(Image.open(BytesIO(data.numpy().tobytes()))) for data in encoded]
    except OSError as error:
        raise RuntimeError(f"Error while decoding JPEG images: {error}") from None
    return [torch.from_numpy(image).permute(2, 0, 1).contiguous() for image in images]


class Recorded:
    """A DecodeBatch that notes how many it was asked for, and fails every list that holds one of `refused`."""

    def __init__(self, refused: Sequence[Jpeg] = ()) -> None:
        self.sizes: list[int] = []
        self._refused = {jpeg.data for jpeg in refused}

    def __call__(self, encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        self.sizes.append(len(encoded))
        if any(data.numpy().tobytes() in self._refused for data in encoded):
            raise RuntimeError("Failed to decode batch: 5")
        return by_pillow(encoded)


def decoder(decode_batch: DecodeBatch = by_pillow) -> GpuDecoder:
    return GpuDecoder(GEOMETRY, DECODER, CPU, decode_batch)


def decoded(gpu: GpuDecoder, images: Sequence[Jpeg | Pixels], rows: int = 8) -> tuple[Pixels, dict[int, RequestError]]:
    out = torch.full((rows, SIDE, SIDE, 3), UNTOUCHED, dtype=torch.uint8)
    errors = gpu.decode_into(images, out)
    pixels: Pixels = out.numpy()
    return pixels, errors


def crop(value: int) -> Pixels:
    return np.full((SIDE, SIDE, 3), value, dtype=np.uint8)


def damaged(jpeg: Jpeg) -> Jpeg:
    """Whole by its header, and with a marker in its scan that ends every decoder."""
    middle = len(jpeg.data) - 200
    return Jpeg(jpeg.data[:middle] + b"\xff\xc2" + jpeg.data[middle + 2 :], jpeg.width, jpeg.height, jpeg.orientation)


def assert_cpu_path_agrees(pixels: Pixels, images: Sequence[Jpeg | Pixels]) -> None:
    for row, image in zip(pixels, images, strict=False):
        # Whatever resizes on the CPU may have coarser weights than the kernel.
        limit = 1 if isinstance(image, Jpeg) else 0
        found = DECODER(image.data) if isinstance(image, Jpeg) else image
        assert np.abs(row.astype(int) - found).max() <= limit
    assert (pixels[len(images) :] == UNTOUCHED).all()


PHOTOS = [photo(90, 70), photo(64, 100, 6), photo(128, 66, 3), photo(70, 70, 8)]


def test_jpegs_become_what_the_cpu_path_makes_of_them() -> None:
    pixels, errors = decoded(decoder(), PHOTOS)
    assert errors == {}
    assert_cpu_path_agrees(pixels, PHOTOS)


@pytest.mark.parametrize(
    "images",
    [
        [crop(1), PHOTOS[0], crop(2), crop(3), PHOTOS[1], crop(4)],
        [PHOTOS[2], crop(5)],
        [crop(6), crop(7)],
        [crop(8)],
        [],
    ],
    ids=["mixed", "ends with a crop", "crops", "one crop", "none"],
)
def test_crops_of_the_cpu_and_jpegs_each_get_their_row(images: Sequence[Jpeg | Pixels]) -> None:
    pixels, errors = decoded(decoder(), images)
    assert errors == {}
    assert_cpu_path_agrees(pixels, images)


def test_batches_one_after_another_share_no_pixels() -> None:
    gpu = decoder()
    batches: list[list[Jpeg | Pixels]] = [[crop(1)] * 8, [PHOTOS[0], crop(2), PHOTOS[1]], [crop(3)], [*PHOTOS]]
    for images in batches:
        pixels, _ = decoded(gpu, images)
        assert_cpu_path_agrees(pixels, images)


def test_a_batch_is_one_call() -> None:
    batch = Recorded()
    decoded(decoder(batch), [crop(1), *PHOTOS])
    decoded(decoder(batch), [crop(1), crop(2)])
    assert batch.sizes == [4]


@pytest.mark.parametrize("place", range(8))
def test_what_the_gpu_refuses_the_cpu_decodes_and_the_others_stay_on_the_gpu(place: int) -> None:
    images = [*PHOTOS, *PHOTOS]
    images[place] = odd = photo(99, 77)
    batch = Recorded(refused=[odd])
    pixels, errors = decoded(decoder(batch), images)
    assert errors == {}
    assert_cpu_path_agrees(pixels, images)
    assert batch.sizes[0] == 8
    assert len(batch.sizes) == 7  # 8, 4 and 4, 2 and 2, 1 and 1


def test_what_both_refuse_is_an_error_of_that_image_alone() -> None:
    images: list[Jpeg | Pixels] = [PHOTOS[0], damaged(PHOTOS[1]), crop(1), damaged(PHOTOS[2]), PHOTOS[3]]
    pixels, errors = decoded(decoder(), images)
    assert sorted(errors) == [1, 3]
    assert all(isinstance(error, UnreadableImage) for error in errors.values())
    for row in (0, 2, 4):
        assert_cpu_path_agrees(pixels[row : row + 1], images[row : row + 1])
    assert (pixels[[1, 3, 5, 6, 7]] == UNTOUCHED).all()


def test_a_batch_of_damaged_images_alone_fails_each() -> None:
    _, errors = decoded(decoder(), [damaged(jpeg) for jpeg in PHOTOS])
    assert sorted(errors) == [0, 1, 2, 3]


def test_without_a_gpu_decoder_all_go_to_the_cpu() -> None:
    pixels, errors = decoded(decoder(Recorded(refused=PHOTOS)), PHOTOS)
    assert errors == {}
    assert_cpu_path_agrees(pixels, PHOTOS)


@pytest.mark.parametrize(
    "reshape",
    [
        lambda image: image[:1],
        lambda image: image.transpose(1, 2).contiguous(),
        lambda image: image[:, :-1].contiguous(),
        lambda image: image[:, :0],
    ],
    ids=["one channel", "turned", "a row less", "empty"],
)
def test_what_has_another_size_than_its_header_says_goes_to_the_cpu(
    reshape: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    def second_is_wrong(encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        images = by_pillow(encoded)
        images[1] = reshape(images[1])
        return images

    pixels, errors = decoded(decoder(second_is_wrong), PHOTOS)
    assert errors == {}
    assert_cpu_path_agrees(pixels, PHOTOS)


@pytest.mark.parametrize(
    ("limit", "sizes"), [(90 * 70, [1, 1, 1, 1]), (13_348, [2, 2]), (13_347, [2, 1, 1]), (1, [1] * 4)]
)
def test_memory_is_bounded_by_pixels(monkeypatch: pytest.MonkeyPatch, limit: int, sizes: list[int]) -> None:
    monkeypatch.setattr(gpu_decode, "MAX_PIXELS_PER_CALL", limit)
    batch = Recorded()
    pixels, _ = decoded(decoder(batch), PHOTOS)
    assert batch.sizes == sizes
    assert_cpu_path_agrees(pixels, PHOTOS)


def test_the_stream_is_settled_before_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which memory is written and read: see GpuDecoder._decode_together."""
    events: list[str] = []
    monkeypatch.setattr(gpu_decode, "MAX_PIXELS_PER_CALL", 1)
    monkeypatch.setattr(GpuDecoder, "_settle", lambda self: events.append("settle"))
    monkeypatch.setattr(GpuDecoder, "_settle_all", lambda self: events.append("settle all"))

    def fails_at_first(encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        events.append("decode")
        if events.count("decode") == 1:
            raise RuntimeError
        return by_pillow(encoded)

    gpu = decoder(fails_at_first)
    monkeypatch.setattr(gpu, "_resize_into", lambda *_: events.append("resize"))
    decoded(gpu, PHOTOS[:3])
    assert events == [
        *("settle", "settle", "decode", "settle all"),
        *("settle", "decode", "resize"),
        *("settle", "decode", "resize"),
    ]


def test_other_exceptions_are_not_taken_for_damaged_images() -> None:
    def bug(encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        decoded(decoder(bug), PHOTOS)


def test_bytes_are_neither_copied_nor_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    addresses: list[int] = []

    def noted(encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        addresses.extend(data.data_ptr() for data in encoded)
        return by_pillow(encoded)

    decoded(decoder(noted), PHOTOS)
    assert addresses == [np.frombuffer(jpeg.data, dtype=np.uint8).ctypes.data for jpeg in PHOTOS]
    assert len(recwarn) == 0


def test_warming_up_decodes_and_says_so_where_it_cannot(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    batch = Recorded()
    decoder(batch).warm_up()
    assert batch.sizes == [1, 1]

    def missing(encoded: Any) -> list[torch.Tensor]:
        raise RuntimeError("torchvision not compiled with nvJPEG support")

    with pytest.raises(RuntimeError, match="nvJPEG support"):
        decoder(missing).warm_up()
