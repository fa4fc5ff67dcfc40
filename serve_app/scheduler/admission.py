"""The door: an image comes in if, by the queue and t(n), it will be answered in time."""

import math
from typing import Generic, TypeVar

from serve_app.errors import Overloaded, QueueFull
from serve_app.scheduler.queue import LOWER_SHARE, Priority, Queue, Terms
from serve_app.scheduler.times import BatchTimes, Estimate

Item = TypeVar("Item")

MARGIN = 0.15
"""Of a request's time, what is kept back: for its answer's way out, and for what the prediction misses."""
PROBE_INTERVAL_S = 0.25
"""How often an idle device takes an image for which it is predicted to be too slow, though at its best it would
not be: a prediction that is never tried is never corrected."""


class Admission(Generic[Item]):
    """Judges by what is in `queue`; the caller says how much the device takes at once, and when it is free."""

    def __init__(self, queue: Queue[Item], times: BatchTimes, num_preparers: int) -> None:
        self._queue = queue
        self._times = times
        self._num_preparers = num_preparers
        self._last_probe = -math.inf
        self.preparation = Estimate(quantile=0.5)
        """Seconds of one preparer's work for an image (its decoding), told by whoever does it. The median: a few
        large images must not shut out the others."""

    @property
    def preparation_share_s(self) -> float:
        """Seconds for each image, with every preparer at work."""
        return self.preparation.value / self._num_preparers

    def check(
        self, terms: Terms, max_queue_size: int, limit: int, busy_until: float | None, now: float, way_s: float = 0.0
    ) -> bool:
        """Raise QueueFull or Overloaded if one more image of these terms is not to come in.

        True if it is let in only to try the prediction. `busy_until`: None for a device that is idle. `way_s`: what it
        waits for besides its preparation and the device.

        Half of the queue is open to the lower priority. No image comes in that would make one late that
        is in already and has the same priority.
        """
        free_at = _free_at(busy_until, now)
        ahead, finish = self._finish(terms, limit, free_at, now)
        if self._is_full(terms.priority, max_queue_size):
            raise QueueFull(f"{len(self._queue)} images wait already: try again later", finish - now)
        late = finish + way_s - (terms.deadline - MARGIN * (terms.deadline - now))
        if math.isfinite(terms.deadline) and late > 0:
            if busy_until is None and self._may_probe(terms, now):
                return True
            raise Overloaded(self._too_late(terms, late, now), late)
        if self._delays_another(terms, ahead, limit, free_at, now):
            raise Overloaded("others with later deadlines would miss theirs: try again later", finish - now)
        return False

    def wait_s(self, limit: int, busy_until: float | None, now: float) -> float:
        """How long an image that came now, behind all of its priority, would wait until the device begins with it."""
        _, finish = self._finish(Terms(), limit, _free_at(busy_until, now), now)
        return finish - now - self._times.predict(min(limit, len(self._queue) + 1), now)

    def is_possible(self, terms: Terms, now: float) -> bool:
        """Whether an idle device would answer it in time."""
        return self._alone(now) <= (1 - MARGIN) * (terms.deadline - now)

    def probed(self, now: float) -> None:
        """An image came in to try the prediction: the next one may only after a while."""
        self._last_probe = now

    def _is_full(self, priority: Priority, max_queue_size: int) -> bool:
        if len(self._queue) >= max_queue_size:
            return True
        return priority is Priority.BATCH and len(self._queue.of(priority)) >= max(1, max_queue_size // 2)

    def _may_probe(self, terms: Terms, now: float) -> bool:
        reachable = now + self._times.best(1) < terms.deadline
        return reachable and not len(self._queue) and now - self._last_probe >= PROBE_INTERVAL_S

    def _alone(self, now: float) -> float:
        return self.preparation.value + self._times.predict(1, now)

    def _too_late(self, terms: Terms, late: float, now: float) -> str:
        if not self.is_possible(terms, now):
            return f"an image alone takes {self._alone(now):.3f} s: allow more time"
        return f"the queue is {late:.3f} s too long for this deadline: try again later, or allow more time"

    def _places(self, priority: Priority, limit: int) -> float:
        """In a full batch, for images of this priority, while the other one has images waiting too."""
        if len(self._queue) == len(self._queue.of(priority)):
            return limit
        return limit * (LOWER_SHARE if priority is Priority.BATCH else 1 - LOWER_SHARE)

    def _finish(self, terms: Terms, limit: int, free_at: float, now: float) -> tuple[int, float]:
        """How many are ahead of it, and when the device would be done with it, if nothing came after."""
        mine = self._queue.of(terms.priority)
        ahead = self._queue.ahead(terms)
        batches = math.ceil((ahead + 1) / self._places(terms.priority, limit))
        if terms.priority is Priority.BATCH:
            others = len(self._queue) - len(mine)
            batches = min(batches, math.ceil((ahead + others + 1) / limit))
        size = min(limit, len(self._queue) + 1)
        prepared_at = now + self.preparation.value * (1 + self._unprepared(terms.priority) / self._num_preparers)
        started_at = max(free_at + (batches - 1) * self._times.predict(limit, now), prepared_at)
        return ahead, started_at + self._times.predict(size, now)

    def _unprepared(self, priority: Priority) -> int:
        """Images that are prepared before it: of the lower priority no more at once than there are preparers."""
        lower = self._queue.unprepared(Priority.BATCH)
        if priority is Priority.INTERACTIVE:
            lower = min(lower, self._num_preparers)
        return self._queue.unprepared(Priority.INTERACTIVE) + lower

    def _delays_another(self, terms: Terms, ahead: int, limit: int, free_at: float, now: float) -> bool:
        """Whether an image behind it would move to a later batch, and miss its deadline for that."""
        mine, full = self._queue.of(terms.priority), self._times.predict(limit, now)
        places = self._places(terms.priority, limit)
        for batches in range(math.floor(ahead / places) + 1, math.floor(len(mine) / places) + 1):
            pushed = mine[max(0, math.floor(batches * places) - 1)].terms.deadline
            if free_at + batches * full <= pushed < free_at + (batches + 1) * full:
                return True
        return False


def _free_at(busy_until: float | None, now: float) -> float:
    """What is overdue will take as long again, for all one knows: a device that hangs soon lets nobody in."""
    return now if busy_until is None else max(busy_until, 2 * now - busy_until)
