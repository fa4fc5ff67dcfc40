"""A clock that is put forward and back under running processes, by libfaketime: this machine's own stays as it is.

It is the wall clock of every process of the cluster. The monotonic one goes on, as it does when a real one is set.
The library is that of the Python package: under Debian's (0.9.10) Python cannot sleep once the clock is put back.
Never behind the machine's own: some waits give the kernel a time of day, which for the kernel would be over.

It is built without FAKE_PTHREAD, else what is measured is the library: it takes a monotonic deadline that is waited
for on a condition variable for one long past, so that every thread that waits for Python's GIL spins instead. With
the clock left alone, a cluster under 70 requests/s took 1.4 cores that way instead of 0.45; with the step, on two
busy cores, batches took seconds, and the door of a replica refused ("overloaded") 1,799, 0, 0, 110 and 504 of 3,500.
Built so it takes 0.54, and of the step nobody notices anything: none failed, the slowest took 150 ms.
"""

import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path

import psutil

from serve_app.bench.faults.unavailable import Unavailable

PACKAGE = "libfaketime"
INSTALL = (
    "CPPFLAGS=-UFAKE_PTHREAD pip install --quiet --force-reinstall --no-cache-dir --no-binary libfaketime"
    " libfaketime==3.0.1"
)
"""No wheel will do, be it from a cache: see above."""
SPINS = b"pthread_cond_timedwait"
NAME = "libfaketime.so.1"
FILE = "clock"
TIMEOUT_S = 5.0
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108


@contextmanager
def followed(folder: Path) -> Iterator[Mapping[str, str]]:
    """Variables of processes whose clock follows a file in `folder`. Raises Unavailable without a fit libfaketime."""
    library = _library()
    if library is None or SPINS in library.read_bytes():
        raise Unavailable(f"a clock of their own needs libfaketime that is built for it: {INSTALL}")
    put(folder, 0)
    before = _shared()
    variables = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(folder / FILE),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    try:
        yield variables
    finally:
        for path in _shared() - before:  # a process that was killed leaves its own
            if not psutil.pid_exists(int(path.name.rpartition("_")[2])):
                path.unlink(missing_ok=True)


def _shared() -> set[Path]:
    """What libfaketime has in shared memory, by its process's id: `faketime_shm_1`, `sem.faketime_sem_1`."""
    return set(SHARED_MEMORY.glob("*faketime_s*m_[0-9]*"))


def _library() -> Path | None:
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        return None
    return next(iter(sorted(Path(package.origin).parent.rglob(NAME))), None)


def put(folder: Path, seconds: int) -> None:
    """Ahead of this machine's by so much; they notice within a second."""
    new = folder / f"{FILE}.new"
    new.write_text(f"{seconds:+d}")
    new.replace(folder / FILE)


def ahead_s(url: str) -> float:
    """By how much who answers there is ahead of this process. Raises OSError."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310
        told = answer.headers["Date"]
    if told is None:
        raise OSError(f"{url} answers without the time")
    return parsedate_to_datetime(told).timestamp() - time.time()
