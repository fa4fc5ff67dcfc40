"""Schemas of an inference request and its answer: pydantic's of the protocol, narrowed to this model's tensors."""

from typing import Any

import numpy as np

from serve_app.http.openapi.schema import COUNT, FLAG, NUMBER, TEXT, Schema, array, closed, nullable, of_models, ref
from serve_app.protocol.json_form import RequestForm
from serve_app.protocol.parameters import MAX_TIMEOUT_US, PRIORITIES
from serve_app.protocol.request import MAX_ID_LENGTH, MAX_TENSORS, MODEL_VERSION
from serve_app.protocol.signature import TensorSpec
from serve_app.protocol.tensor import BYTES, DTYPES
from serve_app.service import Service

BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
FLOAT32 = np.finfo(np.float32)


def schemas(service: Service) -> Schema:
    """By name."""
    forms = of_models(RequestForm)
    return {
        "InferRequest": _request(forms["InferRequest"], service),
        "InferInput": {"oneOf": [_input(forms["InferInput"], each, service) for each in service.signature.inputs]},
        "InferRequestedOutput": _requested(forms["InferRequestedOutput"], service),
        "InferResponse": _response(service),
    }


def _request(form: Schema, service: Service) -> Schema:
    narrowed = {
        "inputs": array(ref("InferInput"), minItems=1, maxItems=1),
        "parameters": _known(
            form["properties"]["parameters"],
            {
                "timeout": _optional({**COUNT, "maximum": MAX_TIMEOUT_US}, "in microseconds; 0: the server's own"),
                "priority": _optional({"enum": list(PRIORITIES)}, "0: the header's, 1: interactive, 2: batch"),
                "top_k": _optional(
                    {"type": "integer", "minimum": 1, "maximum": service.max_top_k}, "classes in class_ids and labels"
                ),
                "binary_data_output": _optional(FLAG, "the outputs' data behind the JSON of the answer"),
            },
        ),
    }
    return _with(form, narrowed)


def _requested(form: Schema, service: Service) -> Schema:
    known = {
        "classification": _optional(
            {**COUNT, "maximum": len(service.labels)},
            "of probabilities and logits: the so many highest as `value:index:label`; 0: the tensor",
        ),
        "binary_data": _optional(FLAG, "its data behind the JSON of the answer"),
    }
    narrowed = {
        "name": {"enum": list(service.signature.output_names)},
        "parameters": _known(form["properties"]["parameters"], known),
    }
    return _with(form, narrowed)


def _input(form: Schema, spec: TensorSpec, service: Service) -> Schema:
    narrowed = {
        "name": {"const": spec.name},
        "datatype": {"const": spec.datatype},
        "shape": {"oneOf": [_shape(layout, service.args.max_images) for layout in service.signature.layouts(spec)]},
        "data": array(
            {"anyOf": [_element(spec.datatype), {"type": "array"}]},
            description="the elements in row-major order, flat or nested as the shape says",
        ),
    }
    return {**_with(form, narrowed), "title": spec.name, "required": [*form["required"], "data"]}


def _element(datatype: str) -> Schema:
    if datatype == BYTES:
        return BASE64
    if DTYPES[datatype].kind == "f":
        return {"type": "number", "minimum": float(FLOAT32.min), "maximum": float(FLOAT32.max)}
    return {"type": "integer", "minimum": 0, "maximum": int(np.iinfo(DTYPES[datatype]).max)}


def _shape(layout: tuple[int, ...], max_images: int) -> Schema:
    number = {"type": "integer", "minimum": 1, "maximum": max_images}
    rank = 1 + len(layout)
    return {
        "type": "array",
        "prefixItems": [number, *({"const": size} for size in layout)],
        "minItems": rank,
        "maxItems": rank,
    }


def _response(service: Service) -> Schema:
    outputs = [_output(each.name, each.datatype) for each in service.signature.outputs]
    # What `classification` makes of the two.
    outputs += [_output(each.name, BYTES) for each in service.signature.outputs if each.datatype == "FP32"]
    return closed(
        {
            "id": {**TEXT, "maxLength": MAX_ID_LENGTH, "description": "the request's"},
            "model_name": {"const": service.model_name},
            "model_version": {"const": MODEL_VERSION},
            "outputs": array({"oneOf": outputs}, minItems=1, maxItems=MAX_TENSORS),
        },
        optional=["id"],
    )


def _output(name: str, datatype: str) -> Schema:
    content = {
        "name": {"const": name},
        "datatype": {"const": datatype},
        "shape": array({"type": "integer", "minimum": 1}, minItems=2, maxItems=2, description="images, values of each"),
        "data": array({BYTES: TEXT, "INT64": COUNT, "FP32": nullable(NUMBER)}[datatype], minItems=1),
        "parameters": closed({"binary_data_size": COUNT}),
    }
    either = [{"required": ["data"]}, {"required": ["parameters"]}]
    return closed(content, optional=["data", "parameters"], oneOf=either, title=f"{name}: {datatype}")


def _known(parameters: Schema, known: Schema) -> Schema:
    """`parameters`, of which some have a meaning; others are ignored."""
    return {**parameters, "properties": known}


def _optional(schema: Schema, description: str) -> Schema:
    return {**nullable(schema), "description": description}


def _with(form: Schema, properties: dict[str, Any]) -> Schema:
    return {**form, "properties": {**form["properties"], **properties}}
