"""Image -> hostile image: bit flips, cuts, lies in headers, glued and doubled files, bombs."""

import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]

PNG, JPEG, GIF, BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"GIF8", b"BM"
# Values at which sizes, counts and offsets go wrong: nothing, one, signs, the limits of 8, 16, 24 and 32 bits.
EDGES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0xFFFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
MAX_FLIPS = 64
MAX_BYTES = 4 << 20
"""Of an image: frames that are doubled twice would be of 80 MB."""
POLYGLOTS = (
    b"PK\x03\x04" + bytes(26),
    b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n",
    b"<html><script>alert(1)</script></html>",
    b"#!/bin/sh\nexit 1\n",
    b"\x7fELF\x02\x01\x01" + bytes(9),
    b"RIFF\xff\xff\xff\xffWEBPVP8X",
)


def mutated(image: bytes, others: Sequence[bytes], generator: np.random.Generator) -> bytes:
    """Of one to three mutations, the same for a generator in the same state."""

    def glued(data: bytes, generator: np.random.Generator) -> bytes:
        return _glued(data, others[int(generator.integers(len(others)))], generator)

    choices: Sequence[Mutation] = (*EVERYWHERE, glued, *_of_its_kind(image))
    for _ in range(generator.integers(1, 4)):
        image = choices[int(generator.integers(len(choices)))](image, generator)[:MAX_BYTES]
    return image


def _of_its_kind(image: bytes) -> Sequence[Mutation]:
    """Twice as likely as any other: what gets past the first check of a decoder is worth more."""
    kinds: tuple[tuple[bytes, Mutation], ...] = (
        *((PNG, png_header), (JPEG, jpeg_header), (GIF, gif_header), (BMP, bmp_header)),
        *((b"II", tiff_entry), (b"MM", tiff_entry), (b"RIFF", riff_chunk)),
    )
    return [mutation for signature, mutation in kinds if image.startswith(signature)] * 2


# --- of any bytes ------------------------------------------------------------------------------------


def flipped(data: bytes, generator: np.random.Generator) -> bytes:
    found = bytearray(data)
    for _ in range(generator.integers(1, MAX_FLIPS + 1) if found else 0):
        found[generator.integers(len(found))] ^= 1 << generator.integers(8)
    return bytes(found)


def cut(data: bytes, generator: np.random.Generator) -> bytes:
    return data[: generator.integers(len(data) + 1)]


def without_a_part(data: bytes, generator: np.random.Generator) -> bytes:
    begin, end = _range(data, generator)
    return data[:begin] + data[end:]


def with_a_part_twice(data: bytes, generator: np.random.Generator) -> bytes:
    begin, end = _range(data, generator)
    return data[:end] + data[begin:end] * int(generator.integers(1, 5)) + data[end:]


def overwritten(data: bytes, generator: np.random.Generator) -> bytes:
    """A part by noise, zeros or ones."""
    begin, end = _range(data, generator)
    filling = (generator.bytes(end - begin), bytes(end - begin), b"\xff" * (end - begin))
    return data[:begin] + filling[generator.integers(3)] + data[end:]


def edged(data: bytes, generator: np.random.Generator) -> bytes:
    """A field of one, two or four bytes, of either order, at an edge: most of them in the first hundred bytes."""
    size = (1, 2, 4)[generator.integers(3)]
    if len(data) < size:
        return data
    last = len(data) - size
    at = int(generator.integers(min(last, 100) + 1) if generator.random() < 0.7 else generator.integers(last + 1))
    return data[:at] + _field(size, generator, "big" if generator.random() < 0.5 else "little") + data[at + size :]


def polyglot(data: bytes, generator: np.random.Generator) -> bytes:
    other = POLYGLOTS[generator.integers(len(POLYGLOTS))]
    return other + data if generator.random() < 0.3 else data + other


EVERYWHERE: tuple[Mutation, ...] = (flipped, cut, without_a_part, with_a_part_twice, overwritten, edged, polyglot)


