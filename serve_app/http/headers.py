"""Headers of requests and answers that mean the same on every path; what they ask for: serve_app/headers.py."""

from collections.abc import Iterable

from starlette.requests import Request

from serve_app.headers import plain_id

STAGES = ("decode", "queue", "device")


def request_id(request: Request) -> str:
    """The client's or Ray's X-Request-ID where it is a plain word, else a new one; one per request."""
    if not hasattr(request.state, "request_id"):
        request.state.request_id = plain_id(request.headers.get("x-request-id", ""))
    found: str = request.state.request_id
    return found


def server_timing(milliseconds: Iterable[float]) -> dict[str, str]:
    """The milliseconds of STAGES as a header (W3C Server Timing)."""
    return {"server-timing": ", ".join(f"{stage};dur={ms}" for stage, ms in zip(STAGES, milliseconds, strict=True))}
