"""What this GPU can do at most: copying its memory, and multiplying matrices."""

from collections.abc import Callable, Iterator

import torch

from serve_app.bench import isolated
from serve_app.bench.gpu_report.line import Line, of_repeats
from serve_app.bench.gpu_report.task import Context

SECTION = 1
COPIED_BYTES = 4 << 30
SIDE = 8192
WARM_UPS, RUNS = 3, 10


def run(context: Context) -> Iterator[Line]:
    context.needs_gpu()
    device, repeats = context.subject.device, context.scale.repeats
    found = dict(isolated.stream(_measure, device, repeats, limit_s=context.limit_s))
    copy = Line(SECTION, "copy within the GPU's memory", unit="GB/s", note="read and written; an H200: 4,300")
    yield of_repeats(copy, found["copy"])
    product = Line(SECTION, f"bf16 product of two {SIDE} x {SIDE} matrices", unit="TFLOP/s", note="an H200: 790")
    yield of_repeats(product, found["product"])


def _measure(device: str, repeats: int) -> Iterator[tuple[str, list[float]]]:
    torch.cuda.set_device(device)
    yield "copy", [2 * COPIED_BYTES / s / 1e9 for s in _copies(device, repeats)]
    yield "product", [2 * SIDE**3 / s / 1e12 for s in _products(device, repeats)]


def _copies(device: str, repeats: int) -> list[float]:
    """Seconds of one, by repeat."""
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return [_seconds(lambda: target.copy_(source)) for _ in range(repeats)]


def _products(device: str, repeats: int) -> list[float]:
    # Random: zeros draw less power, and are multiplied an eighth faster.
    a, b = (torch.randn(SIDE, SIDE, device=device).bfloat16() for _ in range(2))
    return [_seconds(lambda: a @ b) for _ in range(repeats)]


def _seconds(run: Callable[[], object]) -> float:
    """Of one `run()`, by the device's clock."""
    for _ in range(WARM_UPS):
        run()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(RUNS):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / RUNS
