"""Decoded images of any sizes -> crops in the network's input, a whole batch in one launch of one Triton kernel.

The arithmetic is Pillow's, down to its fixed point: bilinear or bicubic, antialiased, columns first, 8 bits between
the passes. Largest difference from Pillow found: none (Pillow 13 takes rows first where a tall image loses many: up
to 25 levels, bicubic on noise); from torchvision's resize of tensors, whose weights are coarser: 1 level, in 11 of
1,000 values of test patterns.

Both passes are fused: a pixel of the crop sums its own window of the source, so nothing is written in between and
only what the crop shows is computed. The sums along a row are done again for the next rows of the crop, twice in
all where the image shrinks; for a photo of 12 MP that is 87 million loads, most of them from the first cache.

Pixels stay uint8: the network's CUDA graph normalises them, those decoded on the CPU too, and a quarter of the
bytes is written. Import this only where Triton is.
"""

# mypy: disallow-untyped-decorators=False, disallow-untyped-defs=False, disallow-incomplete-defs=False
from collections.abc import Sequence

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

from serve_app.model_spec import Geometry

# A warp has a row of the tile: neighbouring lanes read neighbouring windows. A crop of 224 x 224 is 392 tiles,
# so that even a lone image has work for every multiprocessor of an H200 (132).
TILE_ROWS, TILE_COLUMNS = 4, 32
NUM_WARPS = 4

NUM_FIELDS = 11
"""int64, of an image in the table that the kernel reads."""


def resize_into(
    images: Sequence[torch.Tensor],
    orientations: Sequence[int],
    rows: Sequence[int],
    out: torch.Tensor,
    geometry: Geometry,
) -> None:
    """Resize, turn upright and crop each image into its row of `out`; other rows stay as they are.

    `images`: uint8 (3, H, W) each, contiguous, at most 2**31 pixels, on the device of `out`. The kernel reads
    them by address: keep them alive until the current stream is past it.
    `orientations`: EXIF's, 1 to 8. `rows`: which row of `out` an image becomes.
    `out`: uint8 (n, crop_size, crop_size, 3), contiguous.

    Returns when the launch is queued on the current stream. Raises nothing of its own.
    """
    side = geometry.crop_size
    fields = [_fields(*image, geometry) for image in zip(images, orientations, rows, strict=True)]
    # Pinned, the copy needs no wait; the allocator keeps the memory until the stream is past it.
    table = torch.tensor(fields, dtype=torch.int64, pin_memory=out.is_cuda).to(out.device, non_blocking=True)
    grid = (triton.cdiv(side, TILE_COLUMNS), triton.cdiv(side, TILE_ROWS), len(images))
    with torch.cuda.device_of(out):
        _resize[grid](
            table,
            out,
            SIDE=side,
            IS_BICUBIC=geometry.interpolation == "bicubic",
            FIELDS=NUM_FIELDS,
            TILE_ROWS=TILE_ROWS,
            TILE_COLUMNS=TILE_COLUMNS,
            num_warps=NUM_WARPS,
            enable_fp_fusion=False,  # as Pillow rounds, after each operation
        )


def _fields(image: torch.Tensor, orientation: int, row: int, geometry: Geometry) -> list[int]:
    """The image's NUM_FIELDS numbers, in the order in which the kernel reads them."""
    height, width = image.shape[-2:]
    plane = height * width
    offset, row_stride, column_stride = _upright(height, width, orientation)
    if orientation >= 5:
        height, width = width, height
    resized_height, resized_width = _resized(height, width, geometry.resize_size)
    side = geometry.crop_size
    # Of each axis: source stride, size, resized size, start of the crop.
    rows = (row_stride, height, resized_height, round((resized_height - side) / 2))
    columns = (column_stride, width, resized_width, round((resized_width - side) / 2))
    return [image.data_ptr() + offset, plane, row, *rows, *columns]


def _upright(height: int, width: int, orientation: int) -> tuple[int, int, int]:
    """Of a stored plane of that size: where the upright image begins, its row stride, its column stride."""
    right, bottom = width - 1, (height - 1) * width
    return {
        1: (0, width, 1),
        2: (right, width, -1),
        3: (bottom + right, -width, -1),
        4: (bottom, -width, 1),
        5: (0, 1, width),
        6: (bottom, 1, -width),
        7: (bottom + right, -1, -width),
        8: (right, -1, width),
    }[orientation]


def _resized(height: int, width: int, resize_size: int) -> tuple[int, int]:
    """As `decode.resize_and_crop` has it, down to the order of its arithmetic."""
    if width <= height:
        return int(resize_size * height / width), resize_size
    return resize_size, int(resize_size * width / height)


# What follows is compiled: the module's constants are out of reach there. Of Triton's functions only those of its
# core are called, for the interpreter of the tests cannot run the others (zeros, cdiv) where Triton was imported for
# compiling.


@triton.jit
def _weight(distance, IS_BICUBIC: tl.constexpr):
    """Of a source pixel, by its distance from the window's centre in pixels of the coarser grid; fp64, unnormalised."""
    x = tl.abs(distance)
    if IS_BICUBIC:
        near = (1.5 * x - 2.5) * x * x + 1.0
        far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
        weight = tl.where(x < 1.0, near, tl.where(x < 2.0, far, 0.0))
    else:
        weight = tl.maximum(1.0 - x, 0.0)
    return weight


