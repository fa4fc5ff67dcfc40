"""Image bytes -> crop as `decode.Decoder` makes it, with what runs in C in processes that may die.

A worker that crashes, or is over its time, is killed: its image is unreadable, and another worker takes its place.
If somebody else killed it the image is not to blame: 503.

What it costs, on two cores of a Xeon beside other work: a 12 MP JPEG 183 ms against 165 in a thread; two at once 10
against 8 images/s, for Pillow's Python no longer shares the replica's GIL: a ticker of 1 ms was late by 2.6 ms (p99),
not 6.1. A photo of 500 x 375 takes up to 1.6 ms more CPU. A worker is 10 to 15 MB, and up to 64 MB of pixels that it
keeps; 75 ms to replace one. Threads are the default: what is known to be slow is refused by its heads (structure.py),
and no file is known to us that crashes Pillow.
"""

import fcntl
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from queue import Empty, LifoQueue, SimpleQueue
from types import TracebackType
from typing import Self

import numpy as np

from serve_app import decode_worker
from serve_app.config import Args
from serve_app.decode import Decode, Decoder, Pixels, resize_and_crop
from serve_app.decode_worker import MAX_MESSAGE_BYTES, PIXELS, READY, REFUSALS, REPLY, REQUEST, Start
from serve_app.errors import BodyTooLarge, NotReady, RequestError, UnreadableImage
from serve_app.model_spec import Geometry
from serve_app.reader import sniff

logger = logging.getLogger("ray.serve")

CHANNELS = 3
START_TIMEOUT_S = 60.0
RETRY_START_S = 1.0
# Of CPU time: photos take 10 to 40 ns a pixel. Of time, on a machine with others, twice as much.
CPU_S, CPU_S_PER_PIXEL = 5, 1e-7
SLACK = 2
# Of the shared memory between two images: to get it anew from the kernel costs as much as the copy into it.
KEPT_BYTES = 64 << 20
"""Of each worker; more is given back after each image."""
EXIT_TIMEOUT_S = 1.0
# What somebody else ends a process with: an operator, or the kernel, for want of memory.
FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
KEPT_VARIABLES = ("LD_LIBRARY_PATH", "PYTHONHOME")
# A worker keeps what it frees: to get it anew for each photo of 500 x 375 cost 0.9 ms.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
READER = "serve_app.reader:Reader"


def decoder(args: Args, geometry: Geometry, num_workers: int) -> Decode:
    """As `args` has it, with its processes ready. Raises OSError or RuntimeError where they do not start."""
    if args.decode_in == "threads":
        return Decoder(geometry, args.max_image_pixels, args.exif_orientation)
    return ConfinedDecoder(geometry, args, num_workers)


