import errno
import json
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from serve_app import confined
from serve_app.bench.torture.mutations import mutated
from serve_app.bench.torture.seeds import seeds
from serve_app.config import Args
from serve_app.confined import ConfinedDecoder, Worker
from serve_app.decode import Decode, Decoder, Pixels
from serve_app.decode_worker import REPLY
from serve_app.errors import BodyTooLarge, NotReady, RequestError, TooManyPixels, UnreadableImage, UnsupportedImage
from serve_app.model_spec import Geometry
from tests import obedient_reader
from tests.obedient_reader import order
from tests.waiting import TIMEOUT_S, eventually

GEOMETRY = Geometry(resize_size=36, crop_size=32)
ARGS = Args(max_image_pixels=4_000_000, max_image_bytes=1 << 20)
GOOD = seeds()["JPEG RGB"]
HOSTILE = 300
Start = Callable[..., ConfinedDecoder]
Outcome = Pixels | tuple[type[RequestError], str]


@pytest.fixture(scope="module")
def decoder() -> Iterator[ConfinedDecoder]:
    """Two workers that read images, as they do in a service."""
    with ConfinedDecoder(GEOMETRY, ARGS, num_workers=2) as decoder:
        yield decoder


@pytest.fixture
def start() -> Iterator[Start]:
    """A decoder of one worker that obeys what the files say."""
    started: list[ConfinedDecoder] = []

    def start(args: Args = ARGS, num_workers: int = 1) -> ConfinedDecoder:
        started.append(ConfinedDecoder(GEOMETRY, args, num_workers, obedient_reader.PATH))
        return started[-1]

    yield start
    for each in started:
        each.close()


def outcome(decode: Decode, data: bytes) -> Outcome:
    try:
        return decode(data)
    except RequestError as error:
        return type(error), error.message


def same(one: Outcome, other: Outcome) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return isinstance(one, tuple) and isinstance(other, tuple) and one == other


def workers(decoder: ConfinedDecoder) -> list[Worker]:
    return list(decoder._workers)


# --- the same as in threads ------------------------------------------------------------------------


@pytest.mark.parametrize("name", seeds())
def test_every_kind_of_image_has_the_same_pixels_as_in_threads(decoder: ConfinedDecoder, name: str) -> None:
    data = seeds()[name]
    assert np.array_equal(decoder(data), Decoder(GEOMETRY, ARGS.max_image_pixels)(data))


def test_every_file_of_the_shared_data_ends_as_it_does_in_threads(shared_data: Path) -> None:
    args, geometry = Args(), Geometry()
    files = [path.read_bytes() for path in sorted((shared_data / "images").rglob("*")) if path.is_file()]
    in_threads = Decoder(geometry, args.max_image_pixels)
    assert len(files) > 200
    with ConfinedDecoder(geometry, args, num_workers=2) as decoder, ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda data: outcome(decoder, data), files))
        expected = list(threads.map(lambda data: outcome(in_threads, data), files))
    for one, other in zip(found, expected, strict=True):
        assert same(one, other)
    assert sum(isinstance(one, np.ndarray) for one in found) > 100


def test_hostile_images_end_as_they_do_in_threads(decoder: ConfinedDecoder) -> None:
    generator, images = np.random.default_rng(8), list(seeds().values())
    all_of_them = (mutated(images[i % len(images)], images, generator) for i in range(HOSTILE))
    hostile = [data for data in all_of_them if len(data) <= ARGS.max_image_bytes]  # more does not come so far
    before = {worker.pid for worker in workers(decoder)}
    in_threads = Decoder(GEOMETRY, ARGS.max_image_pixels)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda data: outcome(decoder, data), hostile))
    kinds = Counter(type(one) if isinstance(one, np.ndarray) else one[0] for one in found)
    for data, one in zip(hostile, found, strict=True):
        other = outcome(in_threads, data)
        assert same(one, other), (data, one, other)
    assert set(kinds) >= {np.ndarray, UnsupportedImage, UnreadableImage, TooManyPixels}
    assert {worker.pid for worker in workers(decoder)} == before  # none of them was ended


