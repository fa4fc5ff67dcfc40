"""A case on a connection, with servers that do what no HTTP server would."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from serve_app.bench.torture import exchange
from serve_app.bench.torture.answers import HUNG, LEFT, NO_CONNECTION, UNANSWERED
from serve_app.bench.torture.exchange import address, outcomes
from serve_app.bench.torture.surface import Case, Ends, request

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ERROR = b'HTTP/1.1 500 No\r\ncontent-length: 27\r\n\r\n{"error": "e", "code": "c"}'
LIMIT_S = 30.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "PATIENCE_S", 0.5)


def asked_of(serve: Serve, case: Case, limit_s: float = LIMIT_S) -> list[str]:
    async def ask() -> list[str]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await outcomes("127.0.0.1", port, case, limit_s)

    return asyncio.run(ask())


async def fails(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(ERROR)
    await writer.drain()


async def is_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass
    writer.close()


async def closes(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize(
    ("ends", "found"),
    [(Ends.STAYS, ["500"]), (Ends.HALF_CLOSES, ["500"]), (Ends.WAITS, ["500"]), (Ends.LEAVES, [LEFT])],
)
def test_whatever_comes_is_seen_by_whoever_has_not_left(ends: Ends, found: list[str]) -> None:
    assert asked_of(fails, Case("garbage", (b"half a request",), ends, is_http=False)) == found


@pytest.mark.parametrize("ends", [Ends.STAYS, Ends.HALF_CLOSES, Ends.LEAVES])
def test_silence_is_an_answer_to_what_says_nothing(ends: Ends) -> None:
    assert asked_of(is_silent, Case("garbage", (b"half a request",), ends, is_http=False)) == [LEFT]


def test_silence_and_a_close_are_none_to_a_request() -> None:
    assert asked_of(is_silent, Case("image", (request(b"7"),)), limit_s=0.5) == [HUNG]
    assert asked_of(closes, Case("image", (request(b"7" * 10_000_000),))) == [UNANSWERED]


def test_an_answer_before_the_request_was_read_is_heard() -> None:
    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 413 No\r\ncontent-length: 27\r\n\r\n{"error": "e", "code": "c"}')
        await writer.drain()
        await is_silent(reader, writer)

    assert asked_of(refuses, Case("image", (request(b"7"), b"7" * 1000), ends=Ends.WAITS)) == ["413"]


def test_a_slow_reader_has_the_whole_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "SLOW_READ_S", 0.001)

    async def says_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 50000\r\n\r\n" + b"x" * 50_000)
        await writer.drain()

    assert asked_of(says_much, Case("slow_reader", (request(),), reads_slowly=True)) == ["200"]


def test_a_port_that_nobody_listens_on_has_no_connection() -> None:
    assert asyncio.run(outcomes("127.0.0.1", 1, Case("image", (b"x",)), LIMIT_S)) == [NO_CONNECTION]


def test_an_address_is_host_and_port() -> None:
    assert address("http://127.0.0.1:8001") == ("127.0.0.1", 8001)
    assert address("http://there/v1/classify") == ("there", 80)
