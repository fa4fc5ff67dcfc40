"""An event under load: quiet first, then it happens, and from then on Ray is asked until full capacity is back."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from serve_app.bench.faults.event import Done, Event, Stage, is_whole
from serve_app.bench.faults.outcome import Moments, Outcome, outcome
from serve_app.bench.generator import Generator, Run
from serve_app.bench.serve_api import ServeApiError

QUIET_S = 5.0
"""Before the event."""
LOOK_S = 0.5
"""Between two looks at Ray's state; each costs its head some milliseconds."""
RECOVERY_TIMEOUT_S = 240.0


class NotInForce(RuntimeError):
    """What was to be borne was never seen to be there, so that it was borne says nothing."""


@dataclass
class Watch:
    """Brings the event about when its time has come, then looks."""

    stage: Stage
    event: Event
    done: Done | None = None
    mended: float | None = None
    full: float | None = None
    fewest_replicas: int = field(init=False)
    wrong_weights: set[str] = field(default_factory=set)
    was_in_force: bool = False
    """What is to be mended."""
    _looked: float = 0.0

    def __post_init__(self) -> None:
        self.fewest_replicas = len(self.stage.before.running)

    @property
    def replicas(self) -> int:
        """As many as there are to be."""
        return int(self.stage.content["applications"][0]["deployments"][0]["num_replicas"])

    def look(self, seconds: float) -> None:
        """`seconds` since the run began."""
        if self.done is None:
            if seconds >= QUIET_S:
                self.done = self.event.act(self.stage)
        elif self.is_to_be_mended and seconds >= QUIET_S + self.event.mended_after_s:
            self.mend()
        elif time.monotonic() >= self._looked + LOOK_S:
            self._ask(self.done)
            self._looked = time.monotonic()

    @property
    def is_to_be_mended(self) -> bool:
        return self.done is not None and self.done.mend is not None and self.mended is None

    def mend(self) -> None:
        if self.done is not None and self.done.mend is not None and self.mended is None:
            self._inspect(self.done)
            self.mended = time.monotonic()
            self.done.mend()

    def _inspect(self, done: Done) -> None:
        with suppress(OSError):  # who does not answer, answers nothing wrong
            self.wrong_weights |= done.wrong_weights()
        with suppress(OSError):
            self.was_in_force = self.was_in_force or (self.is_to_be_mended and done.was_in_force())

    def _ask(self, done: Done) -> None:
        self._inspect(done)
        try:
            state = self.stage.cluster.serve.state()
            back = is_whole(state, self.replicas) and done.recovered(state)
        except (ServeApiError, OSError, KeyError):
            return  # what does not answer is not back
        deployment = self.stage.deployment(state)
        if deployment.replicas:  # Ray lists none while a new version is being built, though they serve
            self.fewest_replicas = min(self.fewest_replicas, deployment.num_serving)
        # Not the first time that it looked well, but the one from which on it was.
        self.full = (self.full or time.monotonic()) if back and not self.is_to_be_mended else None


def play(generator: Generator, run: Run, watch: Watch, on_progress: Callable[[float], None]) -> Outcome:
    """`run` says what to send; its duration is the event's.

    Raises NotInForce, GeneratorError, ClusterError, ServeApiError, and whatever the event does.
    """
    start = 0.0

    def look(seconds: float) -> None:
        nonlocal start
        start = time.monotonic() - seconds
        on_progress(seconds)
        watch.look(seconds)

    try:
        samples, _ = generator.run(run, look)
        deadline = time.monotonic() + RECOVERY_TIMEOUT_S
        while watch.full is None and time.monotonic() < deadline:
            look(time.monotonic() - start)
            time.sleep(LOOK_S)
    finally:
        watch.mend()
    done = watch.done
    if done is None:
        raise ValueError(f"a run of {run.duration_s:g} s has no time for an event after {QUIET_S:g} s")
    full_s = None if watch.full is None else watch.full - start
    mended_s = None if watch.mended is None else watch.mended - start
    moments = Moments(done.began - start, done.ended - start, full_s, mended_s)
    found = outcome(samples, run.duration_s, moments, done.in_flight, watch.fewest_replicas, watch.wrong_weights)
    if done.mend is not None and not watch.was_in_force and found.holds(watch.event.bar):
        raise NotInForce(f"in {watch.event.mended_after_s:g} s it was not seen to be in force")
    return found
