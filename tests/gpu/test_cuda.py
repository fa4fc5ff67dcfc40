"""The CUDA engine on a GPU. What needs none is in tests/engine/test_cuda.py."""

import random
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from serve_app.config import Args, default_buckets
from serve_app.decode import Decoder, Pixels
from serve_app.engine import Engine, Item, Outcome, create
from serve_app.engine.base import STAGES
from serve_app.jpeg import Jpeg, parse
from serve_app.model_spec import Geometry
from serve_app.weights import Checkpoint
from tests.engine.answers import NUM_DIGITS, assert_logits_are_those_of_the_scores, best, by_class, logits, normalised
from tests.engine.photos import agreement, answers, photos, resnet18, views

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    # Torch's own, of compilers and codecs.
    pytest.mark.filterwarnings("ignore"),
]

MAX_BATCH_SIZE = 20
# Never run on a GPU yet: fp32 is IEEE there (the engine turns TF32 off), so its bound may prove needlessly wide.
ATOL = {"fp32": 0.01, "bf16": 0.05}
LOGITS_ATOL = {"fp32": 0.01, "bf16": 0.25}
SHARE = 0.1
TIMES = 200


@pytest.fixture(autouse=True)
def _torch_is_restored() -> Iterator[None]:
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch._dynamo.reset()  # it counts the networks of one process, and gives up at the eighth


def started(checkpoint: Checkpoint, sizes: Sequence[int] = (), num_gpus: float = 1.0, **args: Any) -> Engine:
    """On the GPU, uncompiled, with all its classes up to ten, unless `args` say otherwise."""
    settings = {"device": "cuda", "compile": False, "max_top_k": NUM_DIGITS, **args}
    engine = create(Args(**settings), checkpoint, 1, num_gpus)
    engine.start()
    for size in sizes:
        engine.warm_up(size)
    return engine


@pytest.fixture
def cpu(checkpoint: Checkpoint) -> Engine:
    return started(checkpoint, [NUM_DIGITS], device="cpu", precision="fp32")


# --- the right answer ----------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_digits_have_the_class_that_the_cpu_gives_them(
    checkpoint: Checkpoint, cpu: Engine, digits: list[Pixels], precision: str
) -> None:
    engine = started(checkpoint, [NUM_DIGITS], precision=precision)
    assert (engine.device, engine.precision) == ("cuda:0", precision)
    assert best(engine.infer(digits)) == best(cpu.infer(digits)) == list(range(NUM_DIGITS))
    np.testing.assert_allclose(by_class(engine.infer(digits)), by_class(cpu.infer(digits)), atol=ATOL[precision])


@pytest.mark.parametrize("compile_network", [False, True])
def test_every_bucket_answers(checkpoint: Checkpoint, digits: list[Pixels], compile_network: bool) -> None:
    engine = started(checkpoint, default_buckets(MAX_BATCH_SIZE), compile=compile_network)
    for size in range(1, MAX_BATCH_SIZE + 1):
        batch = [i % NUM_DIGITS for i in range(size)]
        assert best(engine.infer([digits[i] for i in batch])) == batch


def test_larger_buffers_leave_the_smaller_graphs_alone(checkpoint: Checkpoint, digits: list[Pixels]) -> None:
    engine = started(checkpoint, [4, 100, 7, 300])
    for size in (3, 100, 7, 250, 2):
        batch = [i % NUM_DIGITS for i in range(size)]
        assert best(engine.infer([digits[i] for i in batch])) == batch


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_and_uncompiled_agree(checkpoint: Checkpoint, digits: list[Pixels], precision: str) -> None:
    plain, compiled = (started(checkpoint, [1, 7, 10], precision=precision, compile=how) for how in (False, True))
    for batch in (digits, digits[3:10], digits[2:3]):
        assert best(compiled.infer(batch)) == best(plain.infer(batch))
        np.testing.assert_allclose(by_class(compiled.infer(batch)), by_class(plain.infer(batch)), atol=ATOL[precision])


def test_two_compilations_serve_every_batch_size(checkpoint: Checkpoint) -> None:
    """A third would be seconds in the midst of a warm-up: torch may guard on a size that it was not compiled for."""
    torch._dynamo.reset()
    counters.clear()
    started(checkpoint, [1, 2, 5, 16, 33, 64], compile=True)
    assert counters["stats"]["unique_graphs"] == 2


def test_a_profile_has_every_stage(checkpoint: Checkpoint, digits: list[Pixels]) -> None:
    engine = started(checkpoint, [NUM_DIGITS])
    for _ in range(3):  # of two slots
        profile = engine.profile(digits)
        assert tuple(profile) == STAGES
        assert min(profile.values()) > 0
    assert best(engine.infer(digits)) == list(range(NUM_DIGITS))


