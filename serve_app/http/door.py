"""Which requests are refused by their headers alone, before Ray has spent anything on them."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Scope

from serve_app import tracing
from serve_app.door import Judge
from serve_app.errors import BadParameter, RequestError
from serve_app.headers import plain_id, wishes
from serve_app.http.errors import refusal
from serve_app.scheduler import Priority, Terms
from serve_app.service import Service


def judge(service: Service) -> Judge:
    """Refuses what the route of the request would refuse by then. Call it in the event loop of `service`."""
    loop = asyncio.get_running_loop()

    def judged(scope: Scope) -> ASGIApp | None:
        if asyncio.get_running_loop() is not loop:  # Ray can run the HTTP server in a thread of its own
            return None
        path: str = scope["path"]  # with the application's prefix
        is_infer = path.endswith("/infer")
        if scope["method"] != "POST" or not (is_infer or path.endswith("/v1/classify")):
            return None
        headers = Headers(scope=scope)
        if tracing.is_wanted(headers.get("traceparent")):  # its span is made on its route
            return None
        try:
            timeout_s, priority = wishes(headers)
            # An inference request's own parameters may yet allow more time than the server would.
            terms = Terms(priority=Priority.INTERACTIVE)
            if timeout_s or not is_infer:
                terms = service.terms(timeout_s, priority or Priority.INTERACTIVE)
            service.check_admission(terms)
        except BadParameter:
            return None  # its route says so
        except RequestError as error:
            answer = refusal(error, error.status)
            answer.headers["x-request-id"] = plain_id(headers.get("x-request-id", ""))
            return answer
        return None

    return judged
