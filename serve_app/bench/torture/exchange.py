"""One case on a connection of its own: says it, hears what comes back, ends as the case does."""

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from serve_app.bench.torture.answers import HUNG, NO_CONNECTION, has_enough, judged
from serve_app.bench.torture.surface import Case, Ends

PATIENCE_S = 2.0
"""Of a client that has not said enough for an answer. It keeps a connection open for so long."""
READ_BYTES = 1 << 16
SLOW_BYTES, SLOW_READ_S = 400, 0.005
"""Of an answer that is read a byte at a time, and how long each takes: two seconds."""
SLOW_BUFFER_BYTES = 2048
"""That the system takes ahead of such a client. It widens when the rest is read at once."""


@dataclass
class Heard:
    received: bytes = b""
    is_closed: bool = False


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


async def outcomes(host: str, port: int, asked: Case, limit_s: float) -> list[str]:
    """See `answers.judged`; HUNG for what is not over after `limit_s`."""
    try:
        async with asyncio.timeout(limit_s):
            heard = await exchanged(host, port, asked)
    except TimeoutError:
        return [HUNG]
    except OSError:
        return [NO_CONNECTION]
    return judged(asked, heard.received, heard.is_closed)


async def exchanged(host: str, port: int, asked: Case) -> Heard:
    """Raises OSError where there is no connection."""
    reader, writer = await asyncio.open_connection(host, port)
    heard = Heard()
    # Meanwhile: who sends on and reads nothing loses an answer that came early with the connection.
    listening = asyncio.create_task(_listen(reader, writer, asked, heard))
    try:
        await _say(writer, asked)
        if asked.ends is Ends.WAITS:
            await listening
        elif asked.ends is not Ends.LEAVES:
            await asyncio.wait([listening], timeout=PATIENCE_S)
    finally:
        listening.cancel()
        writer.transport.abort()
        with suppress(asyncio.CancelledError):
            await listening
    return heard


async def _say(writer: asyncio.StreamWriter, asked: Case) -> None:
    with suppress(OSError):  # closed meanwhile: what was heard counts
        for chunk in asked.chunks:
            writer.write(chunk)
            await writer.drain()
            if len(asked.chunks) > 1:
                await asyncio.sleep(asked.pause_s)
        if asked.ends is Ends.HALF_CLOSES:
            writer.write_eof()


async def _listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Case, heard: Heard) -> None:
    """Until there is enough, or nothing more comes."""
    try:
        if asked.reads_slowly:
            await _listen_slowly(reader, writer.get_extra_info("socket"), heard)
        while asked.ends is not Ends.WAITS or not has_enough(asked, heard.received):
            part = await reader.read(READ_BYTES)
            if not part:
                break
            heard.received += part
        else:
            return
    except OSError:
        pass
    heard.is_closed = True


async def _listen_slowly(reader: asyncio.StreamReader, connection: socket.socket, heard: Heard) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
    while len(heard.received) < SLOW_BYTES and (part := await reader.read(1)):
        heard.received += part
        await asyncio.sleep(SLOW_READ_S)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ_BYTES)
