import json
import threading
import time
from collections.abc import Iterator, Mapping

import pytest

from serve_app.bench.autoscale import watch
from serve_app.bench.autoscale.seen import Seen
from serve_app.bench.autoscale.watch import Unseen, Watch, answering
from serve_app.bench.serve_api import ServeApiError
from tests.bench import server
from tests.bench.server import REFUSAL, Answer, Reply

TIMEOUT_S = 10.0


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PERIOD_S", 0.001)


class Cluster:
    """Each look sees the next states, and the last ones from then on."""

    def __init__(self, *states: Mapping[str, str] | Exception, answers: Iterator[str | None]) -> None:
        self._states = list(states)
        self._answers = answers
        self.ended = threading.Event()

    def look(self) -> Seen:
        if len(self._states) == 1:
            self.ended.set()
        states = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if isinstance(states, Exception):
            raise states
        return Seen(len(states), states)

    def answering(self) -> str | None:
        return next(self._answers)


def test_a_replica_is_ready_with_its_first_answer_and_is_asked_no_more() -> None:
    start = time.monotonic()
    # One request that fails, and one that another replica takes. Of a further one the iterator would raise.
    answers = iter(["a", None, "a", "b"])
    states = [{"a": "RUNNING"}, {"a": "RUNNING", "b": "STARTING"}, *[{"a": "RUNNING", "b": "RUNNING"}] * 9]
    cluster = Cluster(*states, answers=answers)
    with Watch(cluster.look, cluster.answering) as watched:
        assert cluster.ended.wait(TIMEOUT_S)
    found = watched.history(start)
    assert list(found.answered_s) == ["a", "b"]
    assert 0 <= found.answered_s["a"] < found.answered_s["b"] < TIMEOUT_S
    assert [look.seen.states for look in found.looks][:2] == states[:2]
    assert next(look.at_s for look in found.looks if look.count("RUNNING") == 2) <= found.answered_s["b"]
    assert next(answers, None) is None


def test_a_look_that_fails_leaves_a_gap() -> None:
    cluster = Cluster(ServeApiError("busy"), {"a": "STARTING"}, ValueError("half an answer"), answers=iter(()))
    with Watch(cluster.look, cluster.answering) as watched:
        assert cluster.ended.wait(TIMEOUT_S)
    assert len(watched.history(0.0).looks) == 1


def test_where_every_look_fails_the_reason_is_told() -> None:
    cluster = Cluster(ServeApiError("busy"), ServeApiError("401 Unauthorized"), answers=iter(()))
    with Watch(cluster.look, cluster.answering) as watched:
        assert cluster.ended.wait(TIMEOUT_S)
    with pytest.raises(Unseen, match="401"):
        watched.history(0.0)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(Answer(body=json.dumps({"replica": "a"}).encode()), "a"), (REFUSAL, None), (Answer(), None), (None, None)],
)
def test_who_answers_is_in_the_answer(answer: Answer | None, expected: str | None) -> None:
    async def reply(body: bytes) -> Answer | None:
        return answer if body == b"image" else REFUSAL

    given: Reply = reply
    with server.running(given) as url:
        assert answering(url, b"image") == expected
