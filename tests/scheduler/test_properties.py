"""What holds whatever arrives, whenever it arrives and whatever the device does; and two rushes, in virtual time."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.config import default_buckets
from serve_app.errors import DeadlineExceeded, DeviceStalled, Overloaded, QueueFull, RequestError, UnreadableImage
from serve_app.scheduler import Place, Policy, Priority, Scheduler, Terms, admission
from tests.scheduler.fakes import Counts
from tests.scheduler.virtual_clock import VirtualClockLoop, run

EPSILON_S = 1e-8
"""Timers fire up to the clock's resolution early."""
LARGEST = 16


class Poison(Exception):
    """An image that the device cannot work on."""


class WatchedLoop(VirtualClockLoop):
    """Asks `before_advance` whether all is well each time that nothing more happens without the clock moving."""

    before_advance: Callable[[float], None] | None = None
    _time = 0.0

    @property
    def now(self) -> float:
        return self._time

    @now.setter
    def now(self, then: float) -> None:
        if self.before_advance is not None and then > self._time:
            judge, self.before_advance = self.before_advance, None
            judge(then)
            self.before_advance = judge  # if all is well: else what is left may end
        self._time = then


@dataclass(frozen=True)
class Arrival:
    at_s: float
    batch: bool
    budget_s: float | None
    prepare_s: float
    poison: bool
    unreadable: bool
    """The device's answer is a RequestError."""
    cancel_after_s: float | None
    leaves_with_a_batch: bool
    """Its caller leaves in the very turn in which a batch ends."""


@dataclass(frozen=True)
class Scenario:
    policies: Sequence[Policy]
    """The first from the beginning, the others after a while each."""
    configure_every_s: float
    base_s: float
    per_image_s: float
    told_factor: float
    device: Sequence[float]
    """Factors of each batch's time, in turn."""
    stalls: Mapping[int, float]
    """Seconds that a certain batch takes instead."""
    memory: int
    """Larger batches fail as a whole."""
    poison_fails_batch: bool
    says_started: bool
    max_in_flight: int
    arrivals: Sequence[Arrival]


@dataclass(eq=False)
class Image:
    """What the test knows of an image, independently of the scheduler."""

    number: int
    arrival: Arrival
    terms: Terms
    task: "asyncio.Task[None] | None" = None
    place: Place[int] | None = None
    admitted_at: float = math.inf
    ready_at: float | None = None
    cancelled: int | None = None
    """Which event it was that its caller left."""
    cancelled_at: float = math.inf
    released: int | None = None
    """Which event its batch's release was."""
    outcomes: list[int | type[BaseException]] = field(default_factory=list)
    answered_at: float = math.inf

    @property
    def order(self) -> tuple[float, int]:
        assert self.place is not None
        return self.terms.deadline, self.place.number

    @property
    def outcome(self) -> int | type[BaseException]:
        [outcome] = self.outcomes
        return outcome

    @property
    def result(self) -> int | Exception:
        """What the device says to it."""
        if self.arrival.poison:
            return Poison()
        return UnreadableImage("unreadable") if self.arrival.unreadable else self.number * 10

    def waits(self) -> bool:
        """It could go to the device."""
        return self.ready_at is not None and self.released is None and self.cancelled is None and not self.outcomes

    def is_late(self, now: float) -> bool:
        """Its time is over, or this is the moment."""
        return self.place is not None and self.place.latest_start <= now + EPSILON_S


@dataclass
class Release:
    """What was known when an image was released."""

    event: int
    ready: list[Image]
    limit: int
    predicted: Mapping[int, float]
    now: float
    waited_s: float


@dataclass(eq=False)
class Flight:
    """A batch that comes to the device, or part of one that failed."""

    batch: list[Image]
    released: int
    """Which event that was."""
    predicted_s: float
    came_at: float
    behind_s: float
    """What was predicted for those before it."""
    begun_at: float = math.inf
    ended: float = math.inf
    """Which event that was."""


