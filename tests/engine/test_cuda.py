"""The CUDA engine on the CPU: everything but the GPU itself, which tests/gpu has. See fake_cuda.py."""

import logging
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from serve_app.decode import Decoder, Pixels
from serve_app.engine import Execution, Item, Normalised, Prediction, cuda
from serve_app.engine.base import STAGES
from serve_app.engine.cpu import CpuEngine
from serve_app.engine.cuda import COMPILED_FOR, CudaEngine
from serve_app.engine.network import Network, Top
from serve_app.errors import RequestError, UnreadableImage
from serve_app.jpeg import Jpeg
from serve_app.weights import Checkpoint
from tests.engine import fake_cuda
from tests.engine.answers import NUM_DIGITS, assert_logits_are_those_of_the_scores, best, by_class, logits, normalised
from tests.engine.fake_cuda import FakeCuda

T = TypeVar("T")

TIMEOUT_S = 20.0
LONG_ENOUGH_S = 0.2
"""For a thread that does not wait to get past where it is to wait."""
MARGIN = 0.05
"""Between bf16 and fp32."""


@pytest.fixture(autouse=True)
def _torch_is_restored() -> Iterator[None]:
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return fake_cuda.install(monkeypatch)


Start = Callable[..., CudaEngine]


@pytest.fixture
def start(checkpoint: Checkpoint, fake: FakeCuda) -> Start:
    """An engine with all ten classes, uncompiled unless said otherwise, with these sizes warm."""

    def start(*sizes: int, precision: str = "fp32", compile_network: bool | None = False, **options: Any) -> CudaEngine:
        engine = CudaEngine(checkpoint, precision, NUM_DIGITS, compile_network, **options)
        engine.start()
        for size in sizes:
            engine.warm_up(size)
        return engine

    return start


