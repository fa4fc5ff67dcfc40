"""How much of its device a replica would need for what comes in: what decides how many replicas there are to be."""

from dataclasses import asdict, dataclass

WAIT_BATCHES = 4
"""Full batches that an image may have to wait for, where there is no objective to say how long."""


@dataclass(frozen=True)
class Load:
    """Of one replica since the last reading; all without a unit."""

    demand: float
    """Replicas that the traffic would fill, of this kind, if they worked at their best: images that came to the door,
    refused ones too, per second, times the device's time for one in the largest batch that the objective allows, by
    t(n), learned; or times what preparing one takes, if that is more. A device that is always busy with batches of
    one may have a demand of a fifth."""
    full: float
    """Share of the time in which the device ran batches that could not have been larger: busy in earnest."""
    loop: float
    """Share of the time in which the event loop's thread was at work: what a replica on a fast GPU runs out of."""
    delay: float
    """How long an image that came now would wait for the device, over what the objective leaves for that."""

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


class LoadMeter:
    """Counts from one reading to the next: for one reader."""

    def __init__(self) -> None:
        self._read_at: float | None = None
        self._arrivals = 0
        self._full_s = 0.0
        self._loop_s = 0.0

    def arrived(self) -> None:
        """An image came to the door, let in or not, which an idle device could have answered in time."""
        self._arrivals += 1

    def executed_full(self, seconds: float) -> None:
        """The device had a batch for so long that could not have been larger."""
        self._full_s += seconds

    def read(self, now: float, loop_s: float, per_image_s: float, wait_s: float, tolerable_s: float) -> Load:
        """`loop_s`: the loop's thread's CPU time, as a clock; `per_image_s`: what an image takes at least; `wait_s`: an
        image's before the device."""
        elapsed = now - self._read_at if self._read_at is not None else 0.0
        before, arrivals = self._loop_s, self._arrivals
        self._read_at, self._loop_s, self._arrivals = now, loop_s, 0
        delay = wait_s / tolerable_s if tolerable_s > 0 else 0.0
        if elapsed <= 0:  # the first: what ran before it is nobody's
            self._full_s = 0.0
            return Load(0.0, 0.0, 0.0, delay)
        # A batch counts when it ends: what of it was before the last reading is of the next ones.
        full_s, self._full_s = min(self._full_s, elapsed), max(0.0, self._full_s - elapsed)
        return Load(arrivals / elapsed * per_image_s, full_s / elapsed, min(1.0, (loop_s - before) / elapsed), delay)
