"""One process of the load generator: it sends its share at the given times, and notes what comes back."""

import asyncio
import gc
import json
import math
import resource
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
import uvloop

from serve_app.bench.known import Known
from serve_app.bench.samples import STAGES, Samples
from serve_app.bench.status import OK
from serve_app.tokens import authorization

MAX_IN_FLIGHT = 16_384  # of all processes: the ports of an address are 28,000
NOT_SENT = "not sent"
"""Status of what was due while MAX_IN_FLIGHT requests had no answer yet."""
DEADLINE_HEADER = "x-request-timeout-seconds"
RETRY_AFTER = "Retry-After"
_Send = Callable[[int, float | None, float], Awaitable[None]]
"""Number of the request, when it should be sent (None: now), its deadline in ms (NaN: none)."""


@dataclass(frozen=True)
class Share:
    """One process' part of a run."""

    url: str
    times: npt.NDArray[np.float64]
    """float64 (n,): when to send, in seconds from 0; empty in a closed loop."""
    deadlines_ms: npt.NDArray[np.float64]
    """float64 (n,): what each is judged by; NaN: by none."""
    deadlines_told: bool
    concurrency: int
    """0 in an open loop."""
    begin_s: float
    end_s: float
    seed: int
    timeout_s: float
    max_in_flight: int
    known: tuple[Known | None, ...] = ()
    """What each image is to be answered; empty: nothing is known."""


@dataclass(frozen=True)
class _Answer:
    status: str
    """As in Samples."""
    body: Any = None
    """Its JSON, None if there is none."""
    retry_after: bool = False


@dataclass
class _Log:
    """Rows of Samples, as they come."""

    intended_s: list[float] = field(default_factory=list)
    sent_s: list[float] = field(default_factory=list)
    done_s: list[float] = field(default_factory=list)
    status: list[str] = field(default_factory=list)
    batch_size: list[float] = field(default_factory=list)
    stages_ms: list[tuple[float, ...]] = field(default_factory=list)
    deadline_ms: list[float] = field(default_factory=list)
    retry_after: list[bool] = field(default_factory=list)

    def add(self, intended_s: float, sent_s: float, done_s: float, deadline_ms: float, answer: _Answer) -> None:
        batch_size, stages_ms = _told(answer.body)
        self.intended_s.append(intended_s)
        self.sent_s.append(sent_s)
        self.done_s.append(done_s)
        self.status.append(answer.status)
        self.batch_size.append(batch_size)
        self.stages_ms.append(stages_ms)
        self.deadline_ms.append(deadline_ms)
        self.retry_after.append(answer.retry_after)

    def samples(self) -> Samples:
        return Samples(
            np.array(self.intended_s, np.float64),
            np.array(self.sent_s, np.float64),
            np.array(self.done_s, np.float64),
            np.array(self.status, np.str_),
            np.array(self.batch_size, np.float64),
            np.array(self.stages_ms, np.float64).reshape(-1, len(STAGES)),
            np.array(self.deadline_ms, np.float64),
            np.array(self.retry_after, np.bool_),
        )


def _told(body: Any) -> tuple[float, tuple[float, ...]]:
    """Batch size and stages of an answer in our format; NaN for another's."""
    try:
        timings = body["timings_ms"]
        return float(body["images"][0]["batch_size"]), tuple(float(timings[stage]) for stage in STAGES)
    except (TypeError, LookupError, ValueError):
        return float("nan"), (float("nan"),) * len(STAGES)


def work(pipe: Connection, images: tuple[bytes, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_IN_FLIGHT + 1024
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if hard == resource.RLIM_INFINITY else min(hard, most), hard))
    gc.collect()
    gc.freeze()  # nothing of what is there now needs to be looked at again, in the middle of a run
    while True:
        try:
            share: Share = pipe.recv()
            pipe.send("ready")
            start = pipe.recv()
        except EOFError:
            return
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            cpu = time.process_time()
            log = runner.run(_send_all(share, images, start))
            wall_s = max(time.monotonic() - start, share.end_s) - share.begin_s
            pipe.send((log.samples(), (time.process_time() - cpu) / wall_s))


async def _send_all(share: Share, images: tuple[bytes, ...], start: float) -> _Log:
    log = _Log()
    picks = np.random.default_rng(share.seed).integers(len(images), size=4096)

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=share.timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=authorization(),
    ) as session:

        async def send(number: int, intended_s: float | None, deadline_ms: float) -> None:
            image = int(picks[number % len(picks)])
            headers = {} if math.isnan(deadline_ms) or not share.deadlines_told else _headers(deadline_ms)
            sent_s = time.monotonic() - start
            answer = await _post(session, share.url, images[image], headers)
            done_s = time.monotonic() - start
            if share.known:
                answer = _judged(answer, share.known[image])
            log.add(sent_s if intended_s is None else intended_s, sent_s, done_s, deadline_ms, answer)

        if share.concurrency:
            await _closed_loop(share, start, send)
        else:
            await _open_loop(share, start, send, log)
    return log


async def _open_loop(share: Share, start: float, send: _Send, log: _Log) -> None:
    """Each request when its time has come, however slow the answers to the others are."""
    in_flight: set[asyncio.Task[None]] = set()
    arrivals = zip(share.times.tolist(), share.deadlines_ms.tolist(), strict=True)
    for number, (intended_s, deadline_ms) in enumerate(arrivals):
        await _sleep_until(start + intended_s)
        if len(in_flight) >= share.max_in_flight:
            log.add(intended_s, intended_s, intended_s, deadline_ms, _Answer(NOT_SENT))
            continue
        task = asyncio.ensure_future(send(number, intended_s, deadline_ms))
        in_flight.add(task)
        task.add_done_callback(in_flight.discard)
    await asyncio.gather(*in_flight)


async def _closed_loop(share: Share, start: float, send: _Send) -> None:
    """`concurrency` requests in flight; each answer sends the next."""
    numbers = iter(range(1 << 62))

    async def client() -> None:
        while time.monotonic() - start < share.end_s:
            await send(next(numbers), None, math.nan)

    await _sleep_until(start + share.begin_s)
    await asyncio.gather(*(client() for _ in range(share.concurrency)))


async def _sleep_until(when: float) -> None:
    """`when` is of `time.monotonic()`. Again and again, for uvloop rounds to milliseconds, either way."""
    while (wait_s := when - time.monotonic()) > 0:  # noqa: ASYNC110 - nobody sets an event: it is the clock
        await asyncio.sleep(wait_s)


def _judged(answer: _Answer, known: Known | None) -> _Answer:
    """With what is wrong with it as its status, if it is an answer and something is."""
    if answer.status != OK or known is None:
        return answer
    fault = known.fault(answer.body)
    return replace(answer, status=fault) if fault else answer


def _headers(deadline_ms: float) -> dict[str, str]:
    return {DEADLINE_HEADER: f"{deadline_ms / 1e3:.6f}"}


async def _post(session: aiohttp.ClientSession, url: str, data: bytes, headers: dict[str, str]) -> _Answer:
    try:
        async with session.post(url, data=data, headers=headers) as response:
            content = await response.read()
    except TimeoutError:
        return _Answer("timeout")
    except aiohttp.ClientConnectorError:
        return _Answer("no connection")
    except (aiohttp.ClientError, OSError):
        return _Answer("connection lost")
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    return _Answer(str(response.status), body, RETRY_AFTER in response.headers)
