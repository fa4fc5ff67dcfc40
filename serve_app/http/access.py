"""Who may call: nobody without a token, where there are tokens, except for what says nothing of the service's use."""

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.errors import RequestError
from serve_app.http.errors import refusal
from serve_app.service import Service

OPEN = ("", "/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")
"""Without a token: probes have none, and a browser none before it has the page."""
OPEN_BELOW = ("/page/", "/docs/")
ADMITTED = "serve_app.admitted"
"""In a request's scope, which no client can write: it has been asked at the door already, and is charged once."""


def is_open(path: str) -> bool:
    """Whether everybody may have this path, below the application's prefix."""
    return path in OPEN or path.startswith(OPEN_BELOW)


def admit(service: Service, scope: Scope) -> None:
    """Raises Unauthorized, or RateLimited."""
    if not scope.get(ADMITTED):
        service.authorize(Headers(scope=scope).get("authorization"))
        scope[ADMITTED] = True


class Access:
    """ASGI middleware of the application. Closed is whatever is not open by name: a new route too."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self._app
        if scope["type"] == "http" and not is_open(_path(scope)):
            answer = self._refusal(scope) or self._app
        await answer(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        try:
            admit(self._service, scope)
        except RequestError as error:
            return refusal(error, error.status)
        return None


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
