"""Thousands of hostile cases against a running service, and what came back of each."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from serve_app.bench.torture.answers import is_borne, worst
from serve_app.bench.torture.exchange import Heard, address, exchanged, outcomes
from serve_app.bench.torture.surface import CLASSIFY, Case, Material, case, request

NEIGHBOURS = 2
"""Clients that send good images meanwhile, without a pause."""
GOOD_LIMIT_S = 60.0
"""Of each of their requests."""
MAX_WRONG = 20
"""Of their answers; then the service is lost."""
MAX_BESIDE = 64
"""Cases that mostly wait, beside those of the clients: on their own they would take most of the time."""
SHOWN_BYTES = 300


class ServiceLost(RuntimeError):
    """The service does not answer good requests any more, or answers them differently."""


@dataclass(frozen=True)
class Failure:
    """A case that did not end as it has to; `number` and the run's seed make it anew."""

    number: int
    kind: str
    outcome: str

    def as_dict(self) -> dict[str, Any]:
        return {"number": self.number, "kind": self.kind, "outcome": self.outcome}


@dataclass
class Report:
    seed: int
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind of case and the worst that came: see `answers.judged`."""
    failures: list[Failure] = field(default_factory=list)
    neighbours: int = 0
    """Good requests meanwhile."""
    wrong: list[str] = field(default_factory=list)
    """Of those: what came instead of the answer that the image had before."""
    lost: str = ""
    """Why the service was given up before all cases were asked."""

    @property
    def cases(self) -> int:
        return sum(self.outcomes.values())

    def add(self, number: int, kind: str, outcomes: Sequence[str]) -> None:
        self.outcomes[kind, worst(outcomes)] += 1
        self.failures += [Failure(number, kind, each) for each in sorted(set(outcomes)) if not is_borne(each)]

    def as_dict(self) -> dict[str, Any]:
        kinds = sorted({kind for kind, _ in self.outcomes})
        table = {kind: {o: n for (k, o), n in sorted(self.outcomes.items()) if k == kind} for kind in kinds}
        return {
            "seed": self.seed,
            "cases": self.cases,
            "neighbours": self.neighbours,
            "wrong": self.wrong,
            "lost": self.lost,
            "outcomes": table,
            "failures": [failure.as_dict() for failure in self.failures],
        }


async def fuzz(
    url: str,
    material: Material,
    good: Sequence[bytes],
    seed: int,
    numbers: range,
    concurrency: int,
    limit_s: float,
    done: Callable[[], None],
) -> Report:
    """Every case of `numbers`, `concurrency` at once, beside clients that send `good` images; `done` after each case.

    What is not over after `limit_s` has hung. After the last case every good image is asked once more.
    """
    report = Report(seed)
    host, port = address(url)
    try:
        known = [await _answer_to(host, port, image) for image in good]
        await _all(report, Fuzzed(host, port, material, good, known, limit_s, done), numbers, concurrency)
    except ServiceLost as error:
        report.lost = str(error)
    return report


@dataclass(frozen=True)
class Fuzzed:
    """A service that is asked."""

    host: str
    port: int
    material: Material
    good: Sequence[bytes]
    known: Sequence[int]
    """What it answers to each of them."""
    limit_s: float
    done: Callable[[], None]

    async def ask(self, report: Report, number: int, asked: Case) -> None:
        report.add(number, asked.kind, await outcomes(self.host, self.port, asked, self.limit_s))
        self.done()

    async def ask_good(self, report: Report, number: int) -> None:
        """Raises ServiceLost after the last of too many wrong answers."""
        image, expected = self.good[number % len(self.good)], self.known[number % len(self.good)]
        try:
            found = await _answer_to(self.host, self.port, image)
        except ServiceLost as error:
            report.wrong.append(str(error))
        else:
            report.wrong += [] if found == expected else [f"a known image is {found} and not {expected}"]
        report.neighbours += 1
        if len(report.wrong) >= MAX_WRONG:
            raise ServiceLost(f"after {report.cases} cases: {report.wrong[-1]}")


async def _all(report: Report, service: Fuzzed, numbers: range, concurrency: int) -> None:
    """Raises ServiceLost."""

    async def neighbour(first: int) -> None:
        for number in count(first):
            await service.ask_good(report, number)

    neighbours = [asyncio.create_task(neighbour(i)) for i in range(NEIGHBOURS)]
    cases = asyncio.create_task(_cases(report, service, numbers, concurrency))
    try:
        await asyncio.wait([cases, *neighbours], return_when=asyncio.FIRST_COMPLETED)
        for each in (*neighbours, cases):  # a neighbour ends only by what it raises
            if each.done():
                await each
    finally:
        for each in (*neighbours, cases):
            each.cancel()
            with suppress(asyncio.CancelledError, ServiceLost):
                await each
    for number in range(len(service.good)):
        await service.ask_good(report, number)


async def _cases(report: Report, service: Fuzzed, numbers: range, concurrency: int) -> None:
    waiting = iter(numbers)
    beside = asyncio.Semaphore(MAX_BESIDE)

    async def ask_beside(number: int, asked: Case) -> None:
        try:
            await service.ask(report, number, asked)
        finally:
            beside.release()

    async def client(group: asyncio.TaskGroup) -> None:
        for number in waiting:
            asked = await asyncio.to_thread(case, service.material, report.seed, number)  # some take a second
            if asked.is_slow:
                await beside.acquire()
                group.create_task(ask_beside(number, asked))
            else:
                await service.ask(report, number, asked)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(client(group))


async def _answer_to(host: str, port: int, image: bytes) -> int:
    """The first class. Raises ServiceLost."""
    asked, heard = Case("good", (request(image, f"{CLASSIFY}?top_k=1"),)), Heard()
    try:
        async with asyncio.timeout(GOOD_LIMIT_S):
            heard = await exchanged(host, port, asked)
        found: int = json.loads(heard.received.partition(b"\r\n\r\n")[2])["images"][0]["classes"][0]["class_id"]
    except TimeoutError:
        raise ServiceLost(f"a known image was not answered in {GOOD_LIMIT_S:g} s") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ServiceLost(f"a known image was not answered: {error!r}, {heard.received[:SHOWN_BYTES]!r}") from error
    return found
