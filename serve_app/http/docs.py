"""The document of all routes, and a page to read it.

GET /openapi.json   OpenAPI 3.1
GET /docs           Swagger UI
GET /docs/NAME      its script and style, from the package fastapi-swagger, and what starts it

Nothing is loaded from another host, and every URL is relative: it works below a `route_prefix`, and without a network.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_app.http.files import File, named
from serve_app.http.openapi import document
from serve_app.service import Service

VENDORED = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")


def routes(service: Service) -> list[Route]:
    """What they serve is read and made when it is first asked for: of most replicas it never is."""

    @cache
    def described() -> File:
        return File(json.dumps(document(service), separators=(",", ":")).encode(), "application/json")

    async def openapi(request: Request) -> Response:
        return described().answer(request)

    return [
        Route("/openapi.json", openapi),
        Route("/docs", page),
        Route("/docs/{name}", part),
    ]


async def page(request: Request) -> Response:
    return _page().answer(request)


async def part(request: Request) -> Response:
    return named(_parts(), request)


@cache
def _page() -> File:
    return File.read(files("serve_app.http.openapi") / "docs.html")


@cache
def _parts() -> Mapping[str, File]:
    vendored = files("fastapi_swagger") / "resources"
    sources = [files("serve_app.http.openapi") / "docs.js", *(vendored / name for name in VENDORED)]
    return {source.name: File.read(source) for source in sources}
