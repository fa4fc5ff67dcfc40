"""An HTTP server that answers as a test says: it stands for the service that is measured."""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass

TIMEOUT_S = 10.0
CONTENT_LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b"{}"
    headers: bytes = b""
    """Lines, each with its end."""

    def as_bytes(self) -> bytes:
        head = b"HTTP/1.1 %d .\r\n%sContent-Length: %d\r\n\r\n" % (self.status, self.headers, len(self.body))
        return head + self.body


REFUSAL = Answer(503, b'{"error": "too much to do", "code": "overloaded"}', b"Retry-After: 1\r\n")
SILENCE = Answer(status=0)
"""Nothing, until the client gives up."""

Reply = Callable[[bytes], Awaitable[Answer | None]]
"""From the body of a POST to its answer; None closes the connection. Whoever asks whether it is ready gets 200."""


async def at_once(_: bytes) -> Answer:
    return Answer()


async def never(_: bytes) -> Answer:
    return SILENCE


@contextmanager
def running(
    reply: Reply = at_once, readiness: Answer = Answer(), on_head: Callable[[bytes], None] = lambda _: None
) -> Iterator[str]:
    """Its URL, while it runs in a thread: one loop, so that a `reply` that blocks stalls every request.

    `on_head` is told the request line and headers of each.
    """
    started: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    on_head(head)
                    length = CONTENT_LENGTH.search(head)
                    body = await reader.readexactly(int(length[1]) if length else 0)
                    answer = await reply(body) if head.startswith(b"POST ") else readiness
                    if answer is SILENCE:
                        await reader.read()
                    if answer is None or answer is SILENCE:
                        break
                    writer.write(answer.as_bytes())
            writer.close()

        server = await asyncio.start_server(converse, "127.0.0.1", 0, backlog=1024)
        started.set_result((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), stop))
        await stop.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    port, loop, stop = started.result(TIMEOUT_S)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
