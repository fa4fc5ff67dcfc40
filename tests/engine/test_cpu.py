import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.models import ResNet18_Weights

from serve_app.bundled.train import split
from serve_app.config import Args, default_buckets
from serve_app.decode import Decoder, Pixels
from serve_app.engine.base import STAGES, Normalised, Prediction
from serve_app.engine.cpu import CpuEngine, has_fast_bf16
from serve_app.weights import Checkpoint, load
from tests.engine.answers import assert_logits_are_those_of_the_scores, logits, normalised

NUM_CLASSES = 10
MAX_BATCH_SIZE = 20
# bf16 has 8 bits: between classes closer than this, the better one may change.
MARGIN = 0.05
# The same arithmetic, but for the last bit of the inputs, which bf16 may round the other way.
LOGITS_ATOL = {"fp32": 1e-3, "bf16": 0.25}


@pytest.fixture(scope="module", autouse=True)
def _threads_are_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def started(checkpoint: Checkpoint, precision: str, sizes: Sequence[int], top_k: int = NUM_CLASSES) -> CpuEngine:
    engine = CpuEngine(checkpoint, precision, top_k, num_threads=2)
    engine.start()
    for size in sizes:
        engine.warm_up(size)
    return engine


@pytest.fixture(scope="module")
def fp32(checkpoint: Checkpoint) -> CpuEngine:
    return started(checkpoint, "fp32", default_buckets(MAX_BATCH_SIZE))


@pytest.fixture(scope="module")
def bf16(checkpoint: Checkpoint) -> CpuEngine:
    return started(checkpoint, "bf16", default_buckets(MAX_BATCH_SIZE))


def by_class(predictions: list[Prediction]) -> npt.NDArray[np.float32]:
    """float32 (N, num_classes): the scores in the order of the class ids."""
    scores = np.full((len(predictions), NUM_CLASSES), np.nan, np.float32)
    for row, prediction in zip(scores, predictions, strict=True):
        row[prediction.class_ids] = prediction.scores
    return scores


def best(predictions: list[Prediction]) -> list[int]:
    return [int(prediction.class_ids[0]) for prediction in predictions]


def plain_torch(checkpoint: Checkpoint, images: list[Pixels]) -> npt.NDArray[np.float32]:
    """The formula of the README, without any of the engine: float32 (N, num_classes)."""
    geometry = checkpoint.spec.geometry
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (geometry.mean, geometry.std))
    with torch.inference_mode():
        scores: npt.NDArray[np.float32] = checkpoint.build_model()((pixels / 255 - mean) / std).softmax(dim=1).numpy()
    return scores


BATCHES = st.lists(st.integers(0, NUM_CLASSES - 1), min_size=1, max_size=MAX_BATCH_SIZE)


# --- the same answer in any company --------------------------------------------------------------


@given(batch=BATCHES)
@settings(deadline=None, max_examples=50)
def test_a_batch_in_fp32_gives_what_each_image_alone_gives(
    fp32: CpuEngine, digits: list[Pixels], batch: list[int]
) -> None:
    together = fp32.infer([digits[digit] for digit in batch])
    alone = [fp32.infer([digits[digit]])[0] for digit in batch]
    assert best(together) == best(alone)
    np.testing.assert_allclose(by_class(together), by_class(alone), atol=1e-4)


@given(batch=BATCHES)
@settings(deadline=None, max_examples=50)
def test_a_batch_in_bf16_gives_the_same_top_class_as_each_image_alone(
    bf16: CpuEngine, digits: list[Pixels], batch: list[int]
) -> None:
    together = bf16.infer([digits[digit] for digit in batch])
    alone = [bf16.infer([digits[digit]])[0] for digit in batch]
    clear = [bool(prediction.scores[0] - prediction.scores[1] > MARGIN) for prediction in alone]
    assert any(clear)
    assert np.array_equal(np.array(best(together))[clear], np.array(best(alone))[clear])


