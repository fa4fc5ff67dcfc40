"""Times of a device that was never measured."""

from collections.abc import Mapping

from serve_app.bench.pipeline import Pipeline, Stretch

CPU_LIKE = {1: 9.0, 2: 14.0, 4: 22.0, 8: 40.0, 16: 75.0}
GPU_LIKE = {1: 2.0, 4: 2.2, 16: 3.0, 64: 7.0, 256: 25.0}


def pipeline(device_ms: Mapping[int, float] = CPU_LIKE, decode_ms: float = 3.0) -> Pipeline:
    """Executions of `device_ms[n]` for n images, without any jitter."""
    stretches = {
        size: Stretch(size, size / ms * 1e3, device_ms=[ms] * 20, decode_ms=[decode_ms] * 20)
        for size, ms in device_ms.items()
    }
    return Pipeline(decode_alone_ms=decode_ms, device_alone_ms=device_ms[min(device_ms)], stretches=stretches)
