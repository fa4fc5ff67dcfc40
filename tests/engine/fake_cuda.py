"""What `serve_app.engine.cuda` uses of torch.cuda, on the CPU.

A stream is as late as it may be: what is queued on it runs when somebody waits for it, in whatever thread. Where an
event or a wait is missing, a copy is read before it was made, or overwritten after it was queued. New memory is dirty.
A graph computes with what lies in the memory of its capture, and writes its results into that memory.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from serve_app.engine import cuda

COPY = torch.ops.aten.copy_.default
TO = torch.ops.aten.to
DIRT = 77
TOTAL_MEMORY = 64 << 30

_device = threading.RLock()  # streams run in whichever thread waits for them
_current = threading.local()


def install(monkeypatch: pytest.MonkeyPatch) -> "FakeCuda":
    fake = FakeCuda()
    monkeypatch.setattr(cuda, "torch", FakeTorch(fake))
    return fake


class FakeStream:
    def __init__(self) -> None:
        self._work: deque[Callable[[], object]] = deque()
        self._queued = self._done = 0

    def enqueue(self, work: Callable[[], object]) -> int:
        """Its place, for `run`."""
        with _device:
            self._work.append(work)
            self._queued += 1
            return self._queued

    def run(self, until: int) -> None:
        with _device:
            while self._done < until:
                self._done += 1
                self._work.popleft()()

    def synchronize(self) -> None:
        self.run(self._queued)

    def record_event(self, event: "FakeEvent") -> None:
        event.record(self)

    def wait_event(self, event: "FakeEvent") -> None:
        self.enqueue(event.what_was_recorded())


class FakeEvent:
    """Stricter than CUDA's: to wait for what was never recorded is an error, not nothing."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        self.blocking = blocking
        self.waits = 0
        self._enable_timing = enable_timing
        self._recorded: Callable[[], None] | None = None
        self._passed_at = math.nan

    def record(self, stream: FakeStream) -> None:
        self._passed_at = math.nan
        self._recorded = partial(stream.run, stream.enqueue(self._pass))

    def what_was_recorded(self) -> Callable[[], None]:
        assert self._recorded is not None, "an event that nobody recorded"
        return self._recorded

    def synchronize(self) -> None:
        self.waits += 1
        self.what_was_recorded()()

    def elapsed_time(self, end: "FakeEvent") -> float:
        assert self._enable_timing
        assert end._enable_timing
        elapsed = (end._passed_at - self._passed_at) * 1e3
        assert not math.isnan(elapsed), "one of the events has not been waited for"
        return elapsed

    def _pass(self) -> None:
        self._passed_at = perf_counter()


class FakeGraph(TorchDispatchMode):
    """While it is entered, it records what torch executes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._operations.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        _current.stream.enqueue(self.run)

    @torch.inference_mode()
    def run(self) -> None:
        for func, args, kwargs, captured in self._operations:
            for new, old in zip(_tensors(func(*args, **kwargs)), _tensors(captured), strict=True):
                # A view, or a result in place, has the memory of its input, which is up to date.
                if new.untyped_storage().data_ptr() != old.untyped_storage().data_ptr():
                    old.copy_(new)


class FakeCuda:
    """`torch.cuda`, with what a test sets and what it looks at."""

    CUDAGraph = FakeGraph

    def __init__(self) -> None:
        self.native_bf16 = True
        self.largest_allocation = math.inf
        """In bytes: more is out of memory."""
        self.memory_shares: list[float] = []
        self.captures: list[dict[str, object]] = []
        self.events: list[FakeEvent] = []
        self.emptied = 0
        """How often unused memory was given back."""
        self._streams: list[FakeStream] = []

    def Stream(self, device: torch.device) -> FakeStream:
        self._streams.append(FakeStream())
        return self._streams[-1]

    def Event(self, **options: bool) -> FakeEvent:
        self.events.append(FakeEvent(**options))
        return self.events[-1]

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before = getattr(_current, "stream", None)
        _current.stream = stream
        try:
            with _Queued(stream):
                yield
        finally:
            _current.stream = before

    @contextmanager
    def graph(self, graph: FakeGraph, stream: FakeStream, **options: object) -> Iterator[None]:
        self.captures.append({"stream": stream, **options})
        self.synchronize()
        with graph:
            yield

    def synchronize(self, device: torch.device | None = None) -> None:
        for stream in self._streams:
            stream.synchronize()

    def is_bf16_supported(self, including_emulation: bool) -> bool:
        assert not including_emulation, "emulated bf16 is slower than fp32"
        return self.native_bf16

    def get_device_properties(self, device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(total_memory=TOTAL_MEMORY)

    def set_per_process_memory_fraction(self, fraction: float, device: torch.device) -> None:
        self.memory_shares.append(fraction)

    def graph_pool_handle(self) -> object:
        return object()

    def empty_cache(self) -> None:
        self.emptied += 1

    def current_device(self) -> int:
        return 0

    def set_device(self, device: torch.device) -> None:
        assert device == torch.device("cpu")


class FakeTorch:
    """`torch`, whose only device is the CPU."""

    def __init__(self, fake: FakeCuda) -> None:
        self.cuda = fake

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def device(self, *_: object) -> torch.device:
        return torch.device("cpu")

    def empty(self, *shape: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        tensor = torch.empty(*shape, **options).fill_(DIRT)
        return tensor if pin_memory else self._allocated(tensor)

    def zeros(self, *shape: Any, **options: Any) -> torch.Tensor:
        return self._allocated(torch.zeros(*shape, **options))

    def _allocated(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.nbytes > self.cuda.largest_allocation:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {tensor.nbytes} bytes")
        return tensor


class _Queued(TorchDispatchMode):
    """Copies go to the end of the stream, views are of no concern to it, and all else waits for it."""

    def __init__(self, stream: FakeStream) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stream = stream

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is COPY:
            self._stream.enqueue(partial(func, *args, **(kwargs or {})))
            return args[0]
        # In inference mode torch calls `to` a view, which it is not where it converts.
        if not func.is_view or func.overloadpacket is TO:
            self._stream.synchronize()
        return func(*args, **(kwargs or {}))


def _tensors(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)