def test_padding_does_not_leak_into_results(checkpoint: Checkpoint, digits: list[Pixels]) -> None:
    padded = started(checkpoint, "fp32", sizes=[16])
    padded.infer(digits + digits[:6])  # whatever a buffer might keep
    few = padded.infer(digits[:3])
    assert [prediction.batch_size for prediction in few] == [3, 3, 3]
    np.testing.assert_allclose(by_class(few), plain_torch(checkpoint, digits[:3]), atol=1e-4)


def test_results_of_one_batch_survive_the_next(fp32: CpuEngine, digits: list[Pixels]) -> None:
    first = fp32.infer(digits[:2])
    before = by_class(first)
    fp32.infer(digits[5:7])
    assert np.array_equal(by_class(first), before)


# --- the right answer ----------------------------------------------------------------------------


def test_fp32_equals_plain_torch(fp32: CpuEngine, checkpoint: Checkpoint, digits: list[Pixels]) -> None:
    np.testing.assert_allclose(by_class(fp32.infer(digits)), plain_torch(checkpoint, digits), atol=1e-5)


def test_bf16_gives_the_top_class_of_fp32(fp32: CpuEngine, bf16: CpuEngine, digits: list[Pixels]) -> None:
    exact = fp32.infer(digits)
    assert min(prediction.scores[0] - prediction.scores[1] for prediction in exact) > MARGIN
    assert best(bf16.infer(digits)) == best(exact)
    np.testing.assert_allclose(by_class(bf16.infer(digits)), by_class(exact), atol=MARGIN)


@pytest.mark.parametrize("top_k", [1, 3, NUM_CLASSES])
def test_k_scores_come_best_first(checkpoint: Checkpoint, digits: list[Pixels], top_k: int) -> None:
    for prediction in started(checkpoint, "fp32", [NUM_CLASSES], top_k).infer(digits):
        assert prediction.scores.shape == prediction.class_ids.shape == (top_k,)
        assert prediction.scores.tolist() == sorted(prediction.scores.tolist(), reverse=True)
        assert len(set(prediction.class_ids.tolist())) == top_k


