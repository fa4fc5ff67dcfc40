"""What a running service's answers tell of its parts: decode, the device by batch size, HTTP."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from serve_app.bench.samples import STAGES, Samples
from serve_app.bench.status import OK

MIN_EXECUTIONS = 3
"""A batch size seen less often is left out: its median would be an accident."""


@dataclass(frozen=True)
class Times:
    """Of one replica with work always at hand, so that each part has met the others on the machine's cores."""

    decode_ms: npt.NDArray[np.float64]
    """float64 (n,): of each image, resize included."""
    http_ms: float
    """Median of what a lone request spends outside decode and device."""
    device_ms: dict[int, npt.NDArray[np.float64]]
    """By images in the execution, ascending: float64 (n,), milliseconds, an entry for each image that was in one."""
    most_per_s: float
    """Answers/s of the best closed loop."""

    def batch_ms(self, batch_size: int) -> float:
        """Median of an execution, between the sizes seen by interpolation; never less than that of a smaller one."""
        return float(np.interp(batch_size, list(self.device_ms), self._rising_ms))

    @cached_property
    def _rising_ms(self) -> npt.NDArray[np.float64]:
        return np.maximum.accumulate([float(np.median(ms)) for ms in self.device_ms.values()])

    def jitter(self) -> npt.NDArray[np.float64]:
        """float64 (n,): executions relative to the median of their size."""
        return np.concatenate([ms / np.median(ms) for ms in self.device_ms.values()])


def times(alone: Samples, loaded: Sequence[Samples], most_per_s: float) -> Times:
    """From closed loops: of one request, of two, then of more and more. Raises ValueError if no answer tells its times.

    Each loop speaks for the batch size that it settled at: a lone image among dozens that are being
    decoded is slower than any that the rate to be predicted will see. Of decode the first loop speaks, in
    which no image waits for a thread. Of a lone image on the device the loops of two and four requests
    speak, the slower one: beside others that are decoded on the same cores it took 7.5 ms and not 2.8, and a
    rate predicted with the 2.8 (110/s of the bundled digits, on two cores) was more than the service could do.
    """
    told = [_told(samples) for samples in (alone, *loaded)]
    every = [samples for samples in told if len(samples.status)]
    if not every:
        raise ValueError("no answer tells its times")
    device_ms: dict[int, npt.NDArray[np.float64]] = {}
    for samples in every:
        size = int(np.bincount(samples.batch_size.astype(int)).argmax())
        ms = samples.stages_ms[samples.batch_size == size, STAGES.index("device")]
        if len(ms) >= MIN_EXECUTIONS * size:
            device_ms[size] = np.concatenate([device_ms.get(size, np.empty(0)), ms])
    beside = [samples.stages_ms[samples.batch_size == 1, STAGES.index("device")] for samples in told[1:3]]
    if seen := [ms for ms in beside if len(ms) >= MIN_EXECUTIONS]:
        device_ms[1] = max(seen, key=np.median)
    if not device_ms:
        raise ValueError("too few answers for any batch size")
    whole_ms = (every[0].done_s - every[0].sent_s) * 1e3
    return Times(
        decode_ms=every[0].stages_ms[:, STAGES.index("decode")],
        http_ms=float(np.median(whole_ms - every[0].stages_ms.sum(axis=1))),
        device_ms=dict(sorted(device_ms.items())),
        most_per_s=most_per_s,
    )


def _told(samples: Samples) -> Samples:
    samples = samples.counted()
    return samples.only((samples.status == OK) & ~np.isnan(samples.stages_ms).any(axis=1))
