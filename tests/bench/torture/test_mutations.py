"""Hostile images are hostile, reproducible, and no decoder of ours dies of them."""

import numpy as np
import pytest

from serve_app.bench.torture import mutations
from serve_app.bench.torture.mutations import mutated
from serve_app.bench.torture.seeds import seeds
from serve_app.decode import Decoder
from serve_app.errors import RequestError
from serve_app.model_spec import Geometry

GEOMETRY = Geometry(resize_size=32, crop_size=28)
LIMIT = 1_000_000


@pytest.fixture(scope="module")
def decode() -> Decoder:
    return Decoder(GEOMETRY, LIMIT)


def hostile(seed: int, number: int) -> bytes:
    files = list(seeds().values())
    generator = np.random.default_rng([seed, number])
    return mutated(files[generator.integers(len(files))], files, generator)


@pytest.mark.parametrize("name", seeds())
def test_the_seeds_are_good(decode: Decoder, name: str) -> None:
    assert decode(seeds()[name]).shape == (28, 28, 3)


def test_they_are_of_every_kind_and_small() -> None:
    assert {name.split()[0] for name in seeds()} == {"JPEG", "PNG", "WEBP", "WebP", "GIF", "BMP", "TIFF"}
    assert max(map(len, seeds().values())) < 30_000


def test_the_same_seed_makes_the_same_images_and_another_others() -> None:
    first, again, other = ([hostile(seed, number) for number in range(50)] for seed in (1, 1, 2))
    assert first == again
    assert len({*first, *other}) > 90


@pytest.mark.parametrize(
    "mutation",
    [
        *mutations.EVERYWHERE,
        *(mutations.png_header, mutations.jpeg_header, mutations.gif_header, mutations.bmp_header),
        *(mutations.tiff_entry, mutations.riff_chunk),
    ],
    ids=lambda mutation: mutation.__name__,
)
def test_each_mutation_bears_whatever_it_is_given(mutation: mutations.Mutation) -> None:
    generator = np.random.default_rng(0)
    for data in (*seeds().values(), b"", b"\0", b"II*\0", b"\xff\xd8", mutations.PNG, b"GIF89a", bytes(40)):
        assert isinstance(mutation(data, generator), bytes)


def test_a_lie_in_a_header_gets_past_the_checksum(decode: Decoder) -> None:
    """Of the images whose header lies, some are refused for what it says and not for how."""
    generator = np.random.default_rng(3)
    codes = set()
    for _ in range(100):
        try:
            decode(mutations.png_header(seeds()["PNG RGB"], generator))
        except RequestError as error:
            codes.add(error.code)
    assert {"too_many_pixels", "unreadable_image"} <= codes


def test_every_hostile_image_is_decoded_or_refused_in_words(decode: Decoder) -> None:
    outcomes = dict.fromkeys(("decoded", "too_many_pixels", "unsupported_image", "unreadable_image"), 0)
    for number in range(3000):
        try:
            assert decode(hostile(0, number)).shape == (28, 28, 3)
            outcomes["decoded"] += 1
        except RequestError as error:
            outcomes[error.code] += 1
    assert min(outcomes.values()) > 30
