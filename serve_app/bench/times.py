"""What a running service's answers tell of its parts: decode, the device by batch size, HTTP."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serve_app.bench.samples import OK, STAGES, Samples

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
        medians = np.maximum.accumulate([float(np.median(ms)) for ms in self.device_ms.values()])
        return float(np.interp(batch_size, list(self.device_ms), medians))

    def jitter(self) -> npt.NDArray[np.float64]:
        """float64 (n,): executions relative to the median of their size."""
        return np.concatenate([ms / np.median(ms) for ms in self.device_ms.values()])


def times(alone: Samples, loaded: Sequence[Samples], most_per_s: float) -> Times:
    """From a closed loop of one request, and from others. Raises ValueError if no answer tells its times."""
    every = [_told(samples) for samples in (alone, *loaded)]
    decode, device = STAGES.index("decode"), STAGES.index("device")
    sizes = np.concatenate([samples.batch_size for samples in every])
    stages_ms = np.concatenate([samples.stages_ms for samples in every])
    if not len(every[0].status):
        raise ValueError("no answer tells its times")
    whole_ms = (every[0].done_s - every[0].sent_s) * 1e3
    by_size = {int(size): stages_ms[sizes == size, device] for size in np.unique(sizes)}
    return Times(
        decode_ms=stages_ms[:, decode],
        http_ms=float(np.median(whole_ms - every[0].stages_ms.sum(axis=1))),
        device_ms={size: ms for size, ms in by_size.items() if len(ms) >= MIN_EXECUTIONS * size},
        most_per_s=most_per_s,
    )


def _told(samples: Samples) -> Samples:
    samples = samples.counted()
    return samples.only((samples.status == OK) & ~np.isnan(samples.stages_ms).any(axis=1))
