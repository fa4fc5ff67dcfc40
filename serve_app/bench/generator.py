"""Processes that send requests at given times, or as fast as answers come, and note what comes back.

Several, so that they are not what a test measures: one process sends 3,700 to 9,200 requests/s of 100 kB.
"""

import asyncio
import gc
import json
import multiprocessing
import resource
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
import uvloop

from serve_app.bench import machine
from serve_app.bench.arrivals import poisson
from serve_app.bench.samples import STAGES, Samples

MAX_IN_FLIGHT = 16_384  # of all processes: the ports of an address are 28,000
START_DELAY_S = 0.2  # until every process knows when the run starts
POLL_S = 0.1
ENDED = "a process of the load generator ended; see its message above"
NOT_SENT = "not sent"
"""Status of what was due while MAX_IN_FLIGHT requests had no answer yet."""


class GeneratorError(RuntimeError):
    """A process of the generator ended by itself; its own message went to stderr."""


@dataclass(frozen=True)
class Run:
    """What to send, and for how long. Either `rate_per_s` (open loop) or `concurrency` (closed loop)."""

    url: str
    duration_s: float
    warm_up_s: float = 0.0
    """Before what is counted, at the same rate."""
    rate_per_s: float | None = None
    concurrency: int | None = None
    seed: int = 0
    timeout_s: float = 30.0


@dataclass(frozen=True)
class _Share:
    """One process' part of a run."""

    url: str
    times: npt.NDArray[np.float64]
    """float64 (n,): when to send, in seconds from 0; empty in a closed loop."""
    concurrency: int
    """0 in an open loop."""
    begin_s: float
    end_s: float
    seed: int
    timeout_s: float
    max_in_flight: int


