"""Fixtures that more than one test file needs."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from serve_app.config import Args

if TYPE_CHECKING:
    from serve_app.decode import Pixels
    from serve_app.weights import Checkpoint

REPOSITORY = Path(__file__).parents[1]
PILLOWS_LIMIT = Image.MAX_IMAGE_PIXELS


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_reaches_what_tests_start() -> Iterator[None]:
    """A shell without job control starts `pytest &` with SIGINT ignored; children inherit that, and never stop."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _pillow_has_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Decoder sets it, for its whole process, those of fixtures too: it must not outlive its test."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PILLOWS_LIMIT)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real weights and photos, which are not part of the repository."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real weights and photos in {folder}")
    return folder


@pytest.fixture(scope="session")
def samples() -> dict[int, bytes]:
    """One PNG for each digit that the bundled checkpoint reads."""
    folder = REPOSITORY / "serve_app" / "bundled" / "samples"
    return {int(path.stem): path.read_bytes() for path in sorted(folder.glob("*.png"))}


@pytest.fixture(scope="module")
def checkpoint() -> "Checkpoint":
    """The bundled one, of ten digits."""
    from serve_app.weights import load  # torch, which many a test does without

    return load(Args(weights="bundled"))


@pytest.fixture(scope="module")
def digits(checkpoint: "Checkpoint", samples: dict[int, bytes]) -> "list[Pixels]":
    """The samples 0 to 9, decoded."""
    from tests.engine.answers import decoded

    return decoded(checkpoint, samples)
