import gzip
import itertools
import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.config import Args
from serve_app.errors import BadEncoding, MalformedRequest
from serve_app.http import build_app, encoding
from serve_app.http.encoding import OVERHEAD_BYTES, PIECE_BYTES, STEP_BYTES
from tests.http.asgi import Exchange
from tests.http.service import FakeService

PATH = "/v2/models/digits/infer"
BODY = json.dumps(
    {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 4, 4, 3], "data": [1] * 48}]}
).encode()
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
LIMIT = 10_000
EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"


def post(chunks: Iterable[bytes], content_encoding: str, limit: int = LIMIT, **headers: str) -> Exchange:
    app = build_app(FakeService(args=Args(max_json_bytes=limit)))
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Exchange(chunks, {"content-encoding": content_encoding, **names}, path=PATH).run(app)


def unpacked(packed: bytes, kind: str) -> bytes:
    """All at once: what the parts of a feed are joined."""
    unpacker = encoding._Unpacker(kind)
    parts = list(unpacker.feed(packed))
    assert max(map(len, parts), default=0) <= STEP_BYTES
    unpacker.finish()
    return b"".join(parts)


@pytest.mark.parametrize("name", ["gzip", "deflate", "GZIP", " gzip ", "Deflate"])
def test_a_packed_body_is_unpacked_in_whatever_chunks_it_comes(name: str) -> None:
    packed = PACK[name.strip().lower()](BODY)
    assert post([packed], name).status == 200
    assert post([packed[i : i + 1] for i in range(len(packed))], name).status == 200
    assert post([b"", packed, b""], name).status == 200


@pytest.mark.parametrize("name", ["", "identity", "Identity", " "])
def test_identity_is_no_packing(name: str) -> None:
    assert post([BODY], name).status == 200


@pytest.mark.parametrize(
    "name", ["br", "zstd", "x-gzip", "gzip, gzip", "gzip, identity", "gzip;q=1", "x" * 5000, "\xff"]
)
def test_any_other_encoding_is_refused_without_reading(name: str) -> None:
    request = post(itertools.repeat(b"x"), name)
    assert (request.status, request.json["code"], request.pulled) == (400, "bad_encoding", 0)
    assert request.json["error"] == "Content-Encoding is gzip or deflate, or left out"


@pytest.mark.parametrize("kind", ["gzip", "deflate"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda packed: b"", "data ends before its end"),
        (lambda packed: packed[:1], "data ends before its end"),
        (lambda packed: packed[:-1], "data ends before its end"),
        (lambda packed: packed[: len(packed) // 2], "data ends before its end"),
        (lambda packed: packed + b"x", "there are bytes behind the end of the"),
        (lambda packed: packed + packed, "there are bytes behind the end of the"),
        (lambda packed: BODY, "as its Content-Encoding says"),
        (lambda packed: b"\xff" * 100, "as its Content-Encoding says"),
        (lambda packed: packed[:-4] + b"\0\1\2\3", "as its Content-Encoding says"),
        (lambda packed: zlib.compress(BODY, wbits=-15), "as its Content-Encoding says"),
    ],
    ids=["empty", "one-byte", "cut-short", "half", "trailing-byte", "two-members", "plain", "noise", "check", "raw"],
)
def test_a_body_that_is_not_in_its_encoding_is_refused(kind: str, change: Any, words: str) -> None:
    packed = change(PACK[kind](BODY))
    for chunks in ([packed], [packed[i : i + 1] for i in range(len(packed))]):
        request = post(chunks, kind)
        assert (request.status, request.json["code"]) == (400, "bad_encoding")
        assert words in request.json["error"]
        assert kind in request.json["error"]


def test_one_encoding_under_the_name_of_the_other_is_refused() -> None:
    assert post([PACK["gzip"](BODY)], "deflate").json["code"] == "bad_encoding"
    assert post([PACK["deflate"](BODY)], "gzip").json["code"] == "bad_encoding"


@pytest.mark.parametrize("kind", ["gzip", "deflate"])
@pytest.mark.parametrize("level", [0, 9])
def test_a_body_of_exactly_the_limit_is_taken_whether_it_can_be_packed_or_not(kind: str, level: int) -> None:
    body = BODY + b" " * (LIMIT - len(BODY))
    wbits = encoding.WINDOW_BITS[kind]
    assert post([zlib.compress(body, level, wbits)], kind).status == 200
    request = post([zlib.compress(body + b" ", level, wbits)], kind)
    assert (request.status, request.json["code"]) == (400, "malformed_request")
    assert "at most 10,000 bytes (max_json_bytes)" in request.json["error"]


@pytest.mark.parametrize("kind", ["gzip", "deflate"])
def test_a_bomb_is_refused_at_the_limit_and_never_held_in_memory(kind: str) -> None:
    bomb = zlib.compress(bytes(48 << 20), 9, encoding.WINDOW_BITS[kind])
    limit = len(bomb)  # else it would be refused for what it has packed
    tracemalloc.start()
    request = post([bomb], kind, limit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (request.status, request.json["code"]) == (400, "malformed_request")
    assert peak < 8 * STEP_BYTES


@pytest.mark.parametrize("count", [1, 200])
def test_blocks_that_unpack_to_nothing_for_ever_are_refused_at_the_limit_of_packed_bytes(count: int) -> None:
    blocks = itertools.chain([b"\x78\x9c"], itertools.repeat(EMPTY_BLOCK * count))
    request = post(blocks, "deflate")
    assert (request.status, request.json["code"]) == (400, "malformed_request")
    assert request.pulled <= (LIMIT + LIMIT // 1024 + OVERHEAD_BYTES) // (5 * count) + 3


def test_a_declared_length_over_the_limit_is_refused_without_reading() -> None:
    request = post(itertools.repeat(b"x"), "gzip", content_length=str(2 * LIMIT))
    assert (request.status, request.json["code"], request.pulled) == (400, "malformed_request", 0)


def test_a_chunk_of_empty_blocks_is_looked_at_a_piece_at_a_time() -> None:
    parts = encoding._Unpacker("deflate").feed(b"\x78\x9c" + EMPTY_BLOCK * PIECE_BYTES)
    assert sum(1 for _ in parts) >= 5


@pytest.mark.parametrize("kind", ["gzip", "deflate"])
@pytest.mark.parametrize("size", [STEP_BYTES + i for i in (-1, 0, 1, 257, 258, 259)] + [2 * STEP_BYTES, 3 * STEP_BYTES])
def test_nothing_is_lost_where_a_step_ends(kind: str, size: int) -> None:
    body = bytes(size)
    assert unpacked(zlib.compress(body, 9, encoding.WINDOW_BITS[kind]), kind) == body


@settings(deadline=None)
@given(st.sampled_from(["gzip", "deflate"]), st.binary(max_size=3000), st.integers(0, 9), st.integers(1, 50))
def test_any_body_comes_back(kind: str, body: bytes, level: int, repeat: int) -> None:
    assert unpacked(zlib.compress(body * repeat, level, encoding.WINDOW_BITS[kind]), kind) == body * repeat


@settings(deadline=None)
@given(st.sampled_from(["gzip", "deflate"]), st.binary(max_size=100), st.binary(max_size=20))
def test_any_bytes_are_unpacked_or_refused(kind: str, start: bytes, end: bytes) -> None:
    request = post([start, end], kind)
    assert request.status == 400
    assert request.json["code"] in (BadEncoding.code, MalformedRequest.code)
