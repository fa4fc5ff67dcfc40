"""A process that reads image files for a replica, so that what crashes or hangs in C ends no more than it.

`confined.py` starts it, with `Start` as its one argument. File and pixels lie in memory that both share; what goes
through the socket is a few bytes. Its own memory, files and CPU time are limited, and it ends with the replica.
"""

import ctypes
import importlib
import json
import mmap
import os
import pkgutil
import resource
import signal
import socket
import struct
import sys
from typing import NamedTuple

from serve_app.errors import RequestError, TooManyPixels, UnreadableImage, UnsupportedImage
from serve_app.reader import Reader, write_pixels

REQUEST = struct.Struct("<Q")
"""Bytes of the file, which is at the beginning of the shared memory."""
REPLY = struct.Struct("<BII")
"""Outcome, height, width. If it is PIXELS, they are at the beginning of the shared memory; else words follow."""
PIXELS = 0
REFUSALS: tuple[type[RequestError], ...] = (TooManyPixels, UnsupportedImage, UnreadableImage)
"""Outcomes 1, 2, 3."""
READY = b"ready"
MAX_MESSAGE_BYTES = 512

PLUGINS = ("Jpeg", "Mpo", "Png", "WebP", "Gif", "Bmp", "Tiff")
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
# Beyond what the process has when it is ready: WebP holds two canvases and their copies, RGBA is composed on white.
BYTES_PER_PIXEL = 32
SPARE_BYTES = 64 << 20
MAX_OPEN_FILES = 64


class Start(NamedTuple):
    """What a worker is told."""

    socket_fd: int
    memory_fd: int
    memory_bytes: int
    parent: int
    """Process id of the replica."""
    reader: str
    """Where the class is whose instances read: "serve_app.reader:Reader"."""
    max_image_bytes: int
    max_image_pixels: int
    exif_orientation: bool
    cpu_s: int
    """Of CPU time for one image."""

    def as_json(self) -> str:
        return json.dumps(self._asdict())


def main(start: Start) -> None:
    _end_with(start.parent)
    channel = socket.socket(fileno=start.socket_fd)
    memory = memoryview(mmap.mmap(start.memory_fd, start.memory_bytes))
    for plugin in PLUGINS:
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
    read: Reader = pkgutil.resolve_name(start.reader)(start.max_image_pixels, start.exif_orientation)
    # libtiff writes there whatever it thinks of a damaged file.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    _limit(2 * start.max_image_bytes + BYTES_PER_PIXEL * start.max_image_pixels + SPARE_BYTES)
    channel.send(READY)
    while request := channel.recv(REQUEST.size):  # nothing: the replica has gone
        _allow_cpu(start.cpu_s)
        channel.send(_answer(read, memory, *REQUEST.unpack(request)))


def _answer(read: Reader, memory: memoryview, length: int) -> bytes:
    try:
        image = read(bytes(memory[:length]))
    except REFUSALS as error:
        outcome = 1 + REFUSALS.index(type(error))
        return REPLY.pack(outcome, 0, 0) + str(error).encode()[:MAX_MESSAGE_BYTES]
    write_pixels(image, memory)
    return REPLY.pack(PIXELS, image.height, image.width)


def _end_with(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the replica ends first
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:  # before that
        sys.exit(1)


def _limit(more_bytes: int) -> None:
    with open("/proc/self/statm") as file:
        address_space = int(file.read().split()[0]) * mmap.PAGESIZE + more_bytes
    for what, most in (
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ):
        resource.setrlimit(what, (most, most))


def _allow_cpu(seconds: int) -> None:
    """From now on; SIGXCPU ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, most))


if __name__ == "__main__":
    main(Start(**json.loads(sys.argv[1])))