class Generator:
    """The processes, for any number of runs. A context manager: they end with it."""

    def __init__(self, images: Sequence[bytes], num_processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(num_processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, tuple(images)), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> "Generator":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()

    def run(self, run: Run, on_progress: Callable[[float], None] = lambda _: None) -> tuple[Samples, float]:
        """Every request's fate, and how many cores the sending took. Returns when each is answered or timed out.

        `on_progress` is told the seconds since the start, from time to time. Raises GeneratorError.
        """
        for pipe, share in zip(self._pipes, self._shares(run), strict=True):
            self._send(pipe, share)
        for pipe in self._pipes:
            self._receive(pipe)  # it has imported what it needs
        start = time.monotonic() + START_DELAY_S + run.warm_up_s
        for pipe in self._pipes:
            self._send(pipe, start)
        parts = []
        for pipe in self._pipes:
            while not pipe.poll(POLL_S):
                on_progress(time.monotonic() - start)
            parts.append(self._receive(pipe))
        return Samples.concatenated([samples for samples, _ in parts]), sum(cores for _, cores in parts)

    def _send(self, pipe: Connection, item: object) -> None:
        try:
            pipe.send(item)
        except OSError as error:
            raise GeneratorError(ENDED) from error

    def _receive(self, pipe: Connection) -> Any:
        try:
            return pipe.recv()
        except (EOFError, OSError) as error:
            raise GeneratorError(ENDED) from error

    def _shares(self, run: Run) -> list[_Share]:
        """The arrivals dealt out in turn: the same seed sends at the same times, however many processes there are."""
        count = len(self._processes)
        times = np.empty(0)
        if run.rate_per_s is not None:
            times = poisson(run.rate_per_s, run.warm_up_s, run.duration_s, run.seed)
        total = run.concurrency or 0
        return [
            _Share(
                url=run.url,
                times=times[i::count],
                concurrency=len(range(i, total, count)),
                begin_s=-run.warm_up_s,
                end_s=run.duration_s,
                seed=run.seed * count + i,
                timeout_s=run.timeout_s,
                max_in_flight=MAX_IN_FLIGHT // count,
            )
            for i in range(count)
        ]


def default_processes() -> int:
    """Of the generator: one sends thousands of requests/s of 100 kB, and the service needs cores too."""
    return max(1, min(8, machine.num_cores() // 4))


# --- in a process of the generator ---------------------------------------------------------------


@dataclass
class _Log:
    """Rows of Samples, as they come."""

    intended_s: list[float] = field(default_factory=list)
    sent_s: list[float] = field(default_factory=list)
    done_s: list[float] = field(default_factory=list)
    status: list[str] = field(default_factory=list)
    batch_size: list[float] = field(default_factory=list)
    stages_ms: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, intended_s: float, sent_s: float, done_s: float, status: str, body: Any = None) -> None:
        batch_size, stages_ms = _told(body)
        self.intended_s.append(intended_s)
        self.sent_s.append(sent_s)
        self.done_s.append(done_s)
        self.status.append(status)
        self.batch_size.append(batch_size)
        self.stages_ms.append(stages_ms)

    def samples(self) -> Samples:
        return Samples(
            np.array(self.intended_s, np.float64),
            np.array(self.sent_s, np.float64),
            np.array(self.done_s, np.float64),
            np.array(self.status, np.str_),
            np.array(self.batch_size, np.float64),
            np.array(self.stages_ms, np.float64).reshape(-1, len(STAGES)),
        )


def _told(body: Any) -> tuple[float, tuple[float, ...]]:
    """Batch size and stages of an answer in our format; NaN for another's."""
    try:
        timings = body["timings_ms"]
        return float(body["images"][0]["batch_size"]), tuple(float(timings[stage]) for stage in STAGES)
    except (TypeError, LookupError, ValueError):
        return float("nan"), (float("nan"),) * len(STAGES)


def _work(pipe: Connection, images: tuple[bytes, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_IN_FLIGHT + 1024
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if hard == resource.RLIM_INFINITY else min(hard, most), hard))
    gc.collect()
    gc.freeze()  # nothing of what is there now needs to be looked at again, in the middle of a run
    while True:
        try:
            share: _Share = pipe.recv()
            pipe.send("ready")
            start = pipe.recv()
        except EOFError:
            return
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            cpu = time.process_time()
            log = runner.run(_send_all(share, images, start))
            wall_s = max(time.monotonic() - start, share.end_s) - share.begin_s
            pipe.send((log.samples(), (time.process_time() - cpu) / wall_s))


async def _send_all(share: _Share, images: tuple[bytes, ...], start: float) -> _Log:
    log = _Log()
    picks = np.random.default_rng(share.seed).integers(len(images), size=4096)

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=share.timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:

        async def send(number: int, intended_s: float | None) -> None:
            data = images[picks[number % len(picks)]]
            sent_s = time.monotonic() - start
            status, body = await _post(session, share.url, data)
            log.add(sent_s if intended_s is None else intended_s, sent_s, time.monotonic() - start, status, body)

        if share.concurrency:
            await _closed_loop(share, start, send)
        else:
            await _open_loop(share, start, send, log)
    return log


async def _open_loop(
    share: _Share, start: float, send: Callable[[int, float | None], Awaitable[None]], log: _Log
) -> None:
    """Each request when its time has come, however slow the answers to the others are."""
    in_flight: set[asyncio.Task[None]] = set()
    for number, intended_s in enumerate(share.times.tolist()):
        await _sleep_until(start + intended_s)
        if len(in_flight) >= share.max_in_flight:
            log.add(intended_s, intended_s, intended_s, NOT_SENT)
            continue
        task = asyncio.ensure_future(send(number, intended_s))
        in_flight.add(task)
        task.add_done_callback(in_flight.discard)
    await asyncio.gather(*in_flight)


async def _closed_loop(share: _Share, start: float, send: Callable[[int, float | None], Awaitable[None]]) -> None:
    """`concurrency` requests in flight; each answer sends the next."""
    numbers = iter(range(1 << 62))

    async def client() -> None:
        while time.monotonic() - start < share.end_s:
            await send(next(numbers), None)

    await _sleep_until(start + share.begin_s)
    await asyncio.gather(*(client() for _ in range(share.concurrency)))


async def _sleep_until(when: float) -> None:
    """`when` is of `time.monotonic()`. Again and again, for uvloop rounds to milliseconds, either way."""
    while (wait_s := when - time.monotonic()) > 0:  # noqa: ASYNC110 - nobody sets an event: it is the clock
        await asyncio.sleep(wait_s)


async def _post(session: aiohttp.ClientSession, url: str, data: bytes) -> tuple[str, Any]:
    """The status, or a word for what happened instead; and the answer's JSON, None if there is none."""
    try:
        async with session.post(url, data=data) as response:
            content = await response.read()
            status = str(response.status)
    except TimeoutError:
        return "timeout", None
    except aiohttp.ClientConnectorError:
        return "no connection", None
    except (aiohttp.ClientError, OSError):
        return "connection lost", None
    try:
        return status, json.loads(content)
    except ValueError:
        return status, None
