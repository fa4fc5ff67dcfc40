import pytest

from serve_app import architectures
from serve_app.bench import images, pipeline
from serve_app.bench.forward import Setup
from serve_app.config import ConfigError

BUNDLED = Setup(architectures.NARROW, "cpu", "fp32", num_threads=1, weights="bundled")


def test_batches_are_decoded_and_run_and_what_is_no_image_is_left_out() -> None:
    files = [b"no image", *images.generated(64, 64).files]
    assert pipeline.images_per_s(BUNDLED, files, batch_size=4, seconds=0.2) > 0


def test_images_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ConfigError, match="none of the images"):
        pipeline.images_per_s(BUNDLED, [b"no image"], batch_size=1, seconds=0.1)
