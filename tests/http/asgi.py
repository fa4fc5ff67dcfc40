"""An ASGI application driven by hand: what it pulls of a body, and what it sends."""

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message


@dataclass
class Exchange:
    """One POST with a body that arrives in `chunks`, which may be endless."""

    chunks: Iterable[bytes]
    headers: dict[str, str] = field(default_factory=dict)
    ends_in_disconnect: bool = False
    path: str = "/v1/classify"
    pulled: int = 0
    sent: list[Message] = field(default_factory=list)

    def run(self, app: ASGIApp) -> "Exchange":
        asyncio.run(self.drive(app))
        return self

    async def drive(self, app: ASGIApp) -> None:
        iterator = iter(self.chunks)

        async def receive() -> Message:
            return self._next(iterator)

        async def send(message: Message) -> None:
            self.sent.append(message)

        await app(self._scope(), receive, send)

    def _next(self, iterator: Iterator[bytes]) -> Message:
        self.pulled += 1
        for chunk in iterator:
            return {"type": "http.request", "body": chunk, "more_body": True}
        if self.ends_in_disconnect:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    def _scope(self) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in self.headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def json(self) -> Any:
        return json.loads(b"".join(message.get("body", b"") for message in self.sent))
