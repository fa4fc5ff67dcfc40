"""Processes that send requests at given times, or as fast as answers come, and note what comes back.

Several, so that they are not what a test measures: one process sends 3,700 to 9,200 requests/s of 100 kB.
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.bench import machine
from serve_app.bench.arrivals import Step, dealt, piecewise, poisson
from serve_app.bench.known import Known
from serve_app.bench.samples import Samples
from serve_app.bench.sender import MAX_IN_FLIGHT, Share, work

START_DELAY_S = 0.2  # until every process knows when the run starts
POLL_S = 0.1
ENDED = "a process of the load generator ended; see its message above"


class GeneratorError(RuntimeError):
    """A process of the generator ended by itself; its own message went to stderr."""


@dataclass(frozen=True)
class Run:
    """What to send, and for how long: `rate_per_s` or `steps` (open loop), or `concurrency` (closed loop)."""

    url: str
    duration_s: float
    warm_up_s: float = 0.0
    """Before what is counted, at the same rate."""
    rate_per_s: float | None = None
    steps: tuple[Step, ...] = ()
    """Rates one after the other, from 0 on: no warm-up, and `duration_s` is theirs together."""
    concurrency: int | None = None
    seed: int = 0
    timeout_s: float = 30.0
    deadlines_ms: tuple[float, ...] = ()
    """Open loop: each request is judged by one of these, in equal shares."""
    deadlines_told: bool = True
    """Whether it also says so to the service."""
    known: tuple[Known | None, ...] = ()
    """What each of the generator's images is to be answered: another answer is a failure. Empty: nothing is known."""


class Generator:
    """The processes, for any number of runs. A context manager: they end with it."""

    def __init__(self, images: Sequence[bytes], num_processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(num_processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, tuple(images)), daemon=True)
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

    def _shares(self, run: Run) -> list[Share]:
        """The arrivals dealt out in turn: the same seed sends at the same times, however many processes there are."""
        count = len(self._processes)
        times = arrivals(run)
        deadlines_ms = dealt(run.deadlines_ms, times, run.seed)
        total = run.concurrency or 0
        return [
            Share(
                url=run.url,
                times=times[i::count],
                deadlines_ms=deadlines_ms[i::count],
                deadlines_told=run.deadlines_told,
                concurrency=len(range(i, total, count)),
                begin_s=-run.warm_up_s,
                end_s=run.duration_s,
                seed=run.seed * count + i,
                timeout_s=run.timeout_s,
                max_in_flight=MAX_IN_FLIGHT // count,
                known=run.known,
            )
            for i in range(count)
        ]


def arrivals(run: Run) -> npt.NDArray[np.float64]:
    """float64 (n,): when to send in an open loop; empty for a closed one."""
    if run.steps:
        return piecewise(run.steps, run.seed)
    if run.rate_per_s is not None:
        return poisson(run.rate_per_s, run.warm_up_s, run.duration_s, run.seed)
    return np.empty(0)


def default_processes() -> int:
    """Of the generator: one sends thousands of requests/s of 100 kB, and the service needs cores too."""
    return max(1, min(8, machine.num_cores() // 4))
