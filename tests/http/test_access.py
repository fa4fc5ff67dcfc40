"""Without a token nobody gets further than the page and the probes; and no byte of a body is read."""

from itertools import repeat
from typing import Any

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from serve_app.errors import RateLimited
from serve_app.http import build_app
from serve_app.http.access import OPEN, is_open
from tests.http.asgi import Exchange
from tests.http.service import FakeService

TOKEN = "sa_right"
WRONG: list[dict[str, str]] = [{}, {"authorization": "Bearer sa_wrong"}, {"authorization": f"Basic {TOKEN}"}]
RIGHT = {"authorization": f"Bearer {TOKEN}"}
APP = build_app(FakeService(token=TOKEN))
ROUTES = [route for route in APP.routes if isinstance(route, Route)]
PLACES = {"name": "digits", "version": "1"}


def every_request() -> list[tuple[str, str]]:
    found = []
    for route in ROUTES:
        path = route.path
        for name, value in PLACES.items():
            path = path.replace(f"{{{name}}}", value)
        assert "{" not in path
        found += [(method, path) for method in sorted(route.methods or ())]
    return found


CLOSED = [(method, path) for method, path in every_request() if not is_open(path)]


def test_what_is_open_is_there_to_be_read_and_nothing_else() -> None:
    opened = {(method, path) for method, path in every_request() if is_open(path)}
    assert {method for method, _ in opened} <= {"GET", "HEAD"}
    assert {path for _, path in opened} == {*OPEN, "/page/digits", "/page/samples/digits", "/docs/digits"} - {""}
    assert ("POST", "/v1/classify") in CLOSED
    assert ("POST", "/v2/models/digits/versions/1/infer") in CLOSED


@pytest.mark.parametrize("headers", WRONG)
@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_every_other_route_needs_the_token(method: str, path: str, headers: dict[str, str]) -> None:
    client = TestClient(APP)
    refused = client.request(method, path, headers=headers)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    if method != "HEAD":
        assert refused.json()["code"] == "unauthorized"
    assert client.request(method, path, headers=RIGHT).status_code != 401


@pytest.mark.parametrize("path", ["/v1/nothing", "/v2/health/live/", "/page", "/docs/../v1/classify", "//v1/classify"])
def test_what_is_not_there_needs_it_too(path: str) -> None:
    assert Exchange((), path=path).run(APP).status in (401, 404 if path.startswith("/docs/") else 401)
    assert b"classes" not in b"".join(m.get("body", b"") for m in Exchange((b"7",), path=path).run(APP).sent)


def test_the_body_is_not_read_and_no_preflight_is_answered() -> None:
    asked = Exchange(repeat(b"x")).run(APP)
    assert (asked.status, asked.pulled) == (401, 0)
    preflight = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    answer = TestClient(APP).options("/v1/classify", headers=preflight)
    assert answer.status_code == 401
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_below_a_prefix_it_is_the_same() -> None:
    for path, status in (("/birds/v1/model", 401), ("/birds/v2/health/live", 200), ("/birds/", 200)):
        assert TestClient(APP, root_path="/birds").get(path).status_code == status


def test_who_is_too_fast_is_told_when_to_come_back() -> None:
    class Hasty(FakeService):
        def authorize(self, authorization: str | None) -> None:
            raise RateLimited("too fast", 1.5)

    answer: Any = TestClient(build_app(Hasty())).post("/v1/classify", content=b"7")
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (429, "rate_limited", "2")
