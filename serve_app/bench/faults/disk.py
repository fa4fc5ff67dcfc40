"""A small disk for Ray's folder, its logs above all; and what fills it."""

import ctypes
import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from serve_app.bench.faults.unavailable import Unavailable

SIZE_BYTES = 256 << 20
CHUNK_BYTES = 1 << 20
FILLING, PROBE = "filling", "probe"
MNT_DETACH = 2


@contextmanager
def mounted(folder: Path) -> Iterator[Mapping[str, str]]:
    """A disk in memory, at `folder`: no variable is needed. Raises Unavailable where nothing may be mounted."""
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={SIZE_BYTES}".encode()
    if libc.mount(b"serve-app", os.fsencode(folder), b"tmpfs", 0, options):
        why = os.strerror(ctypes.get_errno())
        raise Unavailable(f"a small disk cannot be mounted ({why}): this one needs root, or CAP_SYS_ADMIN")
    try:
        yield {}
    finally:
        libc.umount2(os.fsencode(folder), MNT_DETACH)


def fill(folder: Path) -> Path:
    """Until not a byte more goes onto its disk. What is to be removed for that to change."""
    path = folder / FILLING
    with path.open("wb", buffering=0) as file:
        size = CHUNK_BYTES
        while size:
            try:
                file.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
    return path


def is_full(folder: Path) -> bool:
    """Whether not even a line goes onto its disk. Raises OSError for any other reason."""
    path = folder / PROBE
    try:
        path.write_bytes(b"\n")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return True
    finally:
        path.unlink(missing_ok=True)
    return False
