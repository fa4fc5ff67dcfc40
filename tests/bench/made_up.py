"""Times of a service that was never measured."""

from collections.abc import Mapping

import numpy as np

from serve_app.bench.times import Times

CPU_LIKE = {1: 9.0, 2: 14.0, 4: 22.0, 8: 40.0, 16: 75.0}
GPU_LIKE = {1: 2.0, 4: 2.2, 16: 3.0, 64: 7.0, 256: 25.0}
HTTP_MS = 4.0


def times(device_ms: Mapping[int, float] = CPU_LIKE, decode_ms: float = 3.0, most_per_s: float = 2000.0) -> Times:
    """Executions of `device_ms[n]` for n images, without any jitter."""
    by_size = {size: np.full(20 * size, ms) for size, ms in device_ms.items()}
    return Times(np.full(20, decode_ms), HTTP_MS, by_size, most_per_s)
