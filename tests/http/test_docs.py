"""/openapi.json and /docs as files: what they load, from where, and what a browser may do with them."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from serve_app.http import build_app, docs
from serve_app.http.openapi import document
from tests.http.service import FakeService

PARTS = ("docs.js", *docs.VENDORED)
EVERY = ("/docs", "/openapi.json", *(f"/docs/{name}" for name in PARTS))
# swagger-ui-bundle.js names many hosts, and asks none of them: tests/browser listens.
URL = re.compile(r"https?://|url\(\s*['\"]?//", re.IGNORECASE)


def client() -> TestClient:
    return TestClient(build_app(FakeService()))


class Page(HTMLParser):
    """What a page loads, and what of it stands in the page itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        self.loaded += [value for name, value in given.items() if name in ("src", "href") and value is not None]


def test_the_document_is_the_one_that_is_served() -> None:
    answer = client().get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(json.dumps(document(FakeService())))


@pytest.mark.parametrize("prefix", ["", "/some/prefix"])
def test_the_page_loads_only_what_is_there_below_any_prefix(prefix: str) -> None:
    app = Starlette(routes=[Mount(prefix, build_app(FakeService()))])
    at = TestClient(app)
    page = Page(at.get(f"{prefix}/docs").text)
    assert {f"docs/{name}" for name in PARTS} <= set(page.loaded)
    for url in (*page.loaded, "openapi.json"):
        assert at.get(urljoin(f"{prefix}/docs", url)).status_code == 200


def test_nothing_comes_from_another_host() -> None:
    page = client().get("/docs").text
    assert [url for url in Page(page).loaded if urlsplit(url).netloc or url.startswith("/")] == []
    for text in (page, client().get("/docs/docs.js").text, client().get("/docs/swagger-ui.css").text):
        assert URL.findall(text.replace("http://www.w3.org/", "")) == []


def test_the_document_is_found_relative_to_the_page() -> None:
    assert 'url: "openapi.json"' in client().get("/docs/docs.js").text
    assert client().get("/openapi.json").json()["servers"] == [{"url": "."}]


@pytest.mark.parametrize("path", EVERY)
def test_scripts_and_styles_are_only_files_of_this_host(path: str) -> None:
    headers = client().get(path).headers
    policy = dict(part.split(maxsplit=1) for part in headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    assert headers["x-content-type-options"] == "nosniff"


def test_the_page_needs_no_more_than_that() -> None:
    assert Page(client().get("/docs").text).inline == []


@pytest.mark.parametrize("path", EVERY)
def test_who_has_it_does_not_get_it_again(path: str) -> None:
    first = client().get(path)
    again = client().get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert again.headers["etag"] == first.headers["etag"]


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("docs.js", "text/javascript; charset=utf-8"),
        ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("swagger-ui.css", "text/css; charset=utf-8"),
        ("favicon-32x32.png", "image/png"),
    ],
)
def test_each_part_says_what_it_is(name: str, content_type: str) -> None:
    answer = client().get(f"/docs/{name}")
    assert (answer.headers["content-type"], len(answer.content) > 0) == (content_type, True)


@pytest.mark.parametrize("name", ["docs.html", "other.js", "..%2fdocs.html", "%2e%2e", "__init__.py"])
def test_nothing_else_is_served(name: str) -> None:
    assert client().get(f"/docs/{name}").json()["code"] == "not_found"
