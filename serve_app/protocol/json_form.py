"""Inference requests and answers as JSON, with binary tensors behind it (Triton's binary tensor data extension).

A body is JSON, or JSON of `Inference-Header-Content-Length` bytes and behind it the data of those
tensors that have a parameter `binary_data_size`, in their order.
"""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from serve_app.errors import BadTensor, MalformedRequest
from serve_app.protocol import parameters, tensor
from serve_app.protocol.infer import Answer
from serve_app.protocol.parameters import Value
from serve_app.protocol.request import (
    MAX_ID_LENGTH,
    MAX_PARTS,
    MAX_RANK,
    MAX_TENSORS,
    MODEL_VERSION,
    InferRequest,
    RequestedOutput,
    check_once,
)
from serve_app.protocol.signature import from_base64
from serve_app.protocol.tensor import BYTES, Tensor, quoted
from serve_app.service import Service

MAX_BINARY_SIZE = 2**63 - 1
"""The extension's int64."""
MAX_FINDINGS = 3

MAX_VALUES = 1 << 20
MAX_LISTS = 1 << 18
MAX_OBJECTS = 1 << 12
"""Of a request's JSON, with its keys: the event loop waits while it is read, for values far longer than for
bytes. No request needs more: 4 MiB of pixels as people write them, nested to the last channel."""

SCALAR = {"type": ["string", "number", "boolean", "null"]}
Parameters = Annotated[dict[str, Any], Field(max_length=MAX_PARTS, json_schema_extra={"additionalProperties": SCALAR})]


class InputForm(BaseModel):
    """A tensor of a request: its elements in `data`, or behind the JSON, `parameters.binary_data_size` bytes."""

    model_config = ConfigDict(strict=True, title="InferInput")

    name: str
    datatype: str
    shape: Annotated[list[int], Field(max_length=MAX_RANK)]
    parameters: Parameters = {}
    # Not list[Any], which would copy a million elements to learn that it is a list.
    data: Any = None


class OutputForm(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(strict=True, title="InferRequestedOutput")

    name: str
    parameters: Parameters = {}


class RequestForm(BaseModel):
    """An inference request."""

    model_config = ConfigDict(strict=True, title="InferRequest")

    id: Annotated[str, Field(max_length=MAX_ID_LENGTH)] = ""
    parameters: Parameters = {}
    inputs: Annotated[list[InputForm], Field(min_length=1, max_length=MAX_TENSORS)]
    outputs: Annotated[list[OutputForm], Field(max_length=MAX_TENSORS)] = []


def parse(body: memoryview, header_length: int | None, service: Service) -> InferRequest:
    """A request. `header_length`: of the JSON at the beginning; None: the body is nothing else.

    Raises MalformedRequest or BadTensor.
    """
    length = len(body) if header_length is None else header_length
    if length > len(body):
        raise MalformedRequest(f"the JSON is to have {length:,} bytes, and the body has {len(body):,}")
    if length > service.args.max_json_bytes:
        raise MalformedRequest(too_much_json(service.args.max_json_bytes))
    if not length:
        raise MalformedRequest("the request has no JSON: binary tensors alone do for models of a single input")
    with _without_gc():
        return _request(bytes(body[:length]), body[length:], service)


def too_much_json(limit: int) -> str:
    """The message for a client whose JSON is over the limit."""
    return f"the JSON of a request may have at most {limit:,} bytes (max_json_bytes): send its tensors as binary data"


@contextmanager
def _without_gc() -> Iterator[None]:
    """Hundreds of thousands of small lists, none of them garbage, would be looked through again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _request(raw: bytes, behind: memoryview, service: Service) -> InferRequest:
    form = _validated(raw)
    given = _values(form.parameters)
    return InferRequest(
        id=form.id,
        tensor=_input(form, service, behind),
        outputs=_outputs(form, given, service),
        top_k=parameters.top_k(given, service.default_top_k, service.max_top_k),
        timeout_s=parameters.timeout_s(given),
        priority=parameters.priority(given),
    )


def _validated(raw: bytes) -> RequestForm:
    _check_counts(raw)
    try:
        content = from_json(raw)
    except ValueError as error:
        raise MalformedRequest(f"the request is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise MalformedRequest("the request is no JSON object")
    _check_sizes(content)
    try:
        return RequestForm.model_validate(content)
    except ValidationError as error:
        raise MalformedRequest(f"the request is not as the protocol says: {_findings(error)}") from None


def _check_counts(raw: bytes) -> None:
    """Raise MalformedRequest where the JSON would take long to read. Signs within strings count too."""
    if raw.count(b",") > MAX_VALUES or raw.count(b"[") > MAX_LISTS:
        raise MalformedRequest(
            f"the JSON of a request may have at most {MAX_VALUES:,} values in {MAX_LISTS:,} lists: "
            "send its tensors as binary data"
        )
    if raw.count(b":") + raw.count(b"{") > MAX_OBJECTS:
        raise MalformedRequest(f"the JSON of a request may have at most {MAX_OBJECTS:,} objects and keys")


def _check_sizes(content: dict[str, Any]) -> None:
    """Raise MalformedRequest where a list or object has far more in it than any request.

    Before validation, which looks at every element of what is too long.
    """
    tensors = [*_first(content.get("inputs")), *_first(content.get("outputs"))]
    parts = [content, content.get("parameters"), content.get("inputs"), content.get("outputs"), *tensors]
    parts += [each.get(key) for each in tensors if isinstance(each, dict) for key in ("shape", "parameters")]
    if any(isinstance(part, (dict, list)) and len(part) > MAX_PARTS for part in parts):
        raise MalformedRequest(f"the request has more than {MAX_PARTS} parameters, tensors or dimensions in one place")


def _first(tensors: object) -> list[object]:
    return tensors[: MAX_PARTS + 1] if isinstance(tensors, list) else []


def _findings(error: ValidationError) -> str:
    """The first few; nothing of what the client sent is in them."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_FINDINGS]
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found)


