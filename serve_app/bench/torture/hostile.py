"""Hostile requests at given times beside the good ones, from a process of their own, and what came of each."""

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serve_app.bench.isolated import stream
from serve_app.bench.sender import NOT_SENT
from serve_app.bench.status import EXPIRED, REFUSED
from serve_app.bench.torture.answers import is_borne, worst
from serve_app.bench.torture.exchange import address, outcomes
from serve_app.bench.torture.surface import Case, Material, case

MAX_IN_FLIGHT = 512


@dataclass(frozen=True)
class Hostility:
    """What is sent, and when."""

    url: str
    images: tuple[bytes, ...]
    """Good ones: the cases are made of them."""
    model: str
    seed: int
    num_cases: int
    """Different ones: made beforehand, for some take a third of a second, and sent in random order, some again.
    Heavy ones are not sent: a second of decoding delays good requests of a service that is near its capacity."""
    times: npt.NDArray[np.float64]
    """float64 (n,): ascending, seconds from the start."""
    limit_s: float
    """What is not over after it has hung."""


@dataclass(frozen=True)
class Outcome:
    at_s: float
    """When it should have been sent."""
    number: int
    """Of the case: with seed and images it makes the same one again."""
    kind: str
    """Of case."""
    result: str
    """The worst that came: see `answers.judged`."""

    @property
    def holds(self) -> bool:
        """Whether it may end so. Under load, unlike in a fuzzer's quiet, a refusal is an answer too."""
        return self.result in (REFUSED, EXPIRED) or is_borne(self.result)


class Sent:
    """Requests on their way."""

    def __init__(self, outcomes: "Iterator[Sequence[Outcome] | None]") -> None:
        self._outcomes = outcomes

    def result(self) -> Sequence[Outcome]:
        """Once each is over. Raises what ended the process."""
        return next(self._outcomes) or ()


@contextmanager
def sent(hostility: Hostility) -> Iterator[Sent]:
    """From the entry on, which waits until the cases are made. What is on its way at the exit is given up."""
    items = stream(_send_all, hostility)
    try:
        next(items)
        yield Sent(items)
    finally:
        items.close()  # type: ignore[attr-defined]


def _send_all(hostility: Hostility) -> Iterator[Sequence[Outcome] | None]:
    """None once it begins, then what became of all."""
    material = Material(hostility.images, hostility.model)
    cases = [case(material, hostility.seed, number) for number in range(hostility.num_cases)]
    gc.freeze()
    yield None
    yield asyncio.run(_send(hostility, cases))


async def _send(hostility: Hostility, cases: Sequence[Case]) -> Sequence[Outcome]:
    host, port = address(hostility.url)
    light = [number for number, one in enumerate(cases) if not one.is_heavy] or range(len(cases))
    picks = np.random.default_rng([hostility.seed, len(cases)]).choice(light, size=len(hostility.times))
    found: list[Outcome] = []
    in_flight: set[asyncio.Task[None]] = set()
    start = time.monotonic()

    async def send(at_s: float, number: int) -> None:
        results = await outcomes(host, port, cases[number], hostility.limit_s)
        found.append(Outcome(at_s, number, cases[number].kind, worst(results)))

    for at_s, number in zip(hostility.times.tolist(), picks.tolist(), strict=True):
        await asyncio.sleep(max(0.0, start + at_s - time.monotonic()))
        if len(in_flight) >= MAX_IN_FLIGHT:
            found.append(Outcome(at_s, number, cases[number].kind, NOT_SENT))
            continue
        task = asyncio.create_task(send(at_s, number))
        in_flight.add(task)
        task.add_done_callback(in_flight.discard)
    await asyncio.gather(*in_flight)
    return found
