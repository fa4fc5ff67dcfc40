"""A Reader, for a worker, that does to its process what the file says."""

import json
import os
import resource
import signal
import time
from pathlib import Path

from PIL import Image

from serve_app.errors import UnsupportedImage
from serve_app.reader import Reader

SIGNATURE = b"\xff\xd8\xff"
"""So that an order passes for an image."""
PATH = f"{__name__}:ObedientReader"
LIMITS = ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE")


def order(name: str) -> bytes:
    return SIGNATURE + name.encode()


class ObedientReader(Reader):
    def _upright_rgb(self, data: bytes, image_format: str) -> Image.Image:
        name = data.removeprefix(SIGNATURE)
        if name == b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif name == b"exit":
            os._exit(0)
        elif name == b"sleep":
            time.sleep(3600)
        elif name == b"spin":
            while True:
                pass
        elif name == b"allocate":
            bytearray(1 << 40)
        elif name == b"write":
            self._say(_written())
        elif name == b"tell":
            self._say(
                {
                    "environment": sorted(os.environ),
                    "files": sorted({os.readlink(f"/proc/self/fd/{fd}") for fd in range(64) if _is_open(fd)}),
                    "limits": {name: resource.getrlimit(getattr(resource, name))[0] for name in LIMITS},
                }
            )
        return super()._upright_rgb(data, image_format)

    def _say(self, what: object) -> None:
        raise UnsupportedImage(json.dumps(what))


def _is_open(fd: int) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def _written() -> str:
    path = Path("/tmp/serve-app-worker-writes")
    try:
        path.write_bytes(b"an upload")
    except OSError as error:
        return str(error)
    finally:
        path.unlink(missing_ok=True)
    return "written"
