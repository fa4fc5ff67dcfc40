"""The stand-in itself: it must notice what the tests of the CUDA engine are there to notice."""

import pytest
import torch

from tests.engine.fake_cuda import FakeCuda

CPU = torch.device("cpu")


def test_a_copy_is_late_until_its_stream_is_waited_for() -> None:
    cuda = FakeCuda()
    stream, event = cuda.Stream(CPU), cuda.Event()
    source, target = torch.ones(2), torch.zeros(2)
    with cuda.stream(stream):
        target[:1].copy_(source[:1], non_blocking=True)
    event.record(stream)
    with cuda.stream(stream):
        target[1:].copy_(source[1:], non_blocking=True)
    assert target.tolist() == [0, 0]
    event.synchronize()
    assert target.tolist() == [1, 0]  # what came after the event is still to be done
    stream.synchronize()
    assert target.tolist() == [1, 1]


@pytest.mark.parametrize(("waits", "seen"), [(True, 1), (False, 0)])
def test_a_stream_sees_another_ones_work_only_where_it_waits(waits: bool, seen: int) -> None:
    cuda = FakeCuda()
    first, second, event = cuda.Stream(CPU), cuda.Stream(CPU), cuda.Event()
    between, target = torch.zeros(1), torch.zeros(1)
    with cuda.stream(first):
        between.copy_(torch.ones(1))
    first.record_event(event)
    if waits:
        second.wait_event(event)
    with cuda.stream(second):
        target.copy_(between)
    second.synchronize()
    assert target.item() == seen


@pytest.mark.parametrize("inference_mode", [False, True])
def test_what_a_stream_computes_comes_after_what_was_queued_on_it(inference_mode: bool) -> None:
    cuda = FakeCuda()
    stream, target = cuda.Stream(CPU), torch.zeros(2, dtype=torch.uint8)
    with torch.inference_mode(inference_mode), cuda.stream(stream):
        target.copy_(torch.ones(2, dtype=torch.uint8))
        assert target[:1].float().tolist() == [1]


def test_to_wait_for_what_was_never_recorded_is_an_error() -> None:
    cuda = FakeCuda()
    with pytest.raises(AssertionError, match="nobody recorded"):
        cuda.Event().synchronize()
    with pytest.raises(AssertionError, match="nobody recorded"):
        cuda.Stream(CPU).wait_event(cuda.Event())


@torch.inference_mode()
def test_a_graph_reads_and_writes_the_memory_of_its_capture() -> None:
    cuda = FakeCuda()
    stream, graph = cuda.Stream(CPU), cuda.CUDAGraph()
    memory = torch.zeros(3)
    with cuda.graph(graph, stream=stream):
        doubled = memory[:2].float() * 2
        best, places = doubled.clone().add_(1).topk(1)
    memory.copy_(torch.tensor([1.0, 5.0, 9.0]))
    with cuda.stream(stream):
        graph.replay()
    assert (doubled.tolist(), best.item()) == ([0, 0], 1)
    stream.synchronize()
    assert (doubled.tolist(), best.item(), places.item()) == ([2, 10], 11, 1)
