"""Small files that would take minutes or gigabytes: each ends, in a crop or a refusal, in bounded memory."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from serve_app import structure
from serve_app.bench.torture.bombs import BORNE, TOO_MANY_PARTS
from serve_app.bench.torture.mutations import mutated
from serve_app.bench.torture.seeds import seeds
from serve_app.errors import UnreadableImage, UnsupportedImage
from serve_app.reader import sniff


@pytest.mark.parametrize("name", TOO_MANY_PARTS)
def test_what_is_made_of_too_many_parts_is_refused_by_its_heads(name: str) -> None:
    data = TOO_MANY_PARTS[name]()
    with pytest.raises(UnreadableImage, match="too many parts"):
        structure.check(data, sniff(data))


@pytest.mark.parametrize("name", [*seeds(), *BORNE])
def test_what_is_meant_to_be_seen_is_not(name: str) -> None:
    data = seeds()[name] if name in seeds() else BORNE[name]()
    structure.check(data, sniff(data))


@pytest.mark.parametrize("name", seeds())
def test_whatever_is_cut_short_is_left_to_the_decoder(name: str) -> None:
    data = seeds()[name]
    for length in range(12, min(len(data), 200)):
        structure.check(data[:length], sniff(data))


def test_a_directory_beyond_any_file_is_left_to_the_decoder() -> None:
    structure.check(b"II+\0\x08\0\0\0" + b"\xff" * 8, "TIFF")


def test_whatever_is_damaged_is_refused_or_left_to_the_decoder() -> None:
    generator, images = np.random.default_rng(1), list(seeds().values())
    refused = 0
    for _ in range(200):
        for image in images:
            damaged = mutated(image, images, generator)
            with suppress(UnsupportedImage):
                image_format = sniff(damaged)
                try:
                    structure.check(damaged, image_format)
                except UnreadableImage:
                    refused += 1
    assert refused < len(images)  # to decode is not to be left out


def test_every_file_of_the_shared_data_is_of_few_parts(shared_data: Path) -> None:
    for file in sorted((shared_data / "images" / "labelled").iterdir()):
        data = file.read_bytes()
        structure.check(data, sniff(data))


# --- in a process of its own, whose memory can be told -----------------------------------------------

DECODE = """
import resource, sys
from serve_app.errors import RequestError
from serve_app.reader import Reader
from tests.memory import peak_mib

def decode():
    try:
        print(read(data).mode)
    except RequestError as error:
        print(error.code)

read, data = Reader(50_000_000), sys.stdin.buffer.read()
limit_s = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
print(peak_mib(decode))
"""
MOST_MIB = 500
LARGE_MIB = {"WebP of 49 MP": 1_100}
"""More than MOST_MIB: so that is seen to be measured."""
HANGS_AFTER_S = 60
"""Of CPU; the wall's is what a machine beside other work may take for it."""


@pytest.mark.parametrize("name", BORNE)
def test_a_bomb_ends_in_bounded_memory(name: str) -> None:
    command = [sys.executable, "-c", DECODE, str(HANGS_AFTER_S)]
    ran = subprocess.run(command, input=BORNE[name](), capture_output=True, check=True, timeout=10 * HANGS_AFTER_S)
    outcome, grown_mib = ran.stdout.decode().split()
    assert outcome in ("RGB", "unreadable_image", "unsupported_image", "too_many_pixels")
    assert float(grown_mib) <= LARGE_MIB.get(name, MOST_MIB)
    assert name not in LARGE_MIB or float(grown_mib) > MOST_MIB
