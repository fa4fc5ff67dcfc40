import numpy as np
import pytest
import torch

from serve_app.config import Args, ConfigError, Stub
from serve_app.engine import create
from serve_app.engine.base import Execution, Item, Normalised, NotANumber, Prediction, blank, set_apart
from serve_app.engine.cpu import CpuEngine
from serve_app.engine.network import Normalise, Top, top_classes
from serve_app.engine.stub import StubEngine
from serve_app.jpeg import Jpeg
from serve_app.model_spec import Geometry
from serve_app.weights import Checkpoint


def stub(top_k: int = 1) -> StubEngine:
    return StubEngine(Stub(base_ms=0, per_image_ms=0), num_classes=10, top_k=top_k, geometry=Geometry())


# --- warming -------------------------------------------------------------------------------------


def test_every_bucket_is_cold_until_it_is_warmed() -> None:
    engine = stub()
    assert engine.cold_sizes([1, 18, 20]) == [1, 18, 20]
    engine.warm_up(18)
    assert engine.cold_sizes([1, 18, 20]) == [1, 20]


def test_what_is_warm_stays_warm_for_other_buckets() -> None:
    engine = stub()
    for size in engine.cold_sizes([16, 18]):
        engine.warm_up(size)
    assert engine.cold_sizes([16]) == []
    assert engine.cold_sizes([18, 20]) == [20]


# --- from pixels to the network and back ---------------------------------------------------------


@pytest.mark.parametrize("num_images", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_networks_input_is_channels_last_and_contiguous(num_images: int, dtype: torch.dtype) -> None:
    pixels = torch.zeros((num_images, 6, 7, 3), dtype=torch.uint8)
    inputs = Normalise(Geometry(), dtype)(pixels)
    assert inputs.shape == (num_images, 3, 6, 7)
    assert inputs.dtype == dtype
    assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_normalise_is_the_formula_of_the_geometry() -> None:
    geometry = Geometry(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 16, 3)
    expected = (pixels / 255 - torch.tensor(geometry.mean)) / torch.tensor(geometry.std)
    torch.testing.assert_close(Normalise(geometry, torch.float32)(pixels), expected.permute(0, 3, 1, 2))


def test_bf16_inputs_are_rounded_once() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 16, 3)
    exact = Normalise(Geometry(), torch.float32)(pixels)
    assert torch.equal(Normalise(Geometry(), torch.bfloat16)(pixels), exact.bfloat16())


def test_normalise_leaves_the_pixels_as_they_are() -> None:
    pixels = torch.full((1, 4, 4, 3), 9, dtype=torch.uint8)
    Normalise(Geometry(), torch.float32)(pixels)
    assert (pixels == 9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_top_classes_are_softmax_best_first(dtype: torch.dtype) -> None:
    scores, class_ids, logits = top_classes(torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 1.0]], dtype=dtype), k=2)
    assert class_ids.tolist() == [[1, 2], [0, 2]]
    assert scores.dtype == logits.dtype == torch.float32
    assert logits.tolist() == [[0, 3, 1], [2, -1, 1]]
    torch.testing.assert_close(scores[0], torch.tensor([0.0, 3.0, 1.0]).softmax(0)[[1, 2]])


def test_a_blank_is_of_the_networks_geometry() -> None:
    image = blank(Geometry(crop_size=200))
    assert image.shape == (200, 200, 3)
    assert image.dtype == np.uint8


def test_the_normalised_are_set_apart_with_a_blank_in_their_place() -> None:
    jpeg, crop = Jpeg(b"", 64, 64, 1), np.zeros((8, 8, 3), np.uint8)
    first, second = (Normalised(np.full((3, 8, 8), value, np.float32)) for value in (1, 2))
    gray = blank(Geometry(crop_size=8))
    images: list[Item] = [first, jpeg, crop, second]
    others, normalised = set_apart(images, gray)
    assert [id(image) for image in others] == [id(image) for image in (gray, jpeg, crop, gray)]
    assert {place: id(image) for place, image in normalised.items()} == {0: id(first), 3: id(second)}


# --- answers that are none ------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_image_whose_logits_are_no_numbers_alone_has_no_answer(value: float) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, value, 1.0], [2.0, 1.0, 0.0]])
    first, broken, last = Execution(3, 0.0, lambda: top_classes(logits, k=2)).results()
    assert isinstance(broken, NotANumber)
    assert isinstance(first, Prediction)
    assert isinstance(last, Prediction)
    assert (first.class_ids.tolist(), last.class_ids.tolist()) == ([2, 1], [0, 1])


def test_rows_of_padding_may_hold_anything() -> None:
    top = top_classes(torch.tensor([[0.0, 1.0], [float("nan")] * 2]), k=1)
    assert len(Execution(1, 0.0, lambda: top).results()) == 1


class Broken(StubEngine):
    def _copy_out(self, top: Top) -> Top:
        return top._replace(scores=top.scores * torch.nan)


def test_a_device_that_answers_with_nonsense_does_not_get_warm() -> None:
    engine = Broken(Stub(base_ms=0, per_image_ms=0), num_classes=10, top_k=2, geometry=Geometry())
    with pytest.raises(NotANumber):
        engine.warm_up(4)
    assert engine.cold_sizes([4]) == [4]


# --- create --------------------------------------------------------------------------------------


def test_cuda_without_a_gpu_says_what_to_set(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"device: cuda .* set ray_actor_options\.num_gpus"):
        create(Args(device="cuda"), checkpoint, num_threads=1)


def test_auto_without_a_gpu_is_the_cpu(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert isinstance(create(Args(device="auto"), checkpoint, num_threads=1), CpuEngine)


def test_cpu_means_the_cpu_where_there_is_a_gpu(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert create(Args(device="cpu"), checkpoint, num_threads=1).device == "cpu"


@pytest.mark.parametrize(("max_top_k", "num_classes"), [(3, 3), (100, 10)])
def test_no_more_classes_are_given_than_there_are(checkpoint: Checkpoint, max_top_k: int, num_classes: int) -> None:
    args = Args(device="stub", max_top_k=max_top_k, stub=Stub(base_ms=0, per_image_ms=0))
    engine = create(args, checkpoint, num_threads=1)
    engine.warm_up(1)
    assert len(engine.infer([np.zeros((1, 1, 3), np.uint8)])[0].class_ids) == num_classes