@pytest.mark.parametrize("size", [(3, 900), (1200, 1100), (32, 32), (36, 36)])
def test_images_of_every_shape_have_the_same_pixels(decoder: ConfinedDecoder, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    args = Args(max_image_bytes=8 << 20)
    with ConfinedDecoder(GEOMETRY, args, num_workers=1) as decoder:
        assert np.array_equal(decoder(file.getvalue()), Decoder(GEOMETRY, args.max_image_pixels)(file.getvalue()))


def test_a_crop_is_not_overwritten_by_the_next_image(decoder: ConfinedDecoder) -> None:
    same = Geometry(resize_size=32, crop_size=32)
    red, blue = (encoded(Image.new("RGB", (32, 32), colour)) for colour in ("red", "blue"))
    with ConfinedDecoder(same, ARGS, num_workers=1) as decoder:
        first = decoder(red)
        decoder(blue)
    assert (first == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"hello", UnsupportedImage),
        (b"II*\0 not a TIFF", UnreadableImage),
        (GOOD[: len(GOOD) // 2], UnreadableImage),
        (seeds()["TIFF RGB"].replace(b"\x30\0", b"\xff\xff"), TooManyPixels),
    ],
)
def test_errors_are_those_of_threads(decoder: ConfinedDecoder, data: bytes, error: type[RequestError]) -> None:
    found = outcome(decoder, data)
    assert found == outcome(Decoder(GEOMETRY, ARGS.max_image_pixels), data)
    assert isinstance(found, tuple)
    assert found[0] is error


def test_a_file_that_no_worker_has_memory_for_is_refused() -> None:
    small = Args(max_image_pixels=100, max_image_bytes=1000)
    with ConfinedDecoder(GEOMETRY, small, num_workers=1) as decoder, pytest.raises(BodyTooLarge):
        decoder(GOOD + bytes(1000))


def test_images_in_many_threads_do_not_mix(decoder: ConfinedDecoder) -> None:
    files = [encoded(Image.new("RGB", (200 + i, 150), (i, 255 - i, 7))) for i in range(64)]
    with ThreadPoolExecutor(8) as threads:
        for i, crop in enumerate(threads.map(decoder, files * 4)):
            assert (crop == (i % 64, 255 - i % 64, 7)).all()


def encoded(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


# --- what may die ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["crash", "exit"])
def test_a_crash_makes_its_image_unreadable_and_is_got_over(start: Start, how: str) -> None:
    decoder = start()
    before = workers(decoder)[0].pid
    with pytest.raises(UnreadableImage, match="cannot be decoded: the decoder crashed on it"):
        decoder(order(how))
    assert decoder(GOOD).shape == (32, 32, 3)
    assert workers(decoder)[0].pid != before
    assert not psutil.pid_exists(before)


def test_a_crash_is_logged(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UnreadableImage):
        start()(order("crash"))
    assert [record.getMessage() for record in caplog.records] == [
        "A process that decoded an image ended with -11: it crashed"
    ]
    assert caplog.records[0].levelno == logging.WARNING


def test_nobody_else_is_hurt_by_crashes(start: Start) -> None:
    decoder = start(num_workers=2)
    expected = Decoder(GEOMETRY, ARGS.max_image_pixels)(GOOD)
    files = [order("crash") if i % 10 == 0 else GOOD for i in range(60)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda data: outcome(decoder, data), files))
    for data, end in zip(files, found, strict=True):
        assert same(end, expected) if data is GOOD else isinstance(end, tuple)


def test_a_worker_that_is_killed_while_it_is_idle_costs_no_image(start: Start) -> None:
    decoder = start(num_workers=2)
    for worker in workers(decoder):
        os.kill(worker.pid, signal.SIGKILL)
        psutil.Process(worker.pid).wait()
    assert [decoder(GOOD).shape for _ in range(3)] == [(32, 32, 3)] * 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_image_whose_worker_is_killed_from_outside_is_not_to_blame(start: Start, number: signal.Signals) -> None:
    decoder = start()
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(decoder, order("sleep"))
        eventually(lambda: decoder._free.empty())
        os.kill(workers(decoder)[0].pid, number)
        error = found.exception(timeout=60)
    assert isinstance(error, NotReady)
    assert error.retry_after_s == confined.RETRY_START_S
    assert decoder(GOOD).shape == (32, 32, 3)


@pytest.mark.parametrize(("how", "words"), [("sleep", "it takes longer than 2 s"), ("spin", "it takes too long")])
def test_what_hangs_is_ended(start: Start, monkeypatch: pytest.MonkeyPatch, how: str, words: str) -> None:
    # Of CPU time a second, of time so much that a process that works is stopped by the first.
    monkeypatch.setattr(confined, "CPU_S", 1)
    monkeypatch.setattr(confined, "SLACK", 2 if how == "sleep" else 100)
    decoder = start()
    with pytest.raises(UnreadableImage, match=words):
        decoder(order(how))
    monkeypatch.setattr(confined, "SLACK", 100)  # what is good may take its time
    assert decoder(GOOD).shape == (32, 32, 3)


def test_cpu_time_is_counted_for_each_image_anew(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "CPU_S", 1)
    decoder = start(Args(max_image_pixels=4_000_000))
    file = encoded(Image.effect_noise((2000, 1900), 90))
    worker = workers(decoder)[0].pid
    while sum(psutil.Process(worker).cpu_times()[:2]) < 3:
        decoder(file)
    assert workers(decoder)[0].pid == worker


def test_memory_is_limited_and_the_worker_lives_on(start: Start) -> None:
    decoder = start()
    before = workers(decoder)[0].pid
    with pytest.raises(UnreadableImage, match="damaged or of a kind"):
        decoder(order("allocate"))
    assert decoder(GOOD).shape == (32, 32, 3)
    assert workers(decoder)[0].pid == before


def test_the_memory_of_large_images_is_given_back(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = start()
    large = encoded(Image.new("RGB", (2000, 1900), "red"))
    decoder(large)
    assert shared_bytes(decoder) >= 2000 * 1900 * 3
    monkeypatch.setattr(confined, "KEPT_BYTES", 1 << 20)
    decoder(large)
    assert shared_bytes(decoder) == 1 << 20
    assert decoder(GOOD).shape == (32, 32, 3)


def shared_bytes(decoder: ConfinedDecoder) -> int:
    """That the kernel holds for a worker's files and pixels."""
    files = Path(f"/proc/{workers(decoder)[0].pid}/fd").iterdir()
    memory = next(file for file in files if "memfd:serve-app-decode" in os.readlink(file))
    return 512 * memory.stat().st_blocks


# --- what it is allowed ----------------------------------------------------------------------------


def told(decoder: ConfinedDecoder) -> dict[str, Any]:
    with pytest.raises(UnsupportedImage) as error:
        decoder(order("tell"))
    found: dict[str, Any] = json.loads(error.value.message)
    return found


def test_a_worker_knows_no_secrets_and_holds_nothing_of_ours(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVE_APP_TOKENS", "birds-app 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
    monkeypatch.setenv("SERVE_APP_TOKEN", "sa_secret")
    one, other = socket.socketpair()
    with one, other:
        os.set_inheritable(one.fileno(), True)
        found = told(start())
    pythons, ours = {"LD_LIBRARY_PATH", "PYTHONHOME", "LC_CTYPE"}, {"GOMP_SPINCOUNT", "MALLOC_ARENA_MAX"}
    assert set(found["environment"]) - pythons - ours == {"PYTHONPATH", "OPENBLAS_NUM_THREADS", *confined.MALLOC}
    kinds = sorted(file.split(":")[0] for file in found["files"])
    assert kinds == ["/dev/null", "/memfd", "socket"]


def test_its_resources_are_limited(start: Start) -> None:
    limits = told(start())["limits"]
    assert (limits["RLIMIT_CORE"], limits["RLIMIT_FSIZE"], limits["RLIMIT_NOFILE"]) == (0, 0, 64)
    assert 100 << 20 < limits["RLIMIT_AS"] < 1 << 30
    assert 5 <= limits["RLIMIT_CPU"] <= 8


def test_it_writes_no_file(start: Start) -> None:
    with pytest.raises(UnsupportedImage, match="File too large"):
        start()(order("write"))


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\0",
        REPLY.pack(0, 100_000, 100_000),
        REPLY.pack(0, 0, 5),
        REPLY.pack(0, 4_000_001, 1),
        REPLY.pack(4, 0, 0),
        REPLY.pack(255, 1, 1),
    ],
)
def test_a_worker_that_lies_is_ended(start: Start, reply: bytes) -> None:
    decoder = start()
    worker = workers(decoder)[0]
    real, (ours, theirs) = worker._channel, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with real, theirs:
        worker._channel = ours
        theirs.send(reply) if reply else theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(UnreadableImage, match="crashed"):
            decoder(GOOD)
    assert not worker.is_alive()
    assert decoder(GOOD).shape == (32, 32, 3)


def test_the_shared_memory_keeps_its_size() -> None:
    with confined._sealed_memory(1 << 20) as memory:
        for size in (0, 1 << 21):
            with pytest.raises(PermissionError):
                memory.truncate(size)


# --- beginning and end -----------------------------------------------------------------------------


def test_a_reader_that_cannot_be_loaded_is_an_error_at_start(capfd: pytest.CaptureFixture[str]) -> None:
    before = psutil.Process().children()
    with pytest.raises(RuntimeError, match="ended with status 1"):
        ConfinedDecoder(GEOMETRY, ARGS, 2, "serve_app.nowhere:Reader")
    assert "serve_app.nowhere" in capfd.readouterr().err
    assert psutil.Process().children() == before


def test_while_no_worker_can_be_started_the_check_fails(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "RETRY_START_S", 0.1)
    decoder = start()
    decoder.check()
    decoder._reader, right = "serve_app.nowhere:Reader", decoder._reader
    with pytest.raises(UnreadableImage):
        decoder(order("crash"))
    eventually(lambda: fails(decoder.check))
    decoder._reader = right
    assert decoder(GOOD).shape == (32, 32, 3)
    decoder.check()


def fails(check: Callable[[], None]) -> bool:
    try:
        check()
    except RuntimeError as error:
        return "does not start" in str(error)
    return False


WITHOUT_WORKER = """
import logging, sys
from serve_app.config import Args
from serve_app.confined import ConfinedDecoder
from serve_app.errors import UnreadableImage
from serve_app.model_spec import Geometry
from tests import obedient_reader
from tests.test_confined import fails
from tests.waiting import eventually

logging.disable()
decoder = ConfinedDecoder(Geometry(), Args(), 1, obedient_reader.PATH)
decoder._reader = "serve_app.nowhere:Reader"
try:
    decoder(obedient_reader.order("crash"))
except UnreadableImage:
    eventually(lambda: fails(decoder.check))
    sys.exit(7)
"""


def test_a_replica_whose_worker_cannot_be_started_ends_when_it_is_to() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_WORKER], timeout=TIMEOUT_S, check=False)
    assert ran.returncode == 7