class World(Counts):
    """Runs a scenario, and judges everything that the scheduler does in it."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__()
        self.scenario = scenario
        self.policy = scenario.policies[0]
        self.scheduler: Scheduler[int, int] = Scheduler(
            self.execute, self.policy, self, max_in_flight=scenario.max_in_flight
        )
        self.images: list[Image] = []
        self.events = 0
        self.releases: list[Release] = []  # of each image whose batch has not come to the device yet
        self.released_images = self.attempts = self.clean_attempts = self.whole_failures = 0
        self.flights: list[Flight] = []  # all that ever came
        self.works = asyncio.Lock()
        self.own_s = 0.0
        """What the last batch took by itself."""
        self.refusals: Counter[str] = Counter()
        self.findings: list[AssertionError] = []

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def event(self) -> int:
        self.events += 1
        return self.events

    def configure(self, policy: Policy) -> None:
        self.policy = policy
        buckets = default_buckets(policy.max_batch_size)
        seconds = {n: self.seconds(n) * self.scenario.told_factor for n in buckets}
        self.scheduler.configure(policy, buckets, seconds)

    def seconds(self, n: int) -> float:
        return self.scenario.base_s + self.scenario.per_image_s * n

    def limit(self) -> int:
        """By the specification."""
        policy, times = self.policy, self.scheduler.times
        largest = min(policy.max_batch_size, self.scheduler.isolation.limit or policy.max_batch_size)
        if policy.latency_slo_s is None:
            return largest
        sizes = range(1, largest + 1)
        return max((n for n in sizes if 2 * times.predict(n, self.now) <= 0.9 * policy.latency_slo_s), default=1)

    # --- the device ----------------------------------------------------------------------------------

    def queued(self, seconds: float) -> None:
        super().queued(seconds)
        predicted = {n: self.scheduler.times.predict(n, self.now) for n in range(1, LARGEST + 1)}
        ready = [image for image in self.images if image.waits()]
        self.releases.append(Release(self.event(), ready, self.limit(), predicted, self.now, seconds))

    def executed(self, bucket: int, predicted_s: float, actual_s: float) -> None:
        super().executed(bucket, predicted_s, actual_s)
        if actual_s != pytest.approx(self.own_s, abs=EPSILON_S):
            self.findings.append(AssertionError(f"took {self.own_s} s by itself, learnt {actual_s} s"))

    def in_flight(self, event: float = math.inf) -> list[Flight]:
        """What was released before that event, and not done then; in order."""
        return [flight for flight in self.flights if flight.released < event <= flight.ended]

    async def execute(self, numbers: list[int]) -> Sequence[int | BaseException]:
        flight = None
        try:
            flight = self.comes([self.images[number] for number in numbers])
            if self.scenario.says_started:
                self.scheduler.started()
            async with self.works:
                return await self.work(flight)
        except AssertionError as finding:  # to the scheduler it is one more batch that fails
            self.findings.append(finding)
            raise
        finally:
            if flight is not None:
                flight.ended = self.event()

    def comes(self, batch: list[Image]) -> Flight:
        predicted_s = self.scheduler.times.predict(len(batch), self.now)
        behind_s = sum(flight.predicted_s for flight in self.in_flight())
        if batch[0].released is None:
            of_batch, self.releases = self.releases[: len(batch)], self.releases[len(batch) :]
            self.judge(of_batch, batch)
            released = of_batch[0].event
        else:  # part of a batch that failed
            assert all(image.released is not None and image.cancelled is None for image in batch)
            released = self.event()
        self.flights.append(Flight(batch, released, predicted_s, self.now, behind_s))
        assert len(self.in_flight()) <= self.scenario.max_in_flight
        return self.flights[-1]

    async def work(self, flight: Flight) -> Sequence[int | BaseException]:
        batch, flight.begun_at = flight.batch, self.now
        factors = self.scenario.device
        self.own_s = self.seconds(len(batch)) * factors[self.attempts % len(factors)]
        self.own_s = self.scenario.stalls.get(self.attempts, self.own_s)
        hangs_from = max(flight.begun_at, flight.came_at + flight.behind_s) + max(10.0, 20 * flight.predicted_s)
        await asyncio.sleep(self.own_s)
        for image in (image for there in self.in_flight() for image in there.batch):
            hung = self.now > hangs_from + EPSILON_S and image.cancelled_at > hangs_from
            assert not hung or image.outcome is DeviceStalled
        self.attempts += 1
        for image in self.images:
            if image.arrival.leaves_with_a_batch:
                self.leave(image)
        poisoned = [image.arrival.poison for image in batch]
        failed = len(batch) > self.scenario.memory or (self.scenario.poison_fails_batch and any(poisoned))
        self.whole_failures += len(batch) > 1 and (failed or all(poisoned))
        if len(batch) > self.scenario.memory:
            raise MemoryError
        if failed:
            raise Poison
        self.clean_attempts += not any(poisoned)
        return [image.result for image in batch]

    def judge(self, releases: list[Release], batch: list[Image]) -> None:
        """Whether this batch is what the specification wants."""
        release = releases[0]
        assert 1 <= len(batch) <= release.limit
        earliest = min(image.terms.deadline for image in batch)
        begins = self.judge_in_flight(release, batch)
        assert len(batch) == 1 or begins + release.predicted[len(batch)] <= earliest + EPSILON_S
        assert len(set(batch)) == len(batch)
        for image in batch:
            assert image in release.ready
            assert image.released is None
            assert image.place is not None
            assert release.now <= image.place.latest_start + EPSILON_S
            image.released = release.event
            self.released_images += 1
        left = [image for image in release.ready if image.released is None and not image.is_late(release.now)]
        for image in left:
            assert all(image.order > taken.order for taken in batch if taken.terms.priority is image.terms.priority)
        has_deadline = any(math.isfinite(image.terms.deadline) for image in release.ready)
        assert not left or len(batch) == release.limit or has_deadline
        expected_waits = sorted(release.now - (image.ready_at or 0.0) for image in batch)
        assert sorted(of_image.waited_s for of_image in releases) == pytest.approx(expected_waits)

    def judge_in_flight(self, release: Release, batch: list[Image]) -> float:
        """Whether it could be released beside those that were on the device; when that was to begin with it."""
        ahead = self.in_flight(release.event)
        if not ahead:
            return release.now
        assert len(ahead) < self.scenario.max_in_flight
        assert len(batch) == release.limit
        first, *others = ahead
        first_ends = max(release.now, min(first.begun_at, release.now) + first.predicted_s)
        begins = first_ends + sum(flight.predicted_s for flight in others)
        earliest = min(image.terms.deadline for image in batch)
        assert begins + release.predicted[len(batch)] <= earliest + EPSILON_S
        return begins

    def before_advance(self, then: float) -> None:
        """Nothing more happens at this instant: is nobody kept waiting who should not be?"""
        now = self.now
        for image in self.images:
            if image.place is not None and image.released is None and not image.outcomes:
                assert image.place.latest_start > now - EPSILON_S
        ready = [image for image in self.images if image.waits() and not image.is_late(now)]
        assert not (self.scheduler.stalled and ready)
        assert not self.releases
        if not ready:
            return
        if in_flight := len(self.in_flight()):
            has_deadline = any(math.isfinite(image.terms.deadline) for image in self.images)
            is_full = len(ready) >= self.policy.max_batch_size
            assert not is_full or in_flight == self.scenario.max_in_flight or has_deadline
            return
        assert self.policy.batch_wait_timeout_s
        assert len(ready) < self.policy.max_batch_size
        oldest = min(image.ready_at or 0.0 for image in ready)
        assert then <= oldest + self.policy.batch_wait_timeout_s + EPSILON_S

    # --- the callers ---------------------------------------------------------------------------------

    async def call(self, arrival: Arrival) -> None:
        await asyncio.sleep(arrival.at_s)
        deadline = math.inf if arrival.budget_s is None else self.now + arrival.budget_s
        terms = Terms(deadline, Priority.BATCH if arrival.batch else Priority.INTERACTIVE)
        image = Image(len(self.images), arrival, terms)
        self.images.append(image)
        image.task = task = asyncio.create_task(self.ask(image))
        if arrival.cancel_after_s is not None:
            asyncio.get_running_loop().call_later(arrival.cancel_after_s, self.leave, image)
        await asyncio.wait([task])
        if task.cancelled():  # it left before it had asked
            image.outcomes.append(asyncio.CancelledError)
        else:
            task.result()

    def leave(self, image: Image) -> None:
        if image.task is not None and image.cancelled is None and not image.outcomes:
            image.cancelled, image.cancelled_at = self.event(), self.now
            image.task.cancel()

    async def ask(self, image: Image) -> None:
        before = len(self.scheduler)
        try:
            async with self.scheduler.admitted(image.terms) as place:
                image.place, image.admitted_at = place, self.now
                self.judge_admission(image, before)
                if image.arrival.prepare_s:
                    await asyncio.sleep(image.arrival.prepare_s)
                image.ready_at = self.now
                answer = await self.scheduler.execute(place, image.number)
                image.outcomes.append(answer.result)
        except (RequestError, Poison, asyncio.CancelledError) as error:
            image.outcomes.append(type(error))
            if isinstance(error, RequestError) and image.place is None:
                self.judge_refusal(image, error, before)
        image.answered_at = self.now

    def judge_refusal(self, image: Image, error: RequestError, before: int) -> None:
        assert len(self.scheduler) == before
        if isinstance(error, DeadlineExceeded):  # it had passed already
            assert image.terms.deadline <= self.now
            return
        self.refusals[error.code] += 1
        if isinstance(error, Overloaded):
            assert math.isfinite(image.terms.deadline)
            assert error.retry_after_s is not None
            assert error.retry_after_s > 0

    def judge_admission(self, image: Image, before: int) -> None:
        assert not self.scheduler.stalled
        assert len(self.scheduler) == before + 1
        assert image.place is not None
        if image.terms.priority is Priority.INTERACTIVE:
            assert len(self.scheduler) <= self.policy.max_queue_size
        latest_start = image.terms.deadline - self.scheduler.times.predict(1, self.now)
        is_tried = latest_start < self.now + admission.MARGIN * (image.terms.deadline - self.now)
        assert image.place.latest_start == latest_start or is_tried

    # --- all of it -----------------------------------------------------------------------------------

    async def live(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, WatchedLoop)
        loop.before_advance = self.before_advance
        loop.set_exception_handler(lambda _, context: self.findings.append(AssertionError(context)))
        self.configure(self.scenario.policies[0])
        for step, policy in enumerate(self.scenario.policies[1:], start=1):
            loop.call_later(step * self.scenario.configure_every_s, self.configure, policy)
        await asyncio.wait_for(asyncio.gather(*map(self.call, self.scenario.arrivals)), timeout=1e5)
        await asyncio.sleep(1e4)  # the device comes back
        assert len(self.scheduler) == 0
        assert not self.scheduler.stalled
        assert not self.in_flight()

    def judge_all(self) -> None:
        """Every image's end, and what was counted."""
        for finding in self.findings:
            raise finding
        for image in self.images:
            self.judge_outcome(image)
        assert self.of["queued"] == self.released_images
        assert self.of["executed"] == self.clean_attempts
        assert self.of["split"] == self.whole_failures
        assert {code: self.of[code] for code in self.refusals} == self.refusals

        left = [image for image in self.images if image.cancelled and image.place and image.released is None]
        in_time = [image for image in left if not image.is_late(image.cancelled_at)]
        expired = [image for image in self.images if image.outcome is DeadlineExceeded]
        assert len(in_time) <= self.of["departed"] <= len(left)
        assert self.of["departed"] + self.of["expired"] == len(left) + len(expired)

        late = [image for image in self.images if image.released and image.answered_at > image.terms.deadline]
        missed = [image for image in late if isinstance(image.outcome, int)]
        maybe = [image for image in late if image.cancelled]  # the answer may have been on its way
        assert len(missed) <= self.of["missed"] <= len(missed) + len(maybe)

    def judge_outcome(self, image: Image) -> None:
        stalls: set[object] = {DeviceStalled} if self.scenario.stalls else set()
        if image.cancelled is not None:
            assert image.outcome is asyncio.CancelledError
            assert image.released is None or image.cancelled > image.released
        elif image.released is not None:
            too_late = {DeadlineExceeded} if self.whole_failures and image.is_late(image.answered_at) else set()
            expected = type(image.result) if isinstance(image.result, Exception) else image.result
            assert image.outcome in {expected} | stalls | too_late
        elif image.place is not None:
            assert image.outcome in {DeadlineExceeded} | stalls
        else:
            assert image.outcome in {QueueFull, Overloaded, DeadlineExceeded} | stalls
        if image.outcome is DeadlineExceeded and image.place is not None and image.released is None:
            assert image.answered_at == pytest.approx(max(image.place.latest_start, image.admitted_at), abs=EPSILON_S)


