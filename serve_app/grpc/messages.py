"""Messages of the protocol <-> requests, answers, and what server and model say of themselves."""

from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.json_format import ParseDict

from serve_app.errors import BadTensor, MalformedRequest
from serve_app.grpc import inference_pb2 as pb
from serve_app.protocol import model, parameters, tensor
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
from serve_app.protocol.tensor import BYTES, DTYPES, Tensor
from serve_app.scheduler import Priority
from serve_app.service import Service

CONTENTS = {BYTES: "bytes_contents", "UINT8": "uint_contents", "FP32": "fp32_contents"}
"""Where the elements of the model's inputs are when they are not raw."""

Input = pb.ModelInferRequest.InferInputTensor


def infer_request(message: pb.ModelInferRequest, raw: Sequence[memoryview], service: Service) -> InferRequest:
    """A request; `raw`: its `raw_input_contents`. Raises MalformedRequest or BadTensor."""
    _check_sizes(message)
    timeout_s, priority = wishes(message)
    return InferRequest(
        id=message.id,
        tensor=_input(message, raw, service),
        outputs=_outputs(message, service),
        top_k=parameters.top_k(_values(message.parameters), service.default_top_k, service.max_top_k),
        timeout_s=timeout_s,
        priority=priority,
    )


def wishes(message: pb.ModelInferRequest) -> tuple[float | None, Priority | None]:
    """The timeout in seconds and the priority that its parameters ask for. Raises MalformedRequest."""
    given = _values(message.parameters)
    return parameters.timeout_s(given), parameters.priority(given)


def _check_sizes(message: pb.ModelInferRequest) -> None:
    """The bounds of a request that comes as JSON. Raises MalformedRequest."""
    parts = [message.parameters, *(each.parameters for each in message.inputs)]
    parts += [each.parameters for each in message.outputs]
    if len(message.id) > MAX_ID_LENGTH:
        raise MalformedRequest(f"an id has at most {MAX_ID_LENGTH:,} characters")
    if not message.inputs or max(len(message.inputs), len(message.outputs)) > MAX_TENSORS:
        raise MalformedRequest(f"a request has 1 to {MAX_TENSORS} inputs, and at most as many outputs")
    if max(map(len, parts)) > MAX_PARTS:
        raise MalformedRequest(f"the request has more than {MAX_PARTS} parameters in one place")
    if max(len(each.shape) for each in message.inputs) > MAX_RANK:
        raise MalformedRequest(f"a shape has at most {MAX_RANK} dimensions")


def _values(given: Mapping[str, pb.InferParameter]) -> dict[str, Value]:
    """Without those that have no value: not given."""
    chosen = {name: each.WhichOneof("parameter_choice") for name, each in given.items()}
    return {name: getattr(given[name], choice) for name, choice in chosen.items() if choice is not None}


def _outputs(message: pb.ModelInferRequest, service: Service) -> tuple[RequestedOutput, ...]:
    if not message.outputs:
        return tuple(RequestedOutput(name) for name in service.signature.output_names)
    outputs = tuple(_output(each, service) for each in message.outputs)
    check_once(outputs)
    return outputs


def _output(given: pb.ModelInferRequest.InferRequestedOutputTensor, service: Service) -> RequestedOutput:
    service.signature.check_output(given.name)
    return RequestedOutput(
        given.name, parameters.classification(given.name, _values(given.parameters), len(service.labels))
    )


def _input(message: pb.ModelInferRequest, raw: Sequence[memoryview], service: Service) -> Tensor:
    """The request's only input. Nothing of its data is looked at before its shape is known to be possible."""
    if len(message.inputs) > 1:
        raise BadTensor(f"the model takes one input, and {len(message.inputs)} came")
    given = message.inputs[0]
    shape = tuple(given.shape)
    service.signature.check_input(given.name, given.datatype, shape, service.args.max_images)
    filled = [each.name for each, _ in given.contents.ListFields()]
    if bool(raw) == bool(filled):
        raise BadTensor(f"input {given.name}: it has either contents or raw_input_contents")
    if not raw:
        return _of_contents(given, shape, filled)
    if len(raw) > 1:
        raise BadTensor(f"{len(raw):,} raw_input_contents came for one input")
    return tensor.from_bytes(given.name, given.datatype, shape, raw[0])


def _of_contents(given: Input, shape: tuple[int, ...], filled: Sequence[str]) -> Tensor:
    if filled != [CONTENTS[given.datatype]]:
        raise BadTensor(f"input {given.name}: the elements of {given.datatype} are in {CONTENTS[given.datatype]}")
    elements = getattr(given.contents, CONTENTS[given.datatype])
    if len(elements) != tensor.count(shape):
        raise BadTensor(
            f"input {given.name}: shape {list(shape)} takes {tensor.count(shape):,} elements, "
            f"and {len(elements):,} came"
        )
    if given.datatype == BYTES:
        return Tensor(given.name, BYTES, shape, list(elements))
    # Without a dtype numpy copies the container's memory; with one it takes number by number.
    return tensor.from_array(given.name, given.datatype, shape, np.asarray(elements))


def max_packed_bytes(service: Service) -> int:
    """Of a tensor's numbers, in `contents`: what the largest input of the model takes as floats."""
    floats = next(spec for spec in service.signature.inputs if spec.datatype == "FP32")
    return service.args.max_images * tensor.count(floats.shape) * DTYPES["FP32"].itemsize


def infer_response(answer: Answer) -> pb.ModelInferResponse:
    """The answer; its tensors raw, as Triton sends them, whatever the form of the request's."""
    return pb.ModelInferResponse(
        model_name=answer.model_name,
        model_version=MODEL_VERSION,
        id=answer.id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(name=each.name, datatype=each.datatype, shape=each.shape)
            for each in answer.tensors
        ],
        raw_output_contents=[tensor.to_bytes(each) for each in answer.tensors],
    )


def server_metadata() -> pb.ServerMetadataResponse:
    return ParseDict(model.server_metadata(), pb.ServerMetadataResponse())


def model_metadata(service: Service) -> pb.ModelMetadataResponse:
    """What the protocol has of it: the rest of `GET /v2/models/{name}` has no field here."""
    return ParseDict(model.model_metadata(service), pb.ModelMetadataResponse(), ignore_unknown_fields=True)


def model_config(service: Service) -> pb.ModelConfigResponse:
    return ParseDict({"config": model.model_config(service)}, pb.ModelConfigResponse())


def statistics(service: Service) -> pb.ModelStatisticsResponse:
    """Without what is always empty here: memory usage, and the statistics of streamed responses."""
    return ParseDict(model.statistics(service), pb.ModelStatisticsResponse(), ignore_unknown_fields=True)


def repository_index(service: Service) -> pb.RepositoryIndexResponse:
    return ParseDict({"models": model.repository_index(service)}, pb.RepositoryIndexResponse())