class ConfinedDecoder:
    """Decodes for one model: `decoder(data)` in any number of threads, `num_workers` of them at once."""

    def __init__(self, geometry: Geometry, args: Args, num_workers: int, reader: str = READER) -> None:
        """`reader`: where the class is that reads, as `Start` has it.

        Raises OSError or RuntimeError if a worker does not start.
        """
        self._geometry = geometry
        self._args = args
        self._reader = reader
        self._cpu_s = round(CPU_S + CPU_S_PER_PIXEL * args.max_image_pixels)
        self._free: LifoQueue[Worker] = LifoQueue()
        self._closed = threading.Event()
        self._failure: str | None = None
        self._lost: SimpleQueue[Worker | None] = SimpleQueue()
        started: Future[list[Worker]] = Future()
        # The kernel ends a worker with the thread that started it: this one stays until the end. A daemon, for nobody
        # has to close this: Python would wait for it, as long as no worker can be started for ever.
        self._starter = threading.Thread(
            target=self._start, args=(num_workers, started), name="decode-start", daemon=True
        )
        self._starter.start()
        self._workers = started.result()
        for worker in self._workers:
            self._free.put(worker)

    @property
    def limit_s(self) -> float:
        """For one image."""
        return float(SLACK * self._cpu_s)

    def __call__(self, data: bytes) -> Pixels:
        """uint8 (crop_size, crop_size, 3). Raises what `Reader` raises, BodyTooLarge, NotReady (no worker)."""
        sniff(data)  # what is no image costs no worker's time
        with self._worker() as worker:
            return resize_and_crop(worker.read(data, self.limit_s), self._geometry).copy()

    def check(self) -> None:
        """Raises RuntimeError as long as a worker that is needed cannot be started."""
        if self._failure is not None:
            raise RuntimeError(f"a process to decode images in does not start: {self._failure}")

    @contextmanager
    def _worker(self) -> Iterator["Worker"]:
        worker = self._living()
        try:
            yield worker
        finally:
            if worker.is_alive():
                worker.rest()
                self._free.put(worker)
            else:
                self._replace(worker)

    def _living(self) -> "Worker":
        while True:
            try:
                worker = self._free.get(timeout=self.limit_s + START_TIMEOUT_S)
            except Empty:
                raise NotReady("no process to decode images in is to be had", RETRY_START_S) from None
            if worker.is_alive():
                return worker
            self._replace(worker)

    def _replace(self, worker: "Worker") -> None:
        """Soon, in the background: whose image it was need not wait for it."""
        worker.close()
        self._lost.put(worker)

    def _start(self, number: int, started: "Future[list[Worker]]") -> None:
        """In its thread: these, then one for each that is lost, until it is closed."""
        try:
            started.set_result(self._start_all(number))
        except BaseException as error:
            started.set_exception(error)
            return
        while (dead := self._lost.get()) is not None:
            self._start_instead(dead)

    def _start_instead(self, dead: "Worker") -> None:
        while not self._closed.is_set():
            try:
                (worker,) = self._start_all(1)
            except Exception as error:  # whatever it is: nobody else would try again
                self._failure = str(error)
                logger.error("A process to decode images in does not start: %s", error)
                self._closed.wait(RETRY_START_S)
                continue
            self._failure = None
            self._workers[self._workers.index(dead)] = worker
            self._free.put(worker)
            return

    def _start_all(self, number: int) -> list["Worker"]:
        """Together: each takes as long as all. Raises OSError or RuntimeError."""
        workers: list[Worker] = []
        try:
            for _ in range(number):
                workers.append(Worker(self._args, self._reader, self._cpu_s))  # noqa: PERF401 - closed if one fails
            for worker in workers:
                worker.wait_until_ready(START_TIMEOUT_S)
        except BaseException:
            for worker in workers:
                worker.close()
            raise
        return workers

    def close(self) -> None:
        """Ends the workers. No image may be under way."""
        self._closed.set()
        self._lost.put(None)
        self._starter.join()
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Worker:
    """One process, for one thread at a time."""

    def __init__(self, args: Args, reader: str, cpu_s: int) -> None:
        """Started, and not ready yet. Raises OSError."""
        self._used = 0
        self._capacity = max(args.max_image_bytes, CHANNELS * args.max_image_pixels)
        with ExitStack() as opened:  # nothing is left of one that does not start, while somebody holds its error
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            opened.enter_context(self._channel)
            with theirs, _sealed_memory(self._capacity) as memory:
                self._memory = opened.enter_context(mmap.mmap(memory.fileno(), self._capacity))
                start = Start(
                    theirs.fileno(),
                    memory.fileno(),
                    self._capacity,
                    os.getpid(),
                    reader,
                    args.max_image_bytes,
                    args.max_image_pixels,
                    args.exif_orientation,
                    cpu_s,
                )
                self._process = subprocess.Popen(  # noqa: S603 - ourselves
                    [sys.executable, "-S", "-P", "-m", decode_worker.__name__, start.as_json()],
                    pass_fds=(theirs.fileno(), memory.fileno()),
                    env=_environment(),
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            opened.pop_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self, timeout_s: float) -> None:
        """Raises RuntimeError."""
        self._channel.settimeout(timeout_s)
        try:
            if self._channel.recv(len(READY)) == READY:
                return
        except OSError as error:  # TimeoutError is one
            raise RuntimeError(f"not ready: {error}") from None
        raise RuntimeError(f"it ended with status {self._process.wait()}")

    def read(self, data: bytes, limit_s: float) -> Pixels:
        """uint8 (H, W, 3), in memory that is the next image's. Raises as `ConfinedDecoder` does."""
        if len(data) > self._capacity:
            raise BodyTooLarge("the image is larger than any that is read here")
        self._used = len(data)
        self._memory[: len(data)] = data
        outcome, height, width, words = self._ask(REQUEST.pack(len(data)), limit_s)
        if outcome != PIXELS:
            raise REFUSALS[outcome - 1](words)
        self._used = max(self._used, height * width * CHANNELS)
        return np.frombuffer(self._memory, np.uint8, height * width * CHANNELS).reshape(height, width, CHANNELS)

    def _ask(self, request: bytes, limit_s: float) -> tuple[int, int, int, str]:
        """Outcome, height, width, words. What comes is not believed: who sent it may have been taken over."""
        self._channel.settimeout(limit_s)
        try:
            self._channel.send(request)
            reply = self._channel.recv(REPLY.size + MAX_MESSAGE_BYTES)
        except TimeoutError:
            raise self._dead(f"it takes longer than {limit_s:g} s") from None
        except OSError:
            reply = b""
        if len(reply) < REPLY.size:
            raise self._dead()
        outcome, height, width = REPLY.unpack_from(reply)
        fits = 0 < height * width * CHANNELS <= self._capacity if outcome == PIXELS else outcome <= len(REFUSALS)
        if not fits:
            raise self._dead()
        return outcome, height, width, reply[REPLY.size :].decode(errors="replace")

    def _dead(self, how: str | None = None) -> RequestError:
        """Of which nothing more is to come; by itself, if it is not said how. What its image's client is told."""
        by_itself: int | None = None
        if how is None:
            with suppress(subprocess.TimeoutExpired):
                by_itself = self._process.wait(EXIT_TIMEOUT_S)
        self._process.kill()
        status = self._process.wait()
        is_killed = by_itself in FROM_OUTSIDE
        how_it_ended = how or ("it was killed" if is_killed else "it crashed")
        logger.warning("A process that decoded an image ended with %d: %s", status, how_it_ended)
        if is_killed:
            # Not tried again here: where it was for want of memory, that would take as much once more.
            return NotReady("the process that decoded the image was ended; send it again", RETRY_START_S)
        too_long = status == -signal.SIGXCPU
        how = how or ("it takes too long" if too_long else "the decoder crashed on it")
        return UnreadableImage(f"the image cannot be decoded: {how}")

    def rest(self) -> None:
        """After an image, whose pixels are not needed any more."""
        if self._used > KEPT_BYTES:
            begin = KEPT_BYTES
            self._memory.madvise(mmap.MADV_REMOVE, begin, self._capacity - begin)
        self._used = 0

    def close(self) -> None:
        """Ends it, at once."""
        self._process.kill()
        self._process.wait()
        self._channel.close()
        with suppress(BufferError):  # the pixels of an image are still looked at: freed with them
            self._memory.close()


def _sealed_memory(size: int) -> FileIO:
    """Shared memory of a size that nobody can change: if a worker cut it, to read it would end the replica.

    Zeros, which take no memory until they are written. Raises OSError.
    """
    descriptor = os.memfd_create("serve-app-decode", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    memory = FileIO(descriptor, "r+")
    memory.truncate(size)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return memory


def _environment() -> dict[str, str]:
    """Nothing of ours, where secrets may be, but what Python itself needs: this process's modules, and no others."""
    ours = str(Path(decode_worker.__file__).parents[1])
    modules = [ours, *(os.path.abspath(folder) for folder in sys.path)]
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {**kept, **MALLOC, "PYTHONPATH": os.pathsep.join(modules), "OPENBLAS_NUM_THREADS": "1"}