def milliseconds(most: int) -> st.SearchStrategy[float]:
    return st.integers(0, most).map(lambda ms: ms / 1e3)


def scenarios(stalls: bool) -> st.SearchStrategy[Scenario]:
    arrivals = st.builds(
        Arrival,
        at_s=milliseconds(20) | milliseconds(500),
        batch=st.booleans(),
        budget_s=st.none() | milliseconds(800) | milliseconds(3000) | st.just(30.0),
        prepare_s=st.just(0.0) | milliseconds(50) | milliseconds(1000),
        poison=st.sampled_from([False] * 9 + [True]),
        unreadable=st.sampled_from([False] * 9 + [True]),
        cancel_after_s=st.none() | st.none() | st.none() | milliseconds(400),
        leaves_with_a_batch=st.sampled_from([False] * 9 + [True]),
    )
    policies = st.builds(
        Policy,
        max_batch_size=st.integers(1, LARGEST),
        batch_wait_timeout_s=st.sampled_from([0.0, 0.0, 0.005, 0.5]),
        max_queue_size=st.sampled_from([1, 5, 20, 1 << 30, 1 << 30]),
        latency_slo_s=st.sampled_from([None, None, 0.05, 0.3, 2.0]),
    )
    hangs = st.dictionaries(st.integers(0, 5), st.sampled_from([9.9, 10.1, 61.3, 301.7]), min_size=1, max_size=2)
    return st.builds(
        Scenario,
        policies=st.lists(policies, min_size=1, max_size=3),
        configure_every_s=milliseconds(300),
        base_s=st.sampled_from([0.0, 0.001, 0.01, 0.1]),
        per_image_s=st.sampled_from([0.0, 0.001, 0.01, 0.03]),
        told_factor=st.sampled_from([1.0, 0.2, 5.0]),
        device=st.lists(st.sampled_from([1.0, 0.9, 1.2, 0.0, 5.0]), min_size=1, max_size=5),
        stalls=hangs if stalls else st.just({}),
        memory=st.sampled_from([LARGEST, LARGEST, 1, 2, 5]),
        poison_fails_batch=st.booleans(),
        says_started=st.booleans(),
        max_in_flight=st.sampled_from([1, 2, 3]),
        # A list of any length would nearly always be a short one.
        arrivals=st.integers(0, 25).flatmap(lambda count: st.lists(arrivals, min_size=count, max_size=count)),
    )