# --- two in flight -------------------------------------------------------------------------------


@pytest.mark.parametrize("compile_network", [False, True])
def test_each_of_two_batches_in_flight_gets_what_it_gets_alone(
    checkpoint: Checkpoint, digits: list[Pixels], compile_network: bool
) -> None:
    """Of random sizes, launched here and collected in another thread, as the service does it."""
    engine = started(checkpoint, [1, 2, 4, 8, 16], compile=compile_network)
    generator = random.Random(0)
    batches = [generator.choices(range(NUM_DIGITS), k=generator.randint(1, 16)) for _ in range(2 * TIMES)]
    alone = [by_class(engine.infer([digits[i] for i in batch])) for batch in batches]
    with ThreadPoolExecutor(1) as collecting:
        together = [collecting.submit(engine.launch([digits[i] for i in batch]).results) for batch in batches]
        for batch, expected, future in zip(batches, alone, together, strict=True):
            outcomes = future.result(timeout=60)
            assert best(outcomes) == batch
            np.testing.assert_allclose(by_class(outcomes), expected, atol=1e-4)


def test_batches_may_be_collected_in_any_order(checkpoint: Checkpoint, digits: list[Pixels]) -> None:
    engine = started(checkpoint, [1, 2, 4, 8, 16])
    generator = random.Random(1)
    for _ in range(TIMES):
        batches = [generator.choices(range(NUM_DIGITS), k=generator.randint(1, 16)) for _ in range(2)]
        executions = [engine.launch([digits[i] for i in batch]) for batch in batches]
        for i in generator.sample(range(2), k=2):
            assert best(executions[i].results()) == batches[i]


def test_results_stay_when_later_batches_run(checkpoint: Checkpoint, digits: list[Pixels]) -> None:
    engine = started(checkpoint, [NUM_DIGITS])
    first = engine.infer(digits)
    before = by_class(first).copy()
    for shift in range(1, NUM_DIGITS):
        engine.infer(digits[shift:] + digits[:shift])
    assert np.array_equal(by_class(first), before)


# --- logits, and images that are normalised already -----------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_logits_are_those_of_the_scores_and_of_the_cpu(
    checkpoint: Checkpoint, cpu: Engine, digits: list[Pixels], precision: str
) -> None:
    few = started(checkpoint, [16], precision=precision, max_top_k=3).infer(digits)
    assert_logits_are_those_of_the_scores(few, NUM_DIGITS)
    np.testing.assert_allclose(logits(few), logits(cpu.infer(digits)), atol=LOGITS_ATOL[precision])


