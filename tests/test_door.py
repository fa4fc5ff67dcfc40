"""What a replica refuses before Ray has spent anything on it."""

import asyncio
import threading
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from starlette.responses import PlainTextResponse
from starlette.types import Scope

from serve_app.door import Door
from serve_app.errors import DeviceStalled, Overloaded
from serve_app.http import build_app, judge
from tests.http.asgi import Exchange
from tests.http.service import FakeService
from tests.scheduler.virtual_clock import run

FULL = Overloaded("the queue is too long", 1.2)
CLASSIFY, INFER = "/v1/classify", "/v2/models/digits/infer"
BEHIND = PlainTextResponse("behind the door")
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _nobody_judges_afterwards() -> Iterator[None]:
    yield
    Door.judge = None


def exchange(service: FakeService | None = None, path: str = CLASSIFY, **headers: str) -> Exchange:
    """A POST with an endless body, to the door of `service`."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = Exchange(repeat(b"x"), names, path=path)

    async def ask() -> None:
        Door.judge = judge(service or FakeService(refuses=FULL))
        await asked.drive(Door(BEHIND))

    asyncio.run(ask())
    assert asked.pulled == 0
    return asked


def is_let_in(asked: Exchange) -> bool:
    return asked.status == 200 and asked.sent[1]["body"] == BEHIND.body


@pytest.mark.parametrize("path", [CLASSIFY, INFER, "/v2/models/digits/versions/1/infer", f"/birds{CLASSIFY}"])
@pytest.mark.parametrize("error", [FULL, DeviceStalled("it hangs", 10.0)])
def test_an_image_that_would_be_refused_is_refused_unread(path: str, error: Any) -> None:
    asked = exchange(FakeService(refuses=error), path, x_request_id="mine")
    assert (asked.status, asked.json) == (503, {"error": error.message, "code": error.code})
    headers = dict(asked.sent[0]["headers"])
    assert headers[b"retry-after"] == str(-int(-error.retry_after_s // 1)).encode()
    assert headers[b"x-request-id"] == b"mine"


def test_an_id_that_is_no_plain_word_is_not_repeated() -> None:
    headers = dict(exchange(x_request_id="<b>").sent[0]["headers"])
    assert headers[b"x-request-id"].isalnum()


def test_whom_the_scheduler_takes_is_let_in() -> None:
    assert is_let_in(exchange(FakeService()))


@pytest.mark.parametrize("path", ["/", "/v1/model", "/v2/health/ready", "/v2/models/digits", "/v2/repository/index"])
def test_what_needs_no_device_is_let_in(path: str) -> None:
    assert is_let_in(exchange(path=path))


def test_what_the_route_has_to_explain_is_let_in() -> None:
    assert is_let_in(exchange(x_request_timeout_seconds="soon"))


@pytest.mark.parametrize("path", [CLASSIFY, INFER, "/v2/repository/index", "/nothing"])
def test_a_body_is_taken_from_nobody_without_a_token(path: str) -> None:
    service = FakeService(token="sa_right")
    refused = exchange(service, path, authorization="Bearer sa_wrong", traceparent=SAMPLED)
    assert (refused.status, refused.json["code"]) == (401, "unauthorized")
    assert (b"www-authenticate", b"Bearer") in refused.sent[0]["headers"]
    assert is_let_in(exchange(service, path, authorization="Bearer sa_right"))


def test_a_request_is_charged_once() -> None:
    charged = []

    class Charging(FakeService):
        def authorize(self, authorization: str | None) -> None:
            charged.append(authorization)

    async def ask() -> None:
        service = Charging()
        Door.judge = judge(service)
        asked = Exchange([b"7"], {"authorization": "Bearer sa"})
        await asked.drive(Door(build_app(service)))
        assert asked.status == 200

    asyncio.run(ask())
    assert charged == ["Bearer sa"]


def test_the_terms_are_those_of_the_route() -> None:
    asked: list[Any] = []

    class Listening(FakeService):
        def check_admission(self, terms: Any) -> None:
            asked.append((terms.deadline, terms.priority.name))

    service = Listening(counts_up=True)
    exchange(service, x_request_timeout_seconds="0.25", x_request_priority="batch")
    exchange(service)
    exchange(service, INFER, x_request_timeout_seconds="0.25")
    exchange(service, INFER)  # its own parameters may allow more time than the server does
    assert asked == [(0.25, "BATCH"), (2.0, "INTERACTIVE"), (0.25, "INTERACTIVE"), (float("inf"), "INTERACTIVE")]


def test_a_request_whose_span_is_wanted_is_let_in_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_let_in(exchange(traceparent=SAMPLED))  # nobody traces here
    monkeypatch.setattr(trace, "get_tracer_provider", TracerProvider)
    assert is_let_in(exchange(traceparent=SAMPLED))
    assert not is_let_in(exchange(traceparent=SAMPLED.removesuffix("01") + "00"))
    assert not is_let_in(exchange())


def test_a_server_in_another_thread_asks_nobody() -> None:
    async def test() -> None:
        Door.judge = judge(FakeService(refuses=FULL))
        asked = Exchange(())
        thread = threading.Thread(target=asked.run, args=(Door(BEHIND),))
        thread.start()
        thread.join()
        assert is_let_in(asked)

    asyncio.run(test())


def test_without_a_judge_and_for_what_is_no_http_request_it_is_open() -> None:
    assert is_let_in(Exchange(()).run(Door(BEHIND)))

    async def test() -> None:
        Door.judge = judge(FakeService(refuses=FULL))
        seen: list[Scope] = []

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            seen.append(scope)

        await Door(app)({"type": "lifespan"}, _nothing, _nothing)
        assert seen == [{"type": "lifespan"}]

    run(test())


async def _nothing(*_: Any) -> Any:
    return None
