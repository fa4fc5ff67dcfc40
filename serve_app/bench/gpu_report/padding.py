"""What rounding a batch up to the next bucket costs, by the measured time of each batch size."""

from collections.abc import Mapping, Sequence

import numpy as np

from serve_app.bench.forward import doublings
from serve_app.bench.gpu_report.line import Line
from serve_app.config import default_buckets

SECTION = 4


def lines(bucket_ms: Mapping[int, float]) -> list[Line]:
    """For powers of two and for the default buckets, where `bucket_ms`, milliseconds by batch size, is known."""
    most = max(bucket_ms, default=1)
    found = []
    for name, buckets in (("powers of two", doublings(most)), ("the default buckets", default_buckets(most))):
        what = f"padding to {name}"
        if not bucket_ms:
            found.append(Line(SECTION, what, unit="%", reason="the time of each batch size is not known"))
            continue
        padded_ms, exact_ms = mean_ms(bucket_ms, buckets, most), mean_ms(bucket_ms, range(1, most + 1), most)
        note = f"{padded_ms:.2f} over {exact_ms:.2f} ms, the means of batches of 1 to {most}; {len(buckets)} buckets"
        found.append(Line(SECTION, what, 100 * (padded_ms / exact_ms - 1), "%", note=note))
    return found


def mean_ms(bucket_ms: Mapping[int, float], buckets: Sequence[int], most: int) -> float:
    """Milliseconds of a batch whose size is drawn uniformly from 1 to `most`, padded to the next of `buckets`.

    Between measured sizes by interpolation, and never less than a smaller one takes.
    """
    sizes = sorted(bucket_ms)
    rising = np.maximum.accumulate([bucket_ms[size] for size in sizes])
    padded = [next(bucket for bucket in buckets if bucket >= size) for size in range(1, most + 1)]
    return float(np.interp(padded, sizes, rising).mean())