@pytest.mark.parametrize("compile_network", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_normalised_crop_gets_what_the_crop_gets(
    checkpoint: Checkpoint, digits: list[Pixels], precision: str, compile_network: bool
) -> None:
    engine = started(checkpoint, [4, 16], precision=precision, compile=compile_network)
    geometry = checkpoint.spec.geometry
    expected = engine.infer(digits)
    for places in ({0}, {1, 4, 5}, set(range(NUM_DIGITS))):
        mixed = engine.infer([normalised(digit, geometry) if i in places else digit for i, digit in enumerate(digits)])
        assert best(mixed) == best(expected) == list(range(NUM_DIGITS))
        np.testing.assert_allclose(logits(mixed), logits(expected), atol=LOGITS_ATOL[precision])


def test_batches_with_normalised_crops_in_flight_get_their_own_results(
    checkpoint: Checkpoint, digits: list[Pixels]
) -> None:
    """Of random sizes and mixtures, launched here and collected in another thread, as the service does it."""
    engine = started(checkpoint, [1, 2, 4, 8, 16])
    theirs = [normalised(digit, checkpoint.spec.geometry) for digit in digits]
    generator = random.Random(2)
    batches = [generator.choices(range(NUM_DIGITS), k=generator.randint(1, 16)) for _ in range(TIMES)]
    with ThreadPoolExecutor(1) as collecting:
        futures = [
            collecting.submit(engine.launch([generator.choice((digits, theirs))[i] for i in batch]).results)
            for batch in batches
        ]
        assert [best(future.result(timeout=60)) for future in futures] == batches


# --- memory --------------------------------------------------------------------------------------


def test_a_share_of_a_gpu_is_all_that_a_replica_gets(checkpoint: Checkpoint, digits: list[Pixels]) -> None:
    engine = started(checkpoint, [NUM_DIGITS], num_gpus=SHARE)
    total = torch.cuda.get_device_properties(0).total_memory
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(int(1.1 * SHARE * total), dtype=torch.uint8, device="cuda")
    assert best(engine.infer(digits)) == list(range(NUM_DIGITS))


def test_a_batch_that_does_not_fit_leaves_the_engine_as_it_was(shared_data: Path) -> None:
    engine = started(resnet18(shared_data), [2], num_gpus=0.01, precision="fp32")
    crop = np.full((224, 224, 3), 99, np.uint8)
    before = best(engine.infer([crop]))
    theirs = [normalised(crop, Geometry())] * 2
    assert best(engine.infer(theirs)) == before * 2
    with pytest.raises(torch.OutOfMemoryError):
        engine.warm_up(1024)  # 3 GB for the first convolution's output alone
    assert engine.cold_sizes([2, 1024]) == [1024]
    executions: deque[Any] = deque(engine.launch([crop, crop]) for _ in range(2))
    assert [best(execution.results()) for execution in executions] == [before * 2] * 2
    assert best(engine.infer(theirs)) == before * 2


# --- photos --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo_checkpoint(shared_data: Path) -> Checkpoint:
    return resnet18(shared_data)


@pytest.fixture(scope="module")
def photo_views(shared_data: Path, photo_checkpoint: Checkpoint) -> list[Pixels]:
    """Four of each photo, the first as it is served."""
    geometry = photo_checkpoint.spec.geometry
    with ThreadPoolExecutor() as threads:
        return [
            view for four in threads.map(lambda d: views(d, geometry), photos(shared_data).values()) for view in four
        ]


@pytest.fixture(scope="module")
def reference(photo_checkpoint: Checkpoint, photo_views: list[Pixels]) -> list[Outcome]:
    """In fp32 on the CPU."""
    args = Args(device="cpu", precision="fp32", max_top_k=2)
    engine = create(args, photo_checkpoint, num_threads=torch.get_num_threads())
    engine.start()
    return answers(engine, photo_views)


@pytest.mark.parametrize("compile_network", [False, True])
def test_bf16_names_the_class_of_fp32_on_the_cpu(
    photo_checkpoint: Checkpoint, photo_views: list[Pixels], reference: list[Outcome], compile_network: bool
) -> None:
    engine = started(photo_checkpoint, precision="bf16", compile=compile_network)
    found = agreement(reference, answers(engine, photo_views))
    print(found)
    assert found.share >= 0.99, found
    assert found.share_of_decided >= 0.99, found


def test_photos_decoded_on_the_gpu_get_the_class_of_fp32_on_the_cpu(
    photo_checkpoint: Checkpoint, reference: list[Outcome], shared_data: Path
) -> None:
    limit = Args().max_image_pixels
    decoder = Decoder(photo_checkpoint.spec.geometry, limit)
    items = [parse(data, limit, True) or decoder(data) for data in photos(shared_data).values()]
    assert sum(isinstance(item, Jpeg) for item in items) > len(items) / 2
    engine = started(photo_checkpoint, precision="bf16", decode="gpu")
    found = agreement(reference[::4], answers(engine, items))
    print(found)
    assert found.share >= 0.98, found
    assert found.share_of_decided >= 0.98, found


def test_what_the_gpu_cannot_decode_is_an_answer_of_its_own(
    photo_checkpoint: Checkpoint, shared_data: Path, reference: list[Outcome]
) -> None:
    """A JPEG whose headers are fine and whose scan is not: its neighbours are answered."""
    data = next(data for data in photos(shared_data).values() if isinstance(parse(data, 1 << 26, True), Jpeg))
    good = parse(data, 1 << 26, True)
    assert isinstance(good, Jpeg)
    middle = len(data) // 2
    damaged = Jpeg(data[:middle] + bytes(64) + data[middle + 64 :], good.width, good.height, good.orientation)
    engine = started(photo_checkpoint, [4], decode="gpu")
    futures: list[Future[Any]] = []
    with ThreadPoolExecutor(1) as collecting:
        futures = [collecting.submit(engine.launch([good, damaged, good]).results) for _ in range(4)]
    for future in futures:
        first, _, third = future.result(timeout=60)  # what becomes of the middle one is the decoder's affair
        assert best([first]) == best([third])


def test_photos_decoded_on_the_gpu_beside_normalised_ones_keep_their_places(
    photo_checkpoint: Checkpoint, reference: list[Outcome], shared_data: Path
) -> None:
    limit, geometry = Args().max_image_pixels, photo_checkpoint.spec.geometry
    decoder = Decoder(geometry, limit)
    items: list[Item] = [
        normalised(decoder(data), geometry) if i % 3 == 0 else parse(data, limit, True) or decoder(data)
        for i, data in enumerate(photos(shared_data).values())
    ]
    found = agreement(reference[::4], answers(started(photo_checkpoint, precision="bf16", decode="gpu"), items))
    assert found.share >= 0.98, found
    assert found.share_of_decided >= 0.98, found
