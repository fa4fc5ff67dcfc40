"""Which requests are refused by their headers alone, before Ray has spent anything on them."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Scope

from serve_app import tracing
from serve_app.door import Judge
from serve_app.errors import BadParameter, RequestError
from serve_app.headers import plain_id, wishes
from serve_app.http.access import admit
from serve_app.http.errors import refusal
from serve_app.scheduler import Priority, Terms
from serve_app.service import Service

WITHOUT_BODY = ("GET", "HEAD")
"""Some of these paths are open to everybody: the application knows which."""


def judge(service: Service) -> Judge:
    """Refuses whom the application would refuse by then. Call it in the event loop of `service`."""
    loop = asyncio.get_running_loop()

    def judged(scope: Scope) -> ASGIApp | None:
        if asyncio.get_running_loop() is not loop:  # Ray can run the HTTP server in a thread of its own
            return None
        if scope["method"] in WITHOUT_BODY:
            return None
        try:
            admit(service, scope)
            _check_in_time(service, scope)
        except RequestError as error:
            answer = refusal(error, error.status)
            answer.headers["x-request-id"] = plain_id(Headers(scope=scope).get("x-request-id", ""))
            return answer
        return None

    return judged


def _check_in_time(service: Service, scope: Scope) -> None:
    """Raises what the route of an image would: with images that it refuses, a replica is to spend nothing."""
    path: str = scope["path"]  # with the application's prefix
    is_infer = path.endswith("/infer")
    headers = Headers(scope=scope)
    if not (is_infer or path.endswith("/v1/classify")) or tracing.is_wanted(headers.get("traceparent")):
        return  # where a span is wanted, its route makes it
    try:
        timeout_s, priority = wishes(headers)
    except BadParameter:
        return  # its route says so
    # An inference request's own parameters may yet allow more time than the server would.
    terms = Terms(priority=Priority.INTERACTIVE)
    if timeout_s or not is_infer:
        terms = service.terms(timeout_s, priority or Priority.INTERACTIVE)
    service.check_admission(terms)