def in_thread(work: Callable[[], T]) -> Future[T]:
    """A daemon: where a test fails, nobody waits for a thread that waits for ever."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def launched(engine: CudaEngine, images: Sequence[Item]) -> Execution:
    return in_thread(lambda: engine.launch(images)).result(TIMEOUT_S)


def both_slots_are_free(engine: CudaEngine, digits: Sequence[Pixels]) -> bool:
    executions = [launched(engine, digits[:1]), launched(engine, digits[1:2])]
    return [best(execution.results()) for execution in executions] == [[0], [1]]


# --- the right answer ----------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "atol"), [("fp32", 1e-4), ("bf16", MARGIN)])
def test_it_answers_as_the_cpu_does(
    checkpoint: Checkpoint, start: Start, digits: list[Pixels], precision: str, atol: float
) -> None:
    reference = CpuEngine(checkpoint, precision, NUM_DIGITS, num_threads=1)
    reference.warm_up(NUM_DIGITS)
    engine = start(1, 4, NUM_DIGITS, precision=precision)
    assert engine.precision == precision
    for batch in (digits, digits[7:], digits[3:4]):
        answers, expected = engine.infer(batch), reference.infer(batch)
        assert best(answers) == best(expected)
        np.testing.assert_allclose(by_class(answers), by_class(expected), atol=atol)
        assert_logits_are_those_of_the_scores(answers, NUM_DIGITS)


def test_a_batch_smaller_than_its_bucket_is_not_answered_with_older_rows(start: Start, digits: list[Pixels]) -> None:
    engine = start(4, 16)
    engine.infer(digits + digits[:6])
    alone = by_class(start(1).infer(digits[5:6]))
    for bucket in ([16], [4, 16]):
        engine.use(bucket)
        few = engine.infer(digits[5:8])
        assert best(few) == [5, 6, 7]
        assert [prediction.batch_size for prediction in few] == [3, 3, 3]
        np.testing.assert_allclose(by_class(few)[:1], alone, atol=1e-4)
        assert_logits_are_those_of_the_scores(few, NUM_DIGITS)


def test_old_graphs_still_answer_after_buffers_grew(start: Start, digits: list[Pixels]) -> None:
    large = 3 * COMPILED_FOR
    engine = start(4)
    engine.warm_up(large)
    assert engine.cold_sizes([4, large]) == []
    many = [digits[i % NUM_DIGITS] for i in range(large)]
    for batch in (digits[2:5], many, digits[6:9], many[::-1]):
        executions = [engine.launch(batch), engine.launch(batch[::-1])]
        expected = [best(start(len(batch)).infer(batch)) for batch in (batch, batch[::-1])]
        assert [best(execution.results()) for execution in executions] == expected


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_only_where_it_is_native(
    checkpoint: Checkpoint, fake: FakeCuda, native: bool, precision: str
) -> None:
    fake.native_bf16 = native
    assert CudaEngine(checkpoint, "auto", 1).precision == precision


def test_a_profile_has_every_stage_and_leaves_the_results_alone(start: Start, digits: list[Pixels]) -> None:
    engine = start(4)
    for _ in range(3):  # of two slots
        profile = engine.profile(digits[:3])
        assert tuple(profile) == STAGES
        assert min(profile.values()) >= 0
    assert both_slots_are_free(engine, digits)


# --- two in flight -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("sizes", [(3, 4), (4, 3), (1, 8), (8, 1)])
def test_each_of_two_batches_gets_its_own_results(
    start: Start, digits: list[Pixels], order: tuple[int, int], sizes: tuple[int, int]
) -> None:
    engine = start(1, 4, 8)
    batches = digits[: sizes[0]], digits[-sizes[1] :]
    executions = [engine.launch(batch) for batch in batches]
    results = {i: best(in_thread(executions[i].results).result(TIMEOUT_S)) for i in order}
    assert results == {0: list(range(sizes[0])), 1: list(range(NUM_DIGITS - sizes[1], NUM_DIGITS))}


@pytest.mark.parametrize("seed", range(3))
def test_batches_one_after_another_collected_in_another_thread(start: Start, digits: list[Pixels], seed: int) -> None:
    """As the service does it."""
    generator = random.Random(seed)
    batches = [generator.choices(range(NUM_DIGITS), k=generator.randint(1, 8)) for _ in range(40)]
    engine = start(1, 2, 4, 8)
    with ThreadPoolExecutor(1) as collecting:
        answers = [collecting.submit(engine.launch([digits[d] for d in batch]).results) for batch in batches]
        assert [best(answer.result(TIMEOUT_S)) for answer in answers] == batches


def test_results_stay_when_their_slot_is_used_again(start: Start, digits: list[Pixels]) -> None:
    engine = start(4)
    first = engine.infer(digits[:4])
    before = by_class(first).copy(), logits(first).copy()
    for _ in range(2 * engine.max_in_flight):
        engine.infer(digits[4:8])
    assert np.array_equal(by_class(first), before[0])
    assert np.array_equal(logits(first), before[1])
    assert best(first) == [0, 1, 2, 3]


def test_a_third_batch_waits_until_one_is_collected(start: Start, digits: list[Pixels]) -> None:
    engine = start(2)
    assert engine.max_in_flight == 2
    first, second = engine.launch(digits[:2]), engine.launch(digits[2:4])
    third = in_thread(lambda: engine.launch(digits[4:6]))
    with pytest.raises(TimeoutError):
        third.result(LONG_ENOUGH_S)
    assert best(second.results()) == [2, 3]
    assert best(third.result(TIMEOUT_S).results()) == [4, 5]
    assert best(first.results()) == [0, 1]


def test_who_waits_for_a_batch_sleeps(start: Start, fake: FakeCuda, digits: list[Pixels]) -> None:
    start(2).infer(digits[:2])
    assert {event.blocking for event in fake.events if event.waits} == {True}


def test_graphs_share_their_memory_and_let_other_threads_use_the_device(start: Start, fake: FakeCuda) -> None:
    start(1, 2, 4)
    assert len(fake.captures) == 3
    assert len({(capture["pool"], capture["stream"]) for capture in fake.captures}) == 1
    assert {capture["capture_error_mode"] for capture in fake.captures} == {"thread_local"}


# --- failures ------------------------------------------------------------------------------------


def test_a_batch_that_cannot_be_copied_gives_its_slot_back(start: Start, digits: list[Pixels]) -> None:
    engine = start(2)
    for _ in range(3):
        with pytest.raises(ValueError, match="shape"):
            launched(engine, [digits[0][:5]])
    assert both_slots_are_free(engine, digits)


def test_a_batch_that_fails_on_the_device_gives_its_slot_back(
    start: Start, digits: list[Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(2)
    with monkeypatch.context() as failing:
        failing.setattr(fake_cuda.FakeGraph, "run", raising(RuntimeError("CUDA error: misaligned address")))
        for _ in range(3):
            execution = launched(engine, digits[:1])
            with pytest.raises(RuntimeError, match="misaligned"):
                execution.results()
    assert both_slots_are_free(engine, digits)


def test_a_broken_device_fails_every_batch_and_holds_up_none(
    start: Start, digits: list[Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an illegal access every call of CUDA raises, also the one that waits."""
    engine = start(2)
    for target, name in ((fake_cuda.FakeGraph, "replay"), (fake_cuda.FakeStream, "synchronize")):
        monkeypatch.setattr(target, name, raising(RuntimeError("CUDA error: illegal memory access")))
    for _ in range(3):
        with pytest.raises(RuntimeError, match="illegal memory access"):
            launched(engine, digits[:1])


