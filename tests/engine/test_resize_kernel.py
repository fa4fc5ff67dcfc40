"""Through Triton's interpreter, on the CPU; tests/gpu has the compiled kernel."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as F

from serve_app.decode import MAX_EXACT_ASPECT, Pixels, resize_and_crop
from serve_app.model_spec import Geometry
from tests.engine import interpreted
from tests.engine.pillow_crop import pillow_crop, upright

Interpolation = Literal["bilinear", "bicubic"]
SMALL = Geometry(resize_size=32, crop_size=28)
UNTOUCHED = 201
# Of values; the rest is one level off, for weights of torchvision have 16 bits or fewer. Measured: 0.989 and 0.997.
SHARE_AS_TORCHVISION = {"bilinear": 0.985, "bicubic": 0.99}


@pytest.fixture(scope="module")
def kernel() -> Iterator[ModuleType]:
    with interpreted.resize_kernel() as module:
        yield module


def noise(width: int, height: int) -> Pixels:
    """uint8 (height, width, 3); coarse and fine at once, and up to both ends, so that bicubic overshoots."""
    random = np.random.default_rng(width * 1009 + height)
    fine = random.integers(0, 256, (height, width, 3))
    coarse = random.integers(0, 2, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1) * 255
    return np.where(random.random((height, width, 1)) < 0.5, fine, coarse[:height, :width]).astype(np.uint8)


def planar(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def resized(
    kernel: ModuleType, images: Sequence[Pixels], geometry: Geometry, orientations: Sequence[int] | None = None
) -> Pixels:
    """uint8 (number of images, crop_size, crop_size, 3)."""
    out = torch.full((len(images), geometry.crop_size, geometry.crop_size, 3), UNTOUCHED, dtype=torch.uint8)
    decoded = [planar(image) for image in images]
    kernel.resize_into(decoded, orientations or [1] * len(images), range(len(images)), out, geometry)
    crops: Pixels = out.numpy()
    return crops


def by_torchvision(pixels: Pixels, geometry: Geometry) -> Pixels:
    interpolation = F.InterpolationMode(geometry.interpolation)
    image = F.resize(planar(pixels), [geometry.resize_size], interpolation=interpolation, antialias=True)
    crop: Pixels = F.center_crop(image, [geometry.crop_size]).permute(1, 2, 0).numpy()
    return crop


SIZES = [
    (32, 32),  # as it is
    (33, 31),
    (30, 40),  # halfway sums: a row of 30 becomes 32
    (7, 10),
    (1, 1),
    (3, 48),
    (64, 64),  # by 2
    (128, 96),
    (97, 131),
    (450, 30),
    (31, 140),
    (33, 70),  # tall: Pillow 13 would take the rows first
    (40, 90),
]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES)
def test_crops_equal_pillows_bit_for_bit(
    kernel: ModuleType, size: tuple[int, int], interpolation: Interpolation
) -> None:
    geometry = SMALL.model_copy(update={"interpolation": interpolation})
    (crop,) = resized(kernel, [noise(*size)], geometry)
    assert np.array_equal(crop, pillow_crop(noise(*size), geometry))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_are_torchvisions_within_one_level(kernel: ModuleType, interpolation: Interpolation) -> None:
    geometry = SMALL.model_copy(update={"interpolation": interpolation})
    images = [noise(*size) for size in SIZES]
    theirs = np.stack([by_torchvision(image, geometry) for image in images])
    difference = np.abs(resized(kernel, images, geometry).astype(int) - theirs)
    assert difference.max() <= 1
    assert (difference == 0).mean() >= SHARE_AS_TORCHVISION[interpolation]


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_crops_are_the_cpu_paths_within_one_level(
    kernel: ModuleType, orientation: int, interpolation: Interpolation
) -> None:
    geometry = SMALL.model_copy(update={"interpolation": interpolation})
    images = [noise(97, 131), noise(128, 96), noise(30, 40), noise(61, 33)]
    ours = resized(kernel, images, geometry, [orientation] * len(images))
    theirs = [np.asarray(resize_and_crop(upright(image, orientation), geometry)) for image in images]
    assert np.abs(ours.astype(int) - np.stack(theirs)).max() <= 1


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    sides=st.sampled_from([(32, 28), (33, 28), (24, 24), (17, 1), (16, 5)]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    orientation=st.integers(1, 8),
)
@example(width=24, height=24, sides=(24, 24), interpolation="bilinear", orientation=6)
@example(width=90, height=36, sides=(33, 28), interpolation="bicubic", orientation=8)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_size_in_any_geometry_and_orientation_equals_pillows(
    kernel: ModuleType,
    width: int,
    height: int,
    sides: tuple[int, int],
    interpolation: Interpolation,
    orientation: int,
) -> None:
    assume(max(width, height) <= MAX_EXACT_ASPECT * min(width, height))
    geometry = Geometry(resize_size=sides[0], crop_size=sides[1], interpolation=interpolation)
    (crop,) = resized(kernel, [noise(width, height)], geometry, [orientation])
    assert np.array_equal(crop, pillow_crop(noise(width, height), geometry, orientation))


@pytest.mark.parametrize("size", [(61, 40), (40, 61)])
def test_every_orientation_is_turned_upright(kernel: ModuleType, size: tuple[int, int]) -> None:
    orientations = range(1, 9)
    crops = resized(kernel, [noise(*size)] * 8, SMALL, orientations)
    for orientation, crop in zip(orientations, crops, strict=True):
        assert np.array_equal(crop, pillow_crop(noise(*size), SMALL, orientation)), orientation


def test_images_of_any_sizes_share_a_batch_and_keep_to_their_rows(kernel: ModuleType) -> None:
    images = [noise(90, 60), noise(20, 30), noise(64, 64), noise(33, 200)]
    orientations, rows = [1, 6, 3, 8], [5, 0, 2, 3]
    out = torch.full((7, 28, 28, 3), UNTOUCHED, dtype=torch.uint8)
    kernel.resize_into([planar(image) for image in images], orientations, rows, out, SMALL)
    for image, orientation, row in zip(images, orientations, rows, strict=True):
        assert np.array_equal(out[row], pillow_crop(image, SMALL, orientation))
    assert (out[[1, 4, 6]] == UNTOUCHED).all()


@pytest.mark.parametrize("tile", [4, 16])
def test_tiles_that_overhang_the_crop_change_nothing(tile: int) -> None:
    geometry = Geometry(resize_size=20, crop_size=18)
    with interpreted.resize_kernel(tile) as kernel:
        guarded = torch.full((3, 18, 18, 3), UNTOUCHED, dtype=torch.uint8)
        kernel.resize_into([planar(noise(50, 30))], [5], [1], guarded, geometry)
    assert np.array_equal(guarded[1], pillow_crop(noise(50, 30), geometry, 5))
    assert (guarded[[0, 2]] == UNTOUCHED).all()


def test_photos_equal_pillows_bit_for_bit(shared_data: Path) -> None:
    names = ["serve_Cat.jpg", "serve_croco.jpg", "ort_goldfish.jpg", "jetson_airplane_0.jpg", "serve_Dog2.jpg"]
    with interpreted.resize_kernel(tile=256) as kernel:
        photos = [np.array(Image.open(shared_data / "images" / "labelled" / name)) for name in names]
        crops = resized(kernel, photos, Geometry())
    for photo, crop, name in zip(photos, crops, names, strict=True):
        assert np.array_equal(crop, pillow_crop(photo, Geometry())), name


def test_the_interpreter_is_not_what_others_import(kernel: ModuleType) -> None:
    with interpreted.resize_kernel() as second:
        assert second is not kernel
    from serve_app.engine import resize_kernel

    assert isinstance(resize_kernel.TILE_ROWS, int)
