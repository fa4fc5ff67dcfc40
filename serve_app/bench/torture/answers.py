"""What came back of a case: bytes -> answers -> outcomes, and which of these a case may end with."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.bench.torture.surface import Case, Ends

HEAD = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
DOCUMENTED = frozenset({200, 400, 401, 404, 405, 413, 415, 422, 429})
"""In README's table, of what a service answers that is not too busy and has no bug."""
PLAIN = (
    *((400, b"<html><body><h1>400 Bad request</h1>"), (413, b"<html><body><h1>413 Payload Too Large</h1>")),
    *((404, b"Path '"), (400, b"Invalid HTTP request received.")),
)
"""Answers without a code, to what no application was asked: HAProxy's to broken HTTP, the same for what is called
HTTP/0.9, Ray's in HAProxy to a path of no application (`*`, say), uvicorn's to broken HTTP."""
CLOSED, HUNG, LEFT, LATE, NO_CONNECTION = "closed", "hung", "left", "late", "no connection"
UNANSWERED = "no answer"
BUG = "500"
"""Ours with a code, HAProxy's and uvicorn's without: it is a failure either way."""
BORNE = frozenset({*map(str, DOCUMENTED), CLOSED, LEFT, LATE})


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    is_whole: bool


def parsed(received: bytes, is_closed: bool, has_body: bool = True) -> list[Answer]:
    """What came on a connection, in order; the last may be cut short. Without `has_body` of HEAD, which has none."""
    found, at = [], 0
    while (head := HEAD.match(received, at)) and (end := received.find(b"\r\n\r\n", at)) >= 0:
        begin, length = end + 4, LENGTH.search(received, at, end + 2)
        at = len(received) if length is None else begin + int(length[1]) * has_body
        is_whole = is_closed if length is None else at <= len(received)
        if int(head[1]) >= 200:  # else another follows
            found.append(Answer(int(head[1]), received[begin:at], is_whole))
    return found


def has_enough(asked: Case, received: bytes) -> bool:
    """Whether as many answers have come as the client waits for."""
    return sum(answer.is_whole for answer in parsed(received, False, asked.has_body)) >= asked.answers


def judged(asked: Case, received: bytes, is_closed: bool) -> list[str]:
    """The status of each answer, what is wrong with it, or why there was none."""
    answers = parsed(received, is_closed, asked.has_body)
    results = [_outcome(asked, answer) for answer in answers if answer.is_whole]
    if asked.ends is not Ends.WAITS:
        return results or [LEFT]
    if not asked.is_http:
        return results or [CLOSED]
    if len(results) >= asked.answers or (results and answers[len(results) - 1].status >= 400):
        return results  # what is refused may be the last
    return [*results, f"{len(results)} of {asked.answers} answers" if answers else UNANSWERED]


def is_borne(outcome: str) -> bool:
    """Whether a case may end so.

    CLOSED: without a word, where the HTTP itself is broken. LEFT: as the client does. LATE: 503 or 504, by a deadline
    that the client has set itself.
    """
    return outcome in BORNE


def worst(outcomes: Sequence[str]) -> str:
    return max(outcomes, key=lambda each: (not is_borne(each), each))


def _outcome(asked: Case, answer: Answer) -> str:
    status = str(answer.status)
    if answer.status >= 400 and status != BUG and asked.has_body and not _is_documented(asked, answer):
        return f"{status} without a code"
    return LATE if asked.has_deadline and answer.status in (503, 504) else status


def _is_documented(asked: Case, answer: Answer) -> bool:
    if any(answer.status == status and answer.body.startswith(begin) for status, begin in PLAIN):
        return not asked.is_http
    try:
        body = json.loads(answer.body)
    except ValueError:
        return False
    return isinstance(body, dict) and all(isinstance(body.get(name), str) for name in ("error", "code"))
