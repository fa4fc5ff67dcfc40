"""Requests to the application over a fake service, and what its refusals have in common."""

from typing import Any

import httpx2
from starlette.testclient import TestClient

from serve_app.http import build_app
from tests.http.service import FakeService


def client(service: FakeService | None = None) -> TestClient:
    return TestClient(build_app(service or FakeService()), raise_server_exceptions=False)


def classify(
    service: FakeService | None = None, content: bytes = b"7", query: str = "", **headers: Any
) -> httpx2.Response:
    """A photo to /v1/classify; `x_request_id` is the header x-request-id."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client(service).post(f"/v1/classify{query}", content=content, headers=names)


def failing(error: Exception) -> FakeService:
    """A service whose image `bad` fails."""
    return FakeService(raises={b"bad": error})


def refusal(response: httpx2.Response) -> tuple[int, str]:
    """Status and code of an answer that has nothing else but its message."""
    body = response.json()
    assert body.keys() == {"error", "code"}
    return response.status_code, body["code"]