@triton.jit
def _fixed_point(weight):
    """int32, of 22 bits after the point. Pillow has it so: where a sum lies halfway, these last bits decide."""
    scaled = weight * 4194304.0
    return (scaled + tl.where(scaled < 0.0, -0.5, 0.5)).to(tl.int32)


@triton.jit
def _to_8_bits(total):
    """int32 in 0 to 255, of a sum of pixels times weights in fixed point."""
    return tl.minimum(tl.maximum((total + 2097152) >> 22, 0), 255)


@triton.jit
def _window(position, size, resized, IS_BICUBIC: tl.constexpr):
    """The source pixels that make up each resized one, along one axis.

    Of each position: the first pixel, its distance from the centre, one by the sum of weights. Of all: the step of
    the distance from pixel to pixel, and how many pixels there are at most.
    """
    # fp64, as in Pillow: fp32 turns sums that lie halfway the other way, 1 of 40 where 30 pixels become 32.
    scale = size.to(tl.float64) / resized.to(tl.float64)
    coarse = tl.maximum(scale, 1.0)
    support = coarse * (2.0 if IS_BICUBIC else 1.0)
    centre = (position.to(tl.float64) + 0.5) * scale
    first = tl.maximum((centre - support + 0.5).to(tl.int32), 0)
    step = 1.0 / coarse
    distance = (first.to(tl.float64) - centre + 0.5) * step
    whole = (2.0 * support).to(tl.int32)
    length = whole + (whole < 2.0 * support).to(tl.int32)
    total = distance * 0.0
    for i in range(length):
        total += tl.where(first + i < size, _weight(distance + i * step, IS_BICUBIC), 0.0)
    return first, distance, 1.0 / total, step, length


@triton.jit
def _resize(
    table,
    out,
    SIDE: tl.constexpr,
    IS_BICUBIC: tl.constexpr,
    FIELDS: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_COLUMNS: tl.constexpr,
):
    """One tile of one image's crop, all three channels."""
    fields = table + tl.program_id(2) * FIELDS  # as `_fields` writes them
    red_plane = tl.load(fields).to(tl.pointer_type(tl.uint8))
    green_plane = red_plane + tl.load(fields + 1)
    blue_plane = green_plane + tl.load(fields + 1)
    target = out + tl.load(fields + 2) * (SIDE * SIDE * 3)
    row_stride = tl.load(fields + 3).to(tl.int32)
    height = tl.load(fields + 4).to(tl.int32)
    resized_height = tl.load(fields + 5).to(tl.int32)
    top = tl.load(fields + 6).to(tl.int32)
    column_stride = tl.load(fields + 7).to(tl.int32)
    width = tl.load(fields + 8).to(tl.int32)
    resized_width = tl.load(fields + 9).to(tl.int32)
    left = tl.load(fields + 10).to(tl.int32)

    # A tile that overhangs the crop computes its last row and column again.
    y = tl.minimum(tl.program_id(1) * TILE_ROWS + tl.arange(0, TILE_ROWS), SIDE - 1)
    x = tl.minimum(tl.program_id(0) * TILE_COLUMNS + tl.arange(0, TILE_COLUMNS), SIDE - 1)
    first_row, row_distance, row_scale, row_step, num_rows = _window(y + top, height, resized_height, IS_BICUBIC)
    first_column, column_distance, column_scale, column_step, num_columns = _window(
        x + left, width, resized_width, IS_BICUBIC
    )

    red = tl.full((TILE_ROWS, TILE_COLUMNS), 0, tl.int32)
    green = tl.full((TILE_ROWS, TILE_COLUMNS), 0, tl.int32)
    blue = tl.full((TILE_ROWS, TILE_COLUMNS), 0, tl.int32)
    for j in range(num_rows):
        row = first_row + j
        row_red = tl.full((TILE_ROWS, TILE_COLUMNS), 0, tl.int32)
        row_green = tl.full((TILE_ROWS, TILE_COLUMNS), 0, tl.int32)
        row_blue = tl.full((TILE_ROWS, TILE_COLUMNS), 0, tl.int32)
        for i in range(num_columns):
            column = first_column + i
            column_weight = _fixed_point(_weight(column_distance + i * column_step, IS_BICUBIC) * column_scale)[None, :]
            place = (row * row_stride)[:, None] + (column * column_stride)[None, :]
            # Past the image there are zeros, which add nothing whatever their weight.
            inside = (row < height)[:, None] & (column < width)[None, :]
            row_red += column_weight * tl.load(red_plane + place, mask=inside, other=0).to(tl.int32)
            row_green += column_weight * tl.load(green_plane + place, mask=inside, other=0).to(tl.int32)
            row_blue += column_weight * tl.load(blue_plane + place, mask=inside, other=0).to(tl.int32)
        row_weight = _fixed_point(_weight(row_distance + j * row_step, IS_BICUBIC) * row_scale)[:, None]
        red += row_weight * _to_8_bits(row_red)
        green += row_weight * _to_8_bits(row_green)
        blue += row_weight * _to_8_bits(row_blue)

    pixel = target + (y[:, None] * SIDE + x[None, :]) * 3
    tl.store(pixel, _to_8_bits(red).to(tl.uint8))
    tl.store(pixel + 1, _to_8_bits(green).to(tl.uint8))
    tl.store(pixel + 2, _to_8_bits(blue).to(tl.uint8))
