"""Parameters of requests: names in the path, queries, headers."""

from serve_app.headers import PLAIN_NUMBER, PRIORITY_HEADER, TIMEOUT_HEADER
from serve_app.http.encoding import WINDOW_BITS
from serve_app.http.infer import HEADER_LENGTH
from serve_app.http.openapi.schema import TEXT, Schema
from serve_app.protocol.request import MODEL_VERSION
from serve_app.scheduler import Priority
from serve_app.service import Service

REQUEST_ID: Schema = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "names the request in the answer and in the log; what is not a plain word of at most 128 "
    "characters is replaced",
    "schema": TEXT,
}
TIMEOUT: Schema = {
    "name": TIMEOUT_HEADER.title(),
    "in": "header",
    "description": "the deadline of the request, in seconds from now, e.g. `0.25`",
    "schema": {"type": "string", "pattern": f"^(?=.*[1-9])({PLAIN_NUMBER.pattern})$"},
}
PRIORITY: Schema = {
    "name": PRIORITY_HEADER.title(),
    "in": "header",
    "description": "`batch` waits behind `interactive`, the default",
    "schema": {"enum": [priority.name.lower() for priority in Priority]},
}
CONTENT_ENCODING: Schema = {
    "name": "Content-Encoding",
    "in": "header",
    "description": "how the body is packed",
    "schema": {"enum": ["identity", *WINDOW_BITS]},
}
IF_NONE_MATCH: Schema = {
    "name": "If-None-Match",
    "in": "header",
    "description": "ETags that the client has: 304 if one of them is still right",
    "schema": TEXT,
}


def header_length(service: Service) -> Schema:
    """Of an inference request with binary tensors."""
    return {
        "name": HEADER_LENGTH.title(),
        "in": "header",
        "description": "bytes of JSON at the beginning of the body, where binary tensors follow",
        "schema": {"type": "integer", "minimum": 0, "maximum": service.args.max_json_bytes},
    }


def top_k(service: Service) -> Schema:
    return {
        "name": "top_k",
        "in": "query",
        "description": "classes for each image; the operator sets the default",
        "schema": {"type": "integer", "minimum": 1, "maximum": service.max_top_k},
    }


def of_path(path: str, service: Service) -> list[Schema]:
    """The parameters that a path names, each with its only value."""
    values = {"name": service.model_name, "version": MODEL_VERSION}
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": [value]}, "example": value}
        for name, value in values.items()
        if f"{{{name}}}" in path
    ]
