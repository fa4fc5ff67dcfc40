"""The page at `/`: what this service does, to try in a browser.

GET /                     the page
GET /page/NAME            its scripts, its style, its icon
GET /page/samples/N.png   a handwritten digit for each class of the bundled checkpoint

All of it is in the package, and every URL in it is relative: it works below a `route_prefix`, and without a network.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.http.files import File, named

INDEX = "index.html"


def routes() -> list[Route]:
    """Read from the package here, once per application."""
    static = _read(files("serve_app.http") / "static")
    samples = _read(files("serve_app.bundled") / "samples")
    index = static.pop(INDEX)

    async def page(request: Request) -> Response:
        return index.answer(request)

    async def part(request: Request) -> Response:
        return named(static, request)

    async def sample(request: Request) -> Response:
        return named(samples, request)

    return [Route("/", page), Route("/page/samples/{name}", sample), Route("/page/{name}", part)]


def with_last_slash(otherwise: ASGIApp) -> ASGIApp:
    """Below a prefix the page's relative URLs need its last slash: the prefix alone is sent there."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"] or scope["path"] != scope.get("root_path"):
            await otherwise(scope, receive, send)
            return
        last = quote(scope["path"].rpartition("/")[2])
        await RedirectResponse(f"{last}/")(scope, receive, send)

    return answer


def _read(folder: Traversable) -> dict[str, File]:
    return {entry.name: File.read(entry) for entry in folder.iterdir() if entry.is_file()}
