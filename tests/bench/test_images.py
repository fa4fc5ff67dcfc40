from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.bench import images
from serve_app.bench.images import GENERATED, from_folder, generated, readable
from serve_app.config import ConfigError
from serve_app.decode import Decoder
from serve_app.model_spec import Geometry

SIDES = st.integers(1, 40)


def opened(file: bytes) -> Image.Image:
    return Image.open(BytesIO(file))


# --- generated -----------------------------------------------------------------------------------


@given(width=SIDES, height=SIDES)
@settings(deadline=None, max_examples=30)
def test_generated_images_are_jpegs_of_the_size_asked_for(width: int, height: int) -> None:
    files = generated(width, height).files
    assert len(files) == GENERATED
    assert {(opened(file).format, opened(file).size) for file in files} == {("JPEG", (width, height))}
    assert {Decoder(Geometry(), 10**6).read(file).size for file in files} == {(width, height)}


def test_generated_images_differ_from_each_other_and_are_the_same_next_time() -> None:
    files = generated(64, 48, seed=1).files
    assert len(set(files)) == GENERATED
    assert generated(64, 48, seed=1).files == files
    assert not set(generated(64, 48, seed=2).files) & set(files)


def test_a_generated_image_costs_about_what_a_photo_does() -> None:
    pictures = generated(500, 375)
    assert 80_000 < pictures.mean_bytes < 120_000
    assert pictures.description == f"16 generated JPEGs 500 x 375, {pictures.mean_bytes / 1e3:.0f} kB on average"
    pixels = np.asarray(opened(pictures.files[0])).astype(float)
    # As in a photo, and unlike noise, neighbours are alike.
    assert np.abs(np.diff(pixels, axis=1)).mean() < pixels.std() / 2


# --- from a folder -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images of 1, 2, 3 and 4 bytes, and what is none."""
    for number, name in enumerate(["a.jpg", "b.PNG", "sub/c.webp", "z.tiff"], start=1):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]) * number)
    for name in ("notes.txt", "jpg", ".jpg"):
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    return tmp_path


def test_a_folder_gives_the_image_files_below_it_as_they_are_in_order(folder: Path) -> None:
    pictures = from_folder(folder)
    assert pictures.files == (b"\1", b"\2\2", b"\3\3\3", b"\4\4\4\4")
    assert pictures.mean_bytes == 2.5
    assert pictures.description == f"4 files from {folder.name}, 0 kB on average"


def test_a_large_folder_gives_its_first_files_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_TOTAL_BYTES", 6)
    pictures = from_folder(folder)
    assert pictures.files == (b"\1", b"\2\2", b"\3\3\3")
    assert "3 files" in pictures.description
    assert "the first of 4" in pictures.description


def test_a_single_file_may_be_larger_than_all_that_are_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_TOTAL_BYTES", 0)
    assert from_folder(folder).files == (b"\1",)


def test_a_folder_without_images_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ConfigError, match=r"there is no image in it \(\.bmp, .*\.webp\)") as refused:
        from_folder(tmp_path)
    assert str(tmp_path) in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match=r"a\.jpg: Permission denied"):
        from_folder(folder)


# --- what can be read ----------------------------------------------------------------------------


def test_of_files_those_that_the_service_reads_are_measured(samples: dict[int, bytes]) -> None:
    decoder = Decoder(Geometry(), max_image_pixels=20_000)
    too_large = generated(200, 200).files[0]
    files = [b"no image", samples[3], too_large, samples[3][: len(samples[3]) // 2], samples[4]]
    assert readable(files, decoder) == [samples[3], samples[4]]
    with pytest.raises(ConfigError, match="none of the images can be read"):
        readable(files[:1], decoder)