def _values(given: Mapping[str, Any]) -> dict[str, Value]:
    """Without those that are null: not given. Raises MalformedRequest."""
    for name, value in given.items():
        if not isinstance(value, Value | None):
            raise MalformedRequest(f"parameter {quoted(name)} is a string, a number, true or false")
    return {name: value for name, value in given.items() if value is not None}


def _outputs(form: RequestForm, given: Mapping[str, Value], service: Service) -> tuple[RequestedOutput, ...]:
    binary = parameters.flag(given, "binary_data_output", False)
    if not form.outputs:
        return tuple(RequestedOutput(name, None, binary) for name in service.signature.output_names)
    outputs = tuple(_output(output, binary, service) for output in form.outputs)
    check_once(outputs)
    return outputs


def _output(form: OutputForm, binary: bool, service: Service) -> RequestedOutput:
    service.signature.check_output(form.name)
    given = _values(form.parameters)
    classification = parameters.classification(form.name, given, len(service.labels))
    return RequestedOutput(form.name, classification, parameters.flag(given, "binary_data", binary))


def _input(form: RequestForm, service: Service, behind: memoryview) -> Tensor:
    """The request's only input. Nothing of its data is looked at before its shape is known to be possible."""
    if len(form.inputs) > 1:
        raise BadTensor(f"the model takes one input, and {len(form.inputs)} came")
    given = form.inputs[0]
    shape = tuple(given.shape)
    service.signature.check_input(given.name, given.datatype, shape, service.args.max_images)
    size = _binary_size(given)
    if len(behind) != size:
        raise BadTensor(f"the binary tensors have {size:,} bytes, and {len(behind):,} came behind the JSON")
    if given.data is None:
        return tensor.from_bytes(given.name, given.datatype, shape, behind)
    if not isinstance(given.data, list):
        raise BadTensor(f"input {given.name}: data is a list")
    if given.datatype == BYTES:
        values = tensor.flattened(given.name, shape, given.data)
        return Tensor(given.name, BYTES, shape, from_base64(given.name, values))
    return tensor.from_list(given.name, given.datatype, shape, given.data)


def _binary_size(given: InputForm) -> int:
    """Bytes of its data behind the JSON: 0 where that is in it."""
    size = _values(given.parameters).get("binary_data_size")
    if size is None and given.data is None:
        raise BadTensor(f"input {given.name}: it has neither data nor a parameter binary_data_size")
    if size is None:
        return 0
    if given.data is not None:
        raise BadTensor(f"input {given.name}: it has both data and a parameter binary_data_size")
    if not parameters.is_whole(size) or not 0 <= size <= MAX_BINARY_SIZE:
        raise BadTensor(f"input {given.name}: binary_data_size is a whole number of bytes")
    return size


def render(answer: Answer, request: InferRequest) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON where binary tensors follow that."""
    outputs = []
    behind = []
    for wanted, each in zip(request.outputs, answer.tensors, strict=True):
        output: dict[str, Any] = {"name": each.name, "datatype": each.datatype, "shape": list(each.shape)}
        if wanted.binary:
            behind.append(tensor.to_bytes(each))
            output["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            output["data"] = tensor.to_list(each)
        outputs.append(output)
    head = {"id": answer.id} if answer.id else {}
    body = {**head, "model_name": answer.model_name, "model_version": MODEL_VERSION, "outputs": outputs}
    text = to_json(body)  # 18 ms where json.dumps takes 120: 64,000 numbers, of 32 images with 1000 classes
    return (b"".join([text, *behind]), len(text)) if behind else (text, None)
