"""Every path, with its methods."""

import base64
from importlib.resources import files

from serve_app.http.access import is_open
from serve_app.http.models import MODEL_PATHS
from serve_app.http.openapi import parameters, responses
from serve_app.http.openapi.schema import TEXT, Schema, array, ref
from serve_app.reader import FORMATS
from serve_app.service import Service

# `format: binary` is OpenAPI 3.0's: by it tools know to ask for a file.
FILE: Schema = {"type": "string", "format": "binary"}
SCHEME = "bearer"
OF_A_MODEL = (
    ("", "Its tensors, what its checkpoint says, where it runs", "ModelMetadata"),
    ("/ready", "Whether it is warmed", "ModelReady"),
    ("/config", "Triton's model configuration", "ModelConfig"),
    ("/stats", "Counts and times of the replica that answers", "ModelStatistics"),
)
OF_THE_SERVER = (
    ("/v2", "Name, version, extensions", "ServerMetadata"),
    ("/v2/", "The same", "ServerMetadata"),
    ("/v2/health/live", "Whether the process answers", "Live"),
    ("/v2/health/ready", "Whether the model is warmed", "Ready"),
    ("/v2/models", "Names of the models", "Models"),
    ("/v1/model", "The model that is served, and the limits of a request", "ModelDescription"),
    ("/v2/models/stats", "Counts and times of the replica that answers", "ModelStatistics"),
)


def paths(service: Service) -> Schema:
    return {
        "/v1/classify": {"post": _classify(service)},
        **{f"{path}/infer": {"post": _infer(f"{path}/infer", service)} for path in MODEL_PATHS},
        **_of_the_server(),
        **{
            f"{path}{end}": {"get": _of_a_model(f"{path}{end}", summary, schema, service)}
            for path in MODEL_PATHS
            for end, summary, schema in OF_A_MODEL
        },
        **_files(),
    }


def _classify(service: Service) -> Schema:
    args = service.args
    form = {
        "type": "object",
        "properties": {"file": array(FILE, minItems=1, maxItems=args.max_images)},
        "required": ["file"],
        "description": f"Up to {args.max_images} files, {args.max_request_bytes:,} bytes in all; the fields' names "
        "do not matter.",
    }
    raw = [f"image/{name.lower()}" for name in FORMATS]
    content = {**{name: {} for name in (*raw, "application/octet-stream")}, "multipart/form-data": {"schema": form}}
    return _operation(
        "classify",
        "images",
        "Images in, the top classes of each out",
        {"200": _classified(), **responses.classify_errors()},
        [parameters.top_k(service), parameters.TIMEOUT, parameters.PRIORITY, parameters.REQUEST_ID],
        description=f"The body is one image ({', '.join(FORMATS)}), or a form of several. The content type tells "
        f"these two apart and nothing else: the bytes decide. One image: {args.max_image_bytes:,} bytes and "
        f"{args.max_image_pixels:,} pixels at most. In a form each file has its own entry in `images`; one that "
        "fails has `error` and `code` there, and the others their classes.",
        requestBody={"required": True, "content": content},
    )


def _classified() -> Schema:
    return responses.answer(
        "the classes of at least one image", ref("Classification"), {"Server-Timing": responses.SERVER_TIMING}
    )


def _infer(path: str, service: Service) -> Schema:
    limits = service.args
    content = {
        "application/json": {"schema": ref("InferRequest"), "examples": {"image": {"value": infer_example()}}},
        # No schema: bytes that are no text have none in OpenAPI 3.1 (4.8.14.2).
        "application/octet-stream": {},
    }
    return _operation(
        _id("infer", path),
        "inference",
        "Open Inference Protocol: tensors in, tensors out",
        {"200": responses.inferred(), **responses.infer_errors()},
        [
            *parameters.of_path(path, service),
            *(parameters.TIMEOUT, parameters.PRIORITY, parameters.header_length(service)),
            *(parameters.CONTENT_ENCODING, parameters.REQUEST_ID),
        ],
        description="A request has one of the inputs. Without `outputs` all of them come. With "
        "`Inference-Header-Content-Length` the body is JSON of so many bytes and behind it the data of the input, "
        "whose parameter `binary_data_size` says its bytes (Triton's binary tensor data extension). JSON: "
        f"{limits.max_json_bytes:,} bytes at most, in all {limits.max_request_bytes:,}.",
        requestBody={"required": True, "content": content},
    )


def infer_example() -> Schema:
    """A request that any model answers."""
    image = (files("serve_app.bundled") / "samples" / "1.png").read_bytes()
    data = [base64.b64encode(image).decode()]
    return {
        "parameters": {"top_k": 1},
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": data}],
        "outputs": [{"name": "labels"}, {"name": "class_ids"}],
    }


def _of_the_server() -> Schema:
    found: Schema = {path: {"get": _server(path, summary, schema)} for path, summary, schema in OF_THE_SERVER}
    index = "/v2/repository/index"
    found[index] = {"post": _server(index, "Triton's list of models; a body is not looked at", "RepositoryIndex")}
    return found


def _server(path: str, summary: str, schema: str) -> Schema:
    # The path with a slash at its end needs an id of its own.
    identity = _id("server", path.removeprefix("/v2").removeprefix("/v1")) + ("_root" if path.endswith("/") else "")
    errors = responses.errors(responses.ANYWHERE if is_open(path) else responses.CLOSED)
    answers = {"200": responses.answer("as asked", ref(schema)), **errors}
    return _operation(identity, "server", summary, answers, [])


def _of_a_model(path: str, summary: str, schema: str, service: Service) -> Schema:
    answers = {"200": responses.answer("as asked", ref(schema)), **responses.errors(responses.OF_A_MODEL)}
    return _operation(_id("model", path), "model", summary, answers, parameters.of_path(path, service))


def _files() -> Schema:
    page = ("text/html", TEXT)
    found = {
        "/": ("page", "The page to try it on", *page),
        "/docs": ("docs", "This document, to read and to try", *page),
        "/openapi.json": ("openapi", "This document", "application/json", {"type": "object", "required": ["openapi"]}),
    }
    return {path: {"get": _file(*each)} for path, each in found.items()}


def _file(identity: str, summary: str, content_type: str, schema: Schema) -> Schema:
    answers = {**responses.file("as asked", content_type, schema), **responses.errors(responses.ANYWHERE)}
    return _operation(identity, "pages", summary, answers, [parameters.IF_NONE_MATCH])


def _id(first: str, path: str) -> str:
    words = path.removeprefix("/v2/models/{name}").replace("{version}", "").split("/")
    return "_".join(dict.fromkeys([first, *filter(None, words)]))


def _operation(identity: str, tag: str, summary: str, answers: Schema, taken: list[Schema], **more: object) -> Schema:
    if "401" in answers:
        more["security"] = [{}, {SCHEME: []}]  # either: whether there are tokens is each service's own affair
    return {
        "operationId": identity,
        "tags": [tag],
        "summary": summary,
        **more,
        **({"parameters": taken} if taken else {}),
        "responses": answers,
    }
