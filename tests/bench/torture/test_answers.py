"""What a case may end with, and what not."""

import pytest

from serve_app.bench.torture.answers import CLOSED, LATE, LEFT, UNANSWERED, Answer, is_borne, judged, parsed
from serve_app.bench.torture.surface import Case, Ends, request

GOOD = Case("image", (request(b"7"),))
BROKEN = Case("line", (b"x",), is_http=False)
STAYING = Case("garbage", (b"x",), Ends.STAYS, is_http=False)
HAPROXY = b"<html><body><h1>400 Bad request</h1>\nYour browser sent an invalid request.\n</body></html>\n"


def answer(status: int, body: bytes = b'{"error": "e", "code": "c"}') -> bytes:
    return b"HTTP/1.1 %d Word\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body


def test_answers_are_told_apart_by_their_lengths() -> None:
    both = answer(200, b"HTTP/1.1 500 is no status\r\n\r\n") + answer(404)
    assert [each.status for each in parsed(both, False)] == [200, 404]
    assert [each.is_whole for each in parsed(both[:-1], True)] == [True, False]
    assert parsed(answer(100, b"") + answer(200, b"x"), False) == [Answer(200, b"x", True)]
    assert parsed(b"noise", True) == []


def test_without_a_length_it_is_whole_when_the_connection_closes() -> None:
    without = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nInvalid"
    assert parsed(without, False) == [Answer(400, b"Invalid", False)]
    assert parsed(without, True) == [Answer(400, b"Invalid", True)]


def test_the_answer_to_head_has_a_length_and_no_body() -> None:
    asked = Case("line", (b"HEAD / HTTP/1.1\r\n\r\n",), is_http=False)
    assert judged(asked, b"HTTP/1.1 405 No\r\ncontent-length: 58\r\n\r\n", False) == ["405"]


def test_closed_without_a_word_is_an_answer_to_broken_http_alone() -> None:
    assert (judged(GOOD, b"", True), is_borne(UNANSWERED)) == ([UNANSWERED], False)
    assert (judged(BROKEN, b"", True), is_borne(CLOSED)) == ([CLOSED], True)


def test_what_need_not_be_answered_is_judged_where_it_is() -> None:
    assert judged(STAYING, b"", False) == [LEFT]
    assert (judged(STAYING, answer(500), False), is_borne("500")) == (["500"], False)


@pytest.mark.parametrize("asked", [GOOD, BROKEN, STAYING])
def test_an_error_of_ours_has_its_code(asked: Case) -> None:
    assert judged(asked, answer(422), False) == ["422"]
    for body in (b"", b"no", b"[]", b'{"error": "e"}', b'{"error": "e", "code": 3}'):
        [found] = judged(asked, answer(422, body), True)
        assert not is_borne(found)


@pytest.mark.parametrize("body", [HAPROXY, b"Invalid HTTP request received."])
def test_others_plain_words_are_for_broken_http_alone(body: bytes) -> None:
    assert judged(BROKEN, answer(400, body), True) == ["400"]
    [found] = judged(GOOD, answer(400, body), True)
    assert not is_borne(found)
    [found] = judged(BROKEN, answer(404, body), True)
    assert not is_borne(found)


def test_each_of_many_requests_is_answered_or_a_refusal_is_the_last_answer() -> None:
    asked = Case("pipelined", (request(b"7") * 3,), answers=3)
    assert judged(asked, answer(200) + answer(422) + answer(200), False) == ["200", "422", "200"]
    assert judged(asked, answer(200) + answer(413), True) == ["200", "413"]
    found = judged(asked, answer(200) + answer(200), True)
    assert (found, is_borne(found[-1])) == (["200", "200", "2 of 3 answers"], False)


def test_an_answer_that_is_cut_short_is_none() -> None:
    [found] = judged(GOOD, answer(200)[:-1], True)
    assert not is_borne(found)


def test_a_deadline_of_its_own_may_pass() -> None:
    asked = Case("headers", (b"x",), is_http=False, has_deadline=True)
    assert judged(asked, answer(504), False) == judged(asked, answer(503), False) == [LATE]
    assert is_borne(LATE)
    assert not is_borne(judged(asked, answer(503, b"Service Unavailable"), True)[0])
    for status in ("503", "504", "500", "502", "204", "304", "408", "499"):
        assert not is_borne(status)