def _glued(data: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    """Whole behind whole, or the head of one and the tail of the other."""
    if generator.random() < 0.5:
        return data + other
    return cut(data, generator) + other[generator.integers(len(other) + 1) :]


def _range(data: bytes, generator: np.random.Generator) -> tuple[int, int]:
    begin = int(generator.integers(len(data) + 1))
    return begin, min(len(data), begin + int(generator.geometric(1 / 64)))


def _field(size: int, generator: np.random.Generator, order: str) -> bytes:
    value = EDGES[generator.integers(len(EDGES))] & ((1 << 8 * size) - 1)
    return value.to_bytes(size, "big" if order == "big" else "little")


# --- lies in the headers of one kind, with whatever checks a decoder makes before it believes them -----


def png_header(data: bytes, generator: np.random.Generator) -> bytes:
    """A field of IHDR, with a CRC that is right; or a chunk that unpacks to far more than it is."""
    if len(data) < 33:
        return data
    if generator.random() < 0.2:
        return data[:33] + _png_chunk(*_png_bomb(generator)) + data[33:]
    header = bytearray(data[16:29])
    at, size = ((0, 4), (4, 4), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1))[generator.integers(7)]
    header[at : at + size] = _field(size, generator, "big")
    return data[:8] + _png_chunk(b"IHDR", bytes(header)) + data[33:]


def _png_bomb(generator: np.random.Generator) -> tuple[bytes, bytes]:
    packed = zlib.compress(bytes(1 << int(generator.integers(16, 27))))
    return ((b"iCCP", b"p\0\0" + packed), (b"zTXt", b"k\0\0" + packed), (b"IDAT", packed))[generator.integers(3)]


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def jpeg_header(data: bytes, generator: np.random.Generator) -> bytes:
    """A byte of a segment, its length too, or a marker for another."""
    at = _jpeg_segments(data)
    if not at:
        return data
    begin = at[generator.integers(len(at))]
    place = begin + int(generator.integers(1, 20))
    if place >= len(data):
        return data
    return data[:place] + _field(1, generator, "big") + data[place + 1 :]


def _jpeg_segments(data: bytes) -> list[int]:
    """Where they begin, up to the coded data."""
    found, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        found.append(at)
        if data[at + 1] == 0xDA:
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return found


def gif_header(data: bytes, generator: np.random.Generator) -> bytes:
    """Width or height of the screen or, behind a descriptor, of the frame; or the frame many times."""
    descriptor = data.find(b",", 13)
    if descriptor < 0 or len(data) < descriptor + 10:
        return data
    if generator.random() < 0.2:
        return data[:descriptor] + data[descriptor:-1] * int(generator.integers(2, 200)) + data[-1:]
    at = (6, 8, *(descriptor + offset for offset in (1, 3, 5, 7)))[generator.integers(6)]
    return data[:at] + _field(2, generator, "little") + data[at + 2 :]


def bmp_header(data: bytes, generator: np.random.Generator) -> bytes:
    """Offset, header size, width, height, planes, bits, compression, size, colours."""
    at, size = ((10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (34, 4), (46, 4))[generator.integers(9)]
    return data[:at] + _field(size, generator, "little") + data[at + size :]


def tiff_entry(data: bytes, generator: np.random.Generator) -> bytes:
    """A field of an entry of the first directory, or where the directory is: at itself, say."""
    order = "little" if data.startswith(b"II") else "big"
    directory = int.from_bytes(data[4:8], "little" if order == "little" else "big")
    count = int.from_bytes(data[directory : directory + 2], "little" if order == "little" else "big")
    if not 0 < count < 1000 or directory + 6 + 12 * count > len(data):
        return data
    if generator.random() < 0.1:  # the next directory is this one
        at = directory + 2 + 12 * count
        return data[:at] + data[4:8] + data[at + 4 :]
    entry = directory + 2 + 12 * int(generator.integers(count))
    offset, size = ((0, 2), (2, 2), (4, 4), (8, 4))[generator.integers(4)]
    at = entry + offset
    return data[:at] + _field(size, generator, order) + data[at + size :]


def riff_chunk(data: bytes, generator: np.random.Generator) -> bytes:
    """A length of WebP's container, or what the first chunk says of width, height and alpha."""
    at, size = ((4, 4), (16, 4), (20, 1), (24, 2), (26, 2), (27, 1))[generator.integers(6)]
    return data[:at] + _field(size, generator, "little") + data[at + size :]
