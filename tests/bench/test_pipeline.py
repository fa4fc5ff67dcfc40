import pytest

from serve_app import architectures
from serve_app.bench import images, pipeline
from serve_app.bench.forward import Setup
from serve_app.config import ConfigError

BUNDLED = Setup(architectures.NARROW, "cpu", "fp32", num_threads=1, weights="bundled")


def test_every_size_is_measured_with_decode_beside_it() -> None:
    files = [b"no image", *images.generated(64, 64).files]
    steps: list[int] = []
    found = pipeline.measure(BUNDLED, files, [1, 4], seconds=0.2, on_step=steps.append)
    assert steps == [1, 4]
    assert found.decode_alone_ms > 0
    assert found.device_alone_ms > 0
    for size, stretch in found.stretches.items():
        assert stretch.batch_size == size
        assert len(stretch.decode_ms) == size * len(stretch.device_ms)
        # The device works on one batch at a time: it cannot have done more than its own times allow.
        assert stretch.images_per_s * sum(stretch.device_ms) / len(stretch.device_ms) / 1e3 <= size


def test_images_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ConfigError, match="none of the images"):
        pipeline.measure(BUNDLED, [b"no image"], [1], seconds=0.1)