@pytest.mark.parametrize("missing", ["socketpair", "memfd_create", "mmap", "Popen"])
def test_nothing_is_left_of_a_worker_that_cannot_be_started(
    start: Start, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    ours = psutil.Process()
    start()
    before = ours.num_fds(), len(memory_maps(ours)), ours.children()
    homes = {"socketpair": socket, "memfd_create": os, "mmap": mmap, "Popen": subprocess}
    monkeypatch.setattr(homes[missing], missing, fail)
    with pytest.raises(OSError, match="Too many open files") as raised:  # which holds on to what it was raised in
        ConfinedDecoder(GEOMETRY, ARGS, 1)
    assert (ours.num_fds(), len(memory_maps(ours)), ours.children()) == before, raised


def test_nothing_is_left_of_it() -> None:
    ours = psutil.Process()
    ConfinedDecoder(GEOMETRY, ARGS, 1).close()  # what Python itself opens, once
    before = ours.num_fds(), threading.active_count(), len(memory_maps(ours)), ours.children()
    with ConfinedDecoder(GEOMETRY, ARGS, 2, obedient_reader.PATH) as decoder:
        decoder(GOOD)
        for _ in range(3):
            outcome(decoder, order("crash"))
        decoder(GOOD)
        pids = [worker.pid for worker in workers(decoder)]
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert (ours.num_fds(), threading.active_count(), len(memory_maps(ours)), ours.children()) == before


def memory_maps(process: psutil.Process) -> list[str]:
    """Of workers."""
    return [each.path for each in process.memory_maps(grouped=False) if "serve-app-decode" in each.path]


REPLICA = """
import sys, threading
from serve_app.config import Args
from serve_app.confined import ConfinedDecoder
from serve_app.model_spec import Geometry
from tests import obedient_reader

decoder = ConfinedDecoder(Geometry(), Args(), 2, obedient_reader.PATH)
threading.Thread(target=decoder, args=(obedient_reader.order(sys.argv[1]),), daemon=True).start()
while not decoder._free.qsize() == 1:
    pass
print(*(worker.pid for worker in decoder._workers), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("busy", ["sleep", "spin"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_replica(busy: str, number: signal.Signals) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", REPLICA, busy], stdin=pipe, stdout=pipe, text=True) as replica:
        assert replica.stdout is not None
        pids = [int(pid) for pid in replica.stdout.readline().split()]
        assert len(pids) == 2
        assert all(psutil.pid_exists(pid) for pid in pids)
        replica.send_signal(number)
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids))