def judge(scenario: Scenario) -> None:
    world = World(scenario)
    with asyncio.Runner(loop_factory=WatchedLoop) as runner:
        runner.run(world.live())
    world.judge_all()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios(stalls=False))
def test_each_image_has_one_end_and_none_waits_for_an_idle_device(scenario: Scenario) -> None:
    judge(scenario)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios(stalls=True))
def test_the_same_holds_where_the_device_hangs_for_a_while(scenario: Scenario) -> None:
    judge(scenario)


# --- rushes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    budget_s: float
    took_s: float
    is_answered: bool

    @property
    def is_in_time(self) -> bool:
        return self.is_answered and self.took_s <= self.budget_s


def rush(
    seconds: Mapping[int, float],
    policy: Policy,
    rate_per_s: float,
    duration_s: float,
    budgets_s: Sequence[float],
    told: bool = True,
) -> list[Asked]:
    """Poisson arrivals at a device with noise, of which one batch in 200 takes three times as long."""

    async def live() -> list[Asked]:
        rng = random.Random(0)
        noise = random.Random(1)
        loop = asyncio.get_running_loop()
        asked: list[Asked] = []

        async def execute(items: list[int]) -> list[int | BaseException]:
            scheduler.started()
            outlier = 3.0 if noise.random() < 0.005 else 1.0
            await asyncio.sleep(seconds[len(items)] * math.exp(noise.gauss(0.0, 0.1)) * outlier)
            return list(items)

        async def ask(budget_s: float) -> None:
            came_at, is_answered = loop.time(), True
            try:
                async with scheduler.admitted(Terms(came_at + budget_s if told else math.inf)) as place:
                    await asyncio.sleep(0.003)
                    await scheduler.execute(place, 0)
            except RequestError:
                is_answered = False
            asked.append(Asked(budget_s, loop.time() - came_at, is_answered))

        scheduler: Scheduler[int, int] = Scheduler(execute, policy)
        scheduler.configure(policy, sorted(seconds), seconds)
        async with asyncio.TaskGroup() as callers:
            while loop.time() < duration_s:
                await asyncio.sleep(rng.expovariate(rate_per_s))
                callers.create_task(ask(rng.choice(budgets_s)))
        return asked

    return run(live())


def test_three_times_too_many_leave_the_device_its_goodput_and_the_accepted_their_objective() -> None:
    slo_s, duration_s = 0.25, 15.0
    seconds = {n: 0.05 + 0.002 * n for n in range(1, 9)}
    capacity_per_s = 8 / seconds[8]
    asked = rush(seconds, Policy(8, 0.0, 128, slo_s), 3 * capacity_per_s, duration_s, [slo_s])
    goodput_per_s = sum(one.is_in_time for one in asked) / duration_s
    assert goodput_per_s >= 0.9 * capacity_per_s
    assert np.percentile([one.took_s for one in asked if one.is_answered], 99) <= slo_s


def test_deadlines_that_are_told_are_missed_less() -> None:
    seconds = {n: 0.024 + 0.001 * n for n in range(1, 9)}
    rate_per_s = 0.95 * 8 / seconds[8]
    told, silent = (rush(seconds, Policy(8), rate_per_s, 20.0, [0.1, 2.0], told=told) for told in (True, False))
    assert len(told) == len(silent)
    misses, silent_misses = (sum(not one.is_in_time for one in asked) for asked in (told, silent))
    assert misses < silent_misses / 2
