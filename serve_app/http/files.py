"""Files served from memory: read once, revalidated by their hash, and closed to everything from outside."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

CONTENT_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
"""Not from `mimetypes`, which asks the operating system: with nosniff, a wrong type is a page that does not work."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy (W3C CSP 3): nothing from another host, nothing inline, in nobody's frame."""


@dataclass(frozen=True)
class File:
    """A file's bytes and the headers that go with them."""

    content: bytes
    content_type: str

    @classmethod
    def read(cls, source: Traversable) -> "File":
        """Raises OSError where there is none, KeyError where its suffix is not in CONTENT_TYPES."""
        return cls(source.read_bytes(), CONTENT_TYPES[PurePosixPath(source.name).suffix])

    @cached_property
    def etag(self) -> str:
        """A strong validator (RFC 9110, 8.8.1): other bytes, another tag."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    def answer(self, request: Request) -> Response:
        """200 with the content, or 304 where the client has it."""
        headers = {
            "cache-control": "no-cache",  # kept, but asked for each time: a new version shows at once
            "content-security-policy": POLICY,
            "etag": self.etag,
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        }
        if self._is_in(request.headers.getlist("if-none-match")):
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.content_type, headers=headers)

    def _is_in(self, if_none_match: list[str]) -> bool:
        """By weak comparison, as RFC 9110 (13.1.2) has it; a proxy that compresses makes tags weak."""
        tags = {tag.strip().removeprefix("W/") for line in if_none_match for tag in line.split(",")}
        return bool(tags & {"*", self.etag})


def named(files: Mapping[str, File], request: Request) -> Response:
    """The file that the path names: looked up, never opened, so no name leads out of a folder."""
    file = files.get(request.path_params["name"])
    if file is None:
        raise HTTPException(404)
    return file.answer(request)
