"""What the cases are: of every kind that is promised, bounded, with the token where there is one."""

from collections import Counter

import pytest

from serve_app.bench.torture import bombs, surface
from serve_app.bench.torture.seeds import seeds
from serve_app.bench.torture.surface import CLASSIFY, MAKERS, Case, Ends, Material, case, request
from serve_app.decode import Decoder
from serve_app.errors import RequestError
from serve_app.model_spec import Geometry

MATERIAL = Material(tuple(seeds().values()), "digits")
NUMBER = 1000
MAX_BYTES = 21 << 20
"""Of a case: a form of five images."""


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [case(MATERIAL, 1, number) for number in range(NUMBER)]


def test_they_are_of_every_kind_and_bounded(cases: list[Case]) -> None:
    assert {each.kind for each in cases} == {maker.__name__ for maker in MAKERS}
    assert max(sum(map(len, each.chunks)) for each in cases) < MAX_BYTES
    assert 0 < sum(each.is_heavy for each in cases) < NUMBER / 100


def test_of_what_need_not_be_answered_most_is_looked_at(cases: list[Case]) -> None:
    ends = Counter(each.ends for each in cases)
    assert set(ends) == set(Ends)
    assert ends[Ends.LEAVES] < NUMBER / 10
    assert ends[Ends.LEAVES] < ends[Ends.STAYS] + ends[Ends.HALF_CLOSES]


def test_some_keep_a_connection_open_some_read_slowly_and_some_set_a_deadline(cases: list[Case]) -> None:
    assert {each.kind for each in cases if each.is_slow} >= {"stalled", "idle", "slow_reader", "length", "garbage"}
    stalled = next(each for each in cases if each.kind == "stalled")
    assert len(stalled.chunks) > 2
    assert b"".join(stalled.chunks).startswith(f"POST {CLASSIFY} HTTP/1.1\r\n".encode())
    late = [each for each in cases if each.has_deadline]
    assert {each.kind for each in late} == {"headers"}
    assert any(f"{surface.DEADLINE}: 0.001\r\n".encode() in each.chunks[0] for each in late)


def test_a_request_has_the_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVE_APP_TOKEN", raising=False)
    assert b"uthorization" not in request(b"7")
    monkeypatch.setenv("SERVE_APP_TOKEN", "sa_t")
    assert request(b"7").count(b"Authorization: Bearer sa_t\r\n") == 1
    assert b"Authorization: x\r\n" in request(b"7", headers={"Authorization": "x"})
    assert b"sa_t" not in request(b"7", headers={"Authorization": "x"})
    cases = [case(MATERIAL, 1, number) for number in range(300)]
    without = {each.kind for each in cases if b"Bearer sa_t\r\n" not in b"".join(each.chunks)}
    assert without <= {"garbage", "headers", "token", "idle", "slow"}  # headers: some give another
    tokens = [b"".join(each.chunks) for each in cases if each.kind == "token"]
    assert {b"Authorization: " in each for each in tokens} == {True, False}


def test_metadata_is_odd_and_no_decoder_of_ours_minds(cases: list[Case]) -> None:
    decode = Decoder(Geometry(resize_size=32, crop_size=28), 1_000_000)
    ended = Counter[str]()
    for each in cases:
        if each.kind == "metadata":
            try:
                decode(each.chunks[0].partition(b"\r\n\r\n")[2])
                ended["decoded"] += 1
            except RequestError as error:
                ended[error.code] += 1
    assert ended["decoded"] > 30


def test_bombs_are_of_every_format() -> None:
    names = {name.split()[0] for name in bombs.BORNE}
    assert names == {"JPEG", "PNG", "GIF", "WebP", "TIFF", "BigTIFF", "BMP"}
    assert set(bombs.HEAVY) <= set(bombs.BORNE)
