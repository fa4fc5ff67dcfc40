"""The OpenAPI 3.1 document of one service."""

from typing import Any

from serve_app.http.openapi import answers, inference, operations
from serve_app.service import Service
from serve_app.version import VERSION

OPENAPI = "3.1.0"
DESCRIPTION = """
Photos in, classes out, batched on the fly from live traffic.

Errors are `{"error": message, "code": code}`, those of Ray Serve and its proxies too. With any path: `404` `not_found`
where there is none, `405` `method_not_allowed` with `Allow` where it has another method. `503` says in `Retry-After`
after how many seconds to try again.
"""


def document(service: Service) -> dict[str, Any]:
    """Of every route but the files that the pages load. It holds for as long as the replica runs."""
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "serve-app",
            "version": VERSION,
            "summary": f"{service.model_name}: {len(service.labels)} classes",
            "description": DESCRIPTION.strip(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # Relative to the document: the same under a route_prefix, and behind TLS.
        "servers": [{"url": "."}],
        "paths": operations.paths(service),
        "components": {
            "schemas": {**answers.schemas(service), **inference.schemas(service)},
            "securitySchemes": {operations.SCHEME: {"type": "http", "scheme": "bearer"}},
        },
    }
