"""The page as files: headers, validators, completeness, nothing from elsewhere. In a browser: tests/browser."""

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serve_app.http import build_app
from serve_app.http.files import CONTENT_TYPES, POLICY
from tests.conftest import REPOSITORY
from tests.http.service import FakeService

HTTP = REPOSITORY / "serve_app" / "http"
STATIC = HTTP / "static"
NAMES = sorted(path.name for path in STATIC.iterdir())
PATHS = ["/", *(f"/page/{name}" for name in NAMES if name != "index.html"), "/page/samples/7.png"]
NAMESPACE = "http://www.w3.org/2000/svg"
ABSOLUTE = re.compile(r"""(?:src|href|action)=["']/|url\(["']?/|fetch\(["']/|from ["']/""")


@pytest.fixture
def client() -> TestClient:
    return TestClient(build_app(FakeService()))


@pytest.mark.parametrize("path", PATHS)
def test_every_file_comes_with_its_type_and_is_closed_to_the_outside(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    suffix = Path(path).suffix or ".html"
    assert response.headers["content-type"] == CONTENT_TYPES[suffix]
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-cache"
    assert int(response.headers["content-length"]) == len(response.content) > 0


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere() -> None:
    directives = dict(directive.split(" ", 1) for directive in POLICY.split("; "))
    assert directives["default-src"] == directives["frame-ancestors"] == directives["form-action"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == directives["connect-src"] == "'self'"
    assert "unsafe" not in POLICY
    assert "*" not in POLICY


def test_the_page_is_served_before_the_model_is_ready() -> None:
    assert TestClient(build_app(FakeService(ready=False))).get("/").status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_head_answers_with_the_same_headers_and_no_body(client: TestClient, path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == get.headers


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
def test_what_the_client_has_is_not_sent_again(client: TestClient, form: str) -> None:
    first = client.get("/")
    etag = first.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag)  # strong
    second = client.get("/", headers={"if-none-match": form.format(etag)})
    assert (second.status_code, second.content) == (304, b"")
    assert second.headers["etag"] == etag
    assert second.headers["content-security-policy"] == POLICY


@pytest.mark.parametrize("tag", ['"other"', "", "W/", "x" * 1000])
def test_what_the_client_has_not_is_sent(client: TestClient, tag: str) -> None:
    assert client.get("/", headers={"if-none-match": tag}).status_code == 200


def test_files_have_tags_of_their_own(client: TestClient) -> None:
    tags = [client.get(path).headers["etag"] for path in PATHS]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/nothing.js",
        "/page/index.html",  # its relative URLs would lead nowhere from there
        "/page/../routes.py",
        "/page/%2e%2e/routes.py",
        "/page/..%2froutes.py",
        "/page/samples/10.png",
        "/page/samples/..%2fdigits.safetensors",
    ],
)
def test_there_is_nothing_else(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.json()["code"] == "not_found"


def test_it_is_read_not_written(client: TestClient) -> None:
    assert client.post("/").status_code == 405


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_another_host_or_a_path_from_the_root(name: str) -> None:
    text = (STATIC / name).read_text().replace(NAMESPACE, "")
    assert "//" not in re.sub(r"(?m)(^|\s)//\s.*", "", text)  # comments aside, it stands in URLs alone
    assert not ABSOLUTE.search(text)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith((".js", ".html", ".css"))])
def test_every_file_that_a_file_names_is_there(client: TestClient, name: str) -> None:
    text = (STATIC / name).read_text()
    named = re.findall(r'(?:from "\./|(?:href|src)="page/)([\w.-]+)"', text)
    assert set(named) <= set(NAMES)
    assert named or not name.endswith(".html")


def test_the_page_has_nothing_inline() -> None:
    text = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", text)


def test_every_file_is_in_the_package() -> None:
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    patterns = pyproject["tool"]["setuptools"]["package-data"]["serve_app.http"]
    missing = [name for name in NAMES if not any(fnmatch.fnmatch(f"static/{name}", each) for each in patterns)]
    assert missing == []


def test_below_a_prefix_the_page_has_the_slash_that_its_relative_urls_need() -> None:
    client = TestClient(build_app(FakeService()), root_path="/digits")
    response = client.get("/digits", follow_redirects=False)
    assert response.status_code == 307
    assert response.headers["location"] == "digits/"  # relative: no scheme, no host, whatever stands in front
    assert client.get("/digits/").text == (STATIC / "index.html").read_text()
    assert client.get("/digits/page/page.js").status_code == 200


def test_the_model_is_described_with_the_limits_a_client_does_well_to_keep_to(client: TestClient) -> None:
    service = FakeService()
    answer = client.get("/v1/model").json()
    assert answer.items() >= service.metadata().items()
    assert answer["server"]["name"] == "serve-app"
    assert answer["limits"] == {
        "max_image_bytes": service.args.max_image_bytes,
        "max_request_bytes": service.args.max_request_bytes,
        "max_json_bytes": service.args.max_json_bytes,
        "max_image_pixels": service.args.max_image_pixels,
        "max_images": service.args.max_images,
        "max_top_k": service.max_top_k,
    }