def test_a_profile_that_fails_gives_its_slot_back(start: Start, digits: list[Pixels]) -> None:
    engine = start(2)
    for _ in range(3):
        with pytest.raises(ValueError, match="shape"):
            in_thread(lambda: engine.profile([digits[0][:5]])).result(TIMEOUT_S)
    assert both_slots_are_free(engine, digits)


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_buffers_that_do_not_fit_leave_the_engine_as_it_was(start: Start, fake: FakeCuda, digits: list[Pixels]) -> None:
    engine = start(4)
    fake.largest_allocation = COMPILED_FOR * digits[0].nbytes
    with pytest.raises(torch.OutOfMemoryError):
        engine.warm_up(COMPILED_FOR + 1)
    assert fake.emptied == 1
    assert engine.cold_sizes([4, COMPILED_FOR + 1]) == [COMPILED_FOR + 1]
    assert both_slots_are_free(engine, digits)


def test_what_a_network_held_when_it_ran_out_of_memory_is_freed(
    start: Start, fake: FakeCuda, digits: list[Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    class Hungry(Network):
        def forward(self, pixels: torch.Tensor) -> Top:
            activations = pixels.float()
            if len(pixels) > 4:
                held.append(weakref.ref(activations))
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(pixels)

    monkeypatch.setattr(cuda, "Network", Hungry)
    engine = start(4)
    with pytest.raises(torch.OutOfMemoryError) as error:
        engine.warm_up(8)
    assert error.value.__traceback__ is not None  # whose frames held it
    assert [activations() for activations in held] == [None]
    assert fake.emptied == 1
    assert engine.cold_sizes([4, 8]) == [8]
    assert both_slots_are_free(engine, digits)


@pytest.mark.parametrize(("share", "said"), [(1.0, []), (0.25, [0.25 - 1 / 64])])
def test_only_a_share_of_the_memory_is_a_limit(start: Start, fake: FakeCuda, share: float, said: list[float]) -> None:
    start(memory_share=share)
    assert fake.memory_shares == said


# --- torch.compile -------------------------------------------------------------------------------


class FakeCompiled:
    """Runs the network as it is."""

    def __init__(self, network: Network) -> None:
        self.sizes: list[int] = []
        self._network = network

    def __call__(self, pixels: torch.Tensor) -> Top:
        self.sizes.append(len(pixels))
        top: Top = self._network(pixels)
        return top


class NotMade:
    """Of a Python that torch.compile does not know."""

    def __init__(self, network: Network) -> None:
        raise RuntimeError("no compiler here\nand a page of details")


class NotRun:
    """Where there is no C compiler."""

    def __init__(self, network: Network) -> None:
        pass

    def __call__(self, pixels: torch.Tensor) -> Top:
        raise RuntimeError("no compiler here\nand a page of details")


@pytest.mark.parametrize("wish", [None, True])
def test_what_was_compiled_is_what_graphs_record(
    start: Start, digits: list[Pixels], monkeypatch: pytest.MonkeyPatch, wish: bool | None
) -> None:
    made: list[FakeCompiled] = []

    def compiled(network: Network) -> FakeCompiled:
        made.append(FakeCompiled(network))
        return made[-1]

    monkeypatch.setattr(cuda, "Compiled", compiled)
    engine = start(4, compile_network=wish)
    assert engine.is_compiled
    assert best(engine.infer(digits[:3])) == [0, 1, 2]
    assert [set(one.sizes) for one in made] == [{1, COMPILED_FOR, 4}]


class NotForAll(FakeCompiled):
    """Compiles, and fails for a batch size that comes later."""

    def __call__(self, pixels: torch.Tensor) -> Top:
        if len(pixels) == 6:
            raise RuntimeError("no compiler here\nand a page of details")
        return super().__call__(pixels)


@pytest.mark.parametrize("failing", [NotMade, NotRun, NotForAll])
def test_where_nothing_can_be_compiled_the_network_runs_as_it_is_and_the_log_says_so(
    start: Start,
    digits: list[Pixels],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: type[object],
) -> None:
    monkeypatch.setattr(cuda, "Compiled", failing)
    with caplog.at_level(logging.WARNING, cuda.__name__):
        engine = start(4, 6, compile_network=None)
    assert not engine.is_compiled
    assert [message.endswith(": no compiler here") for message in caplog.messages] == [True]
    assert best(engine.infer(digits[:3])) == [0, 1, 2]


@pytest.mark.parametrize("failing", [NotMade, NotRun])
def test_compile_true_means_it(start: Start, monkeypatch: pytest.MonkeyPatch, failing: type[object]) -> None:
    monkeypatch.setattr(cuda, "Compiled", failing)
    with pytest.raises(RuntimeError, match="no compiler here"):
        start(compile_network=True)


def test_compile_false_means_it(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "Compiled", NotMade)
    start(compile_network=False)


# --- what the device decodes ---------------------------------------------------------------------

DAMAGED = UnreadableImage("the JPEG image is damaged")


class FakeDecoder:
    """A JPEG's bytes are its digit; of others it says that they are damaged."""

    def __init__(self, digits: list[Pixels], *arguments: object) -> None:
        self.arguments = arguments
        self.batches: list[int] = []
        self._digits = digits

    def warm_up(self) -> None:
        return

    def decode_into(self, images: Sequence[Item], out: torch.Tensor) -> dict[int, RequestError]:
        self.batches.append(len(images))
        errors: dict[int, RequestError] = {}
        for i, image in enumerate(images):
            assert not isinstance(image, Normalised)
            if isinstance(image, Jpeg) and not image.data.isdigit():
                errors[i] = DAMAGED
                continue
            pixels = self._digits[int(image.data)] if isinstance(image, Jpeg) else image
            out[i].copy_(torch.tensor(pixels), non_blocking=True)
        return errors


@pytest.fixture
def decoders(digits: list[Pixels], monkeypatch: pytest.MonkeyPatch) -> list[FakeDecoder]:
    """Those that were made, in the place of GpuDecoder."""
    made: list[FakeDecoder] = []

    def decoder(*arguments: object) -> FakeDecoder:
        made.append(FakeDecoder(digits, *arguments))
        return made[-1]

    module = ModuleType("serve_app.engine.gpu_decode")
    module.BLANK = Jpeg(b"0", 500, 375, 1)  # type: ignore[attr-defined]
    module.GpuDecoder = decoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


@pytest.fixture
def fallback(checkpoint: Checkpoint) -> Decoder:
    return Decoder(checkpoint.spec.geometry, max_image_pixels=1_000_000)


def jpeg(digit: int) -> Jpeg:
    return Jpeg(str(digit).encode(), 64, 64, 1)


def test_jpegs_and_crops_are_answered_in_one_batch(
    start: Start, digits: list[Pixels], decoders: list[FakeDecoder], fallback: Decoder
) -> None:
    engine = start(8, decoder=fallback)
    first = engine.launch([jpeg(3), digits[4], jpeg(5)])
    second = engine.launch([jpeg(6), jpeg(7)])
    assert [best(execution.results()) for execution in (second, first)] == [[6, 7], [3, 4, 5]]
    (decoder,) = decoders
    assert decoder.arguments[1:2] == (fallback,)
    assert decoder.batches[-2:] == [3, 2]


def test_what_cannot_be_decoded_is_an_error_at_its_place(
    start: Start, digits: list[Pixels], decoders: list[FakeDecoder], fallback: Decoder
) -> None:
    engine = start(8, decoder=fallback)
    damaged = Jpeg(b"?", 64, 64, 1)
    outcomes = engine.launch([damaged, jpeg(1), digits[2], damaged]).results()
    assert [outcomes[0], outcomes[3]] == [DAMAGED, DAMAGED]
    assert best(outcomes[1:3]) == [1, 2]
    assert both_slots_are_free(engine, digits)


def test_a_batch_of_crops_needs_no_decoder(
    start: Start, digits: list[Pixels], decoders: list[FakeDecoder], fallback: Decoder
) -> None:
    engine = start(8, decoder=fallback)
    (decoder,) = decoders
    assert set(decoder.batches) == {8}  # its warm-up
    decoder.batches.clear()
    assert best(engine.infer(digits[:3])) == [0, 1, 2]
    assert decoder.batches == []


def test_a_decoder_that_fails_gives_the_slot_back(
    start: Start,
    digits: list[Pixels],
    decoders: list[FakeDecoder],
    fallback: Decoder,
    monkeypatch: pytest.MonkeyPatch,
    fake: FakeCuda,
) -> None:
    engine = start(8, decoder=fallback)
    monkeypatch.setattr(FakeDecoder, "decode_into", raising(torch.OutOfMemoryError("CUDA out of memory")))
    for _ in range(3):
        with pytest.raises(torch.OutOfMemoryError):
            launched(engine, [jpeg(1)])
    assert fake.emptied == 3
    assert both_slots_are_free(engine, digits)


# --- what a client has normalised ----------------------------------------------------------------


Normalise = Callable[[int], Normalised]


@pytest.fixture
def client(checkpoint: Checkpoint, digits: list[Pixels]) -> Normalise:
    """A digit as a client has normalised it."""
    return lambda digit: normalised(digits[digit], checkpoint.spec.geometry)


@pytest.mark.parametrize(("precision", "atol"), [("fp32", 1e-3), ("bf16", 0.25)])
@pytest.mark.parametrize("places", [{0}, {1, 4, 5}, set(range(NUM_DIGITS))])
def test_a_normalised_crop_gets_what_the_crop_gets(
    start: Start, digits: list[Pixels], client: Normalise, precision: str, atol: float, places: set[int]
) -> None:
    engine = start(4, 16, precision=precision)
    mixed = [client(i) if i in places else digits[i] for i in range(NUM_DIGITS)]
    for order in (slice(None), slice(7, 10), slice(None, None, -1)):
        expected, found = engine.infer(digits[order]), engine.infer(mixed[order])
        assert best(found) == best(expected) == list(range(NUM_DIGITS))[order]
        np.testing.assert_allclose(logits(found), logits(expected), atol=atol)
        assert_logits_are_those_of_the_scores(found, NUM_DIGITS)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("which", ["first", "second", "both"])
def test_each_of_two_batches_gets_its_own_results_where_some_are_normalised(
    start: Start, digits: list[Pixels], client: Normalise, order: tuple[int, int], which: str
) -> None:
    engine = start(4, 8)
    first: list[Item] = [client(3), digits[4], client(5)]
    second: list[Item] = [digits[6], client(7), client(8), digits[9]]
    if which == "first":
        second = [*digits[6:10]]
    if which == "second":
        first = [*digits[3:6]]
    for _ in range(3):
        executions = [launched(engine, batch) for batch in (first, second)]
        results = {i: best(in_thread(executions[i].results).result(TIMEOUT_S)) for i in order}
        assert results == {0: [3, 4, 5], 1: [6, 7, 8, 9]}


def test_jpegs_crops_and_normalised_ones_keep_their_places_and_their_errors(
    start: Start, digits: list[Pixels], decoders: list[FakeDecoder], fallback: Decoder, client: Normalise
) -> None:
    engine = start(8, decoder=fallback)
    damaged = Jpeg(b"?", 64, 64, 1)
    outcomes = engine.launch([client(3), damaged, jpeg(1), digits[2], damaged, client(9)]).results()
    assert [outcomes[1], outcomes[4]] == [DAMAGED, DAMAGED]
    assert best([outcomes[0], *outcomes[2:4], outcomes[5]]) == [3, 1, 2, 9]
    (decoder,) = decoders
    assert decoder.batches[-1] == 6
    assert both_slots_are_free(engine, digits)


def test_only_a_batch_with_a_normalised_one_goes_past_the_graph_and_what_is_compiled(
    start: Start, digits: list[Pixels], client: Normalise, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed: list[fake_cuda.FakeGraph] = []
    made: list[FakeCompiled] = []

    class Counted(fake_cuda.FakeGraph):
        def replay(self) -> None:
            replayed.append(self)
            super().replay()

    def compiled(network: Network) -> FakeCompiled:
        made.append(FakeCompiled(network))
        return made[-1]

    monkeypatch.setattr(cuda, "Compiled", compiled)
    monkeypatch.setattr(FakeCuda, "CUDAGraph", Counted)
    engine = start(4, compile_network=True)
    before = len(replayed), len(made[0].sizes)
    assert best(engine.infer([digits[1], client(2)])) == [1, 2]
    assert (len(replayed), len(made[0].sizes)) == before
    assert best(engine.infer(digits[:2])) == [0, 1]
    assert (len(replayed), len(made[0].sizes)) == (before[0] + 1, before[1])


def test_a_normalised_image_of_another_size_gives_the_slot_back(start: Start, digits: list[Pixels]) -> None:
    engine = start(2)
    for _ in range(3):
        with pytest.raises(ValueError, match="shape"):
            launched(engine, [digits[0], Normalised(np.zeros((3, 1, 1), np.float32))])
    assert both_slots_are_free(engine, digits)


def test_normalised_images_that_do_not_fit_fail_their_batch_alone(
    start: Start, fake: FakeCuda, digits: list[Pixels], client: Normalise
) -> None:
    engine = start(2)
    fake.largest_allocation = 4 * digits[0].nbytes
    for times in range(1, 4):
        with pytest.raises(torch.OutOfMemoryError):
            launched(engine, [client(0), client(1)])
        assert fake.emptied == times
    assert both_slots_are_free(engine, digits)
    assert best(launched(engine, [client(3)]).results()) == [3]


def test_what_a_batch_of_normalised_images_held_is_freed(
    start: Start, fake: FakeCuda, digits: list[Pixels], client: Normalise, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    fails = [False]

    class Watched(Network):
        def inputs(self, pixels: torch.Tensor, rows: Sequence[int], normalised: torch.Tensor) -> torch.Tensor:
            held.append(weakref.ref(normalised))
            if fails[0]:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().inputs(pixels, rows, normalised)

    monkeypatch.setattr(cuda, "Network", Watched)
    engine = start(4)
    execution = launched(engine, [client(0), digits[1]])
    assert [normalised() is None for normalised in held] == [False]  # the device may not be done with it
    assert best(execution.results()) == [0, 1]
    assert [normalised() for normalised in held] == [None]
    fails[0] = True
    with pytest.raises(torch.OutOfMemoryError) as error:
        launched(engine, [client(0), digits[1]])
    assert error.value.__traceback__ is not None  # whose frames held it
    assert [normalised() for normalised in held] == [None, None]
    assert both_slots_are_free(engine, digits)


def test_a_profile_of_a_batch_with_normalised_images_has_every_stage(
    start: Start, digits: list[Pixels], client: Normalise
) -> None:
    engine = start(4)
    for _ in range(3):  # of two slots
        assert tuple(engine.profile([digits[0], client(1)])) == STAGES
    assert both_slots_are_free(engine, digits)


def test_an_execution_says_how_long_it_took(start: Start, digits: list[Pixels]) -> None:
    execution = start(2).launch(digits[:2])
    assert isinstance(execution, Execution)
    first, second = execution.results()
    assert isinstance(first, Prediction)
    assert isinstance(second, Prediction)
    assert first.device_ms == second.device_ms > 0
