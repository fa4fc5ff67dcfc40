"""Bodies in gzip or deflate -> bytes, never more than a limit of them."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator

from starlette.requests import Request

from serve_app.errors import BadEncoding, RequestError
from serve_app.http.body import bounded

WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""Of zlib, by content encoding: `deflate` is zlib's format (RFC 9110, 8.4.1.2)."""
STEP_BYTES = 1 << 20
"""Unpacked before the event loop has its turn: about 3 ms."""
PIECE_BYTES = 1 << 14
"""... and looked at before it has: 7 ms where they unpack to nothing (each block empty, with a code of its own)."""
OVERHEAD_BYTES = 1 << 10
"""By which data that cannot be packed may grow: zlib's own bound is 11 bytes, and 5 per 16 kB."""


async def read_unpacked(request: Request, max_bytes: int, too_large: RequestError) -> bytearray:
    """The body, unpacked as its `Content-Encoding` says.

    Raises `too_large` as soon as it has more than `max_bytes`, packed or unpacked, and BadEncoding.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    body = bytearray()
    async for chunk in _unpacked(request, encoding, max_bytes, too_large):
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return body


async def _unpacked(request: Request, encoding: str, max_bytes: int, too_large: RequestError) -> AsyncIterator[bytes]:
    if encoding in ("identity", ""):
        async for chunk in bounded(request, max_bytes, too_large):
            yield chunk
        return
    if encoding not in WINDOW_BITS:
        raise BadEncoding("Content-Encoding is gzip or deflate, or left out")
    unpacker = _Unpacker(encoding)
    # Also of the packed bytes: a stream of empty blocks unpacks to nothing for ever.
    async for chunk in bounded(request, max_bytes + max_bytes // 1024 + OVERHEAD_BYTES, too_large):
        for part in unpacker.feed(chunk):
            yield part
            await asyncio.sleep(0)
    unpacker.finish()


class _Unpacker:
    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._zlib = zlib.decompressobj(WINDOW_BITS[encoding])

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What `chunk` unpacks to: of PIECE_BYTES at a time, STEP_BYTES at most."""
        for start in range(0, len(chunk), PIECE_BYTES):
            piece = chunk[start : start + PIECE_BYTES]
            while piece:
                yield self._step(piece)
                piece = self._zlib.unconsumed_tail

    def _step(self, piece: bytes) -> bytes:
        try:
            part = self._zlib.decompress(piece, STEP_BYTES)
        except zlib.error:
            raise BadEncoding(f"the body is not {self._encoding}, as its Content-Encoding says") from None
        if self._zlib.unused_data:
            raise BadEncoding(f"there are bytes behind the end of the {self._encoding} data")
        return part

    def finish(self) -> None:
        if not self._zlib.eof:
            raise BadEncoding(f"the {self._encoding} data ends before its end")