def test_all_scores_sum_up_to_one(fp32: CpuEngine, digits: list[Pixels]) -> None:
    np.testing.assert_allclose(by_class(fp32.infer(digits)).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_samples_are_classified_as_their_names_say(
    checkpoint: Checkpoint, digits: list[Pixels], precision: str
) -> None:
    assert best(started(checkpoint, precision, [NUM_CLASSES]).infer(digits)) == list(range(NUM_CLASSES))


def test_the_card_states_the_accuracy_that_is_measured(fp32: CpuEngine, checkpoint: Checkpoint) -> None:
    _, held_out = split()
    decoder = Decoder(checkpoint.spec.geometry, max_image_pixels=1_000_000)
    images = [decoder(file) for file in held_out.files]
    parts = [images[start : start + MAX_BATCH_SIZE] for start in range(0, len(images), MAX_BATCH_SIZE)]
    predicted = [class_id for part in parts for class_id in best(fp32.infer(part))]
    accuracy = float(np.mean(np.array(predicted) == np.array(held_out.labels)))
    assert checkpoint.spec.accuracy == round(accuracy, 4)
    assert accuracy >= 0.98


# --- logits, and images that are normalised already -----------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("top_k", [3, NUM_CLASSES])
def test_logits_are_those_of_the_scores(
    checkpoint: Checkpoint, digits: list[Pixels], precision: str, top_k: int
) -> None:
    few = started(checkpoint, precision, [16], top_k).infer(digits)
    assert_logits_are_those_of_the_scores(few, NUM_CLASSES)


def test_each_image_of_a_padded_batch_has_its_own_logits(fp32: CpuEngine, digits: list[Pixels]) -> None:
    together = fp32.infer(digits[:7])
    alone = [fp32.infer([digit])[0] for digit in digits[:7]]
    np.testing.assert_allclose(logits(together), logits(alone), atol=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("places", [{0}, {1, 4, 5}, set(range(NUM_CLASSES))])
def test_a_normalised_crop_gets_what_the_crop_gets(
    checkpoint: Checkpoint, digits: list[Pixels], precision: str, places: set[int]
) -> None:
    engine = started(checkpoint, precision, [16])
    geometry = checkpoint.spec.geometry
    expected = engine.infer(digits)
    mixed = engine.infer([normalised(digit, geometry) if i in places else digit for i, digit in enumerate(digits)])
    assert best(mixed) == best(expected) == list(range(NUM_CLASSES))
    assert [prediction.batch_size for prediction in mixed] == [NUM_CLASSES] * NUM_CLASSES
    np.testing.assert_allclose(logits(mixed), logits(expected), atol=LOGITS_ATOL[precision])


def test_what_is_between_two_levels_of_uint8_stays_there(
    fp32: CpuEngine, checkpoint: Checkpoint, digits: list[Pixels]
) -> None:
    """Nothing rounds it: the answer is that of the network."""
    image = normalised(digits[3], checkpoint.spec.geometry).pixels + np.float32(0.001)
    with torch.inference_mode():
        expected = checkpoint.build_model()(torch.from_numpy(image)[None]).numpy()
    np.testing.assert_allclose(logits(fp32.infer([Normalised(image)])), expected, atol=1e-4)


def test_a_normalised_image_of_another_size_is_refused(fp32: CpuEngine, digits: list[Pixels]) -> None:
    for pixels in (np.zeros((3, 1, 1), np.float32), np.zeros((64, 64, 3), np.float32)):
        with pytest.raises(ValueError, match="shape"):
            fp32.infer([digits[0], Normalised(pixels)])


def test_a_profile_of_a_batch_with_normalised_images_has_every_stage(
    fp32: CpuEngine, checkpoint: Checkpoint, digits: list[Pixels]
) -> None:
    profile = fp32.profile([digits[0], normalised(digits[1], checkpoint.spec.geometry)])
    assert tuple(profile) == STAGES


# --- precision and threads -----------------------------------------------------------------------


def test_auto_is_bf16_only_where_it_is_native(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    native = "bf16" if has_fast_bf16() else "fp32"
    assert CpuEngine(checkpoint, "auto", 1, num_threads=1).precision == native
    monkeypatch.setattr("serve_app.engine.cpu.has_fast_bf16", lambda: False)
    assert CpuEngine(checkpoint, "auto", 1, num_threads=1).precision == "fp32"


@pytest.mark.parametrize("num_threads", [1, 2])
def test_start_bounds_the_threads(checkpoint: Checkpoint, num_threads: int) -> None:
    CpuEngine(checkpoint, "fp32", 1, num_threads).start()
    assert torch.get_num_threads() == num_threads


# --- ImageNet, where its weights are -------------------------------------------------------------


def test_photos_get_the_class_that_torchvisions_pipeline_gives(shared_data: Path) -> None:
    labels = json.loads((shared_data / "images" / "labels.json").read_text())
    photos = [shared_data / "images" / label["file"] for label in labels]
    resnet18 = load(Args(weights=str(shared_data / "weights" / "resnet18.pth"), arch="resnet18"))
    engine = started(resnet18, "fp32", default_buckets(8), top_k=1)
    decoder = Decoder(resnet18.spec.geometry, max_image_pixels=50_000_000)
    images = [decoder(photo.read_bytes()) for photo in photos]
    served = [
        class_id for start in range(0, len(images), 8) for class_id in best(engine.infer(images[start : start + 8]))
    ]

    assert len(photos) == 41
    model = resnet18.build_model()
    assert served == [_torchvision_class(model, photo) for photo in photos]
    accepted = [class_id in label["accepted_index"] for class_id, label in zip(served, labels, strict=True)]
    assert sum(accepted) >= 39


@torch.inference_mode()
def _torchvision_class(model: torch.nn.Module, photo: Path) -> int:
    preset = ResNet18_Weights.DEFAULT.transforms()
    upright = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
    return int(model(preset(upright)[None]).argmax())
