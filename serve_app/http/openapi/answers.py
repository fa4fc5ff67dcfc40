"""Schemas of what is answered, but for inference: classes, the model, the server, errors."""

from serve_app.config import UserConfig
from serve_app.errors import INTERNAL_CODE
from serve_app.headers import REQUEST_ID
from serve_app.http.body import MAX_NAME_LENGTH
from serve_app.http.headers import STAGES
from serve_app.http.openapi.schema import (
    COUNT,
    FLAG,
    MILLISECONDS,
    NUMBER,
    TEXT,
    Schema,
    array,
    closed,
    nullable,
    of_models,
    ref,
)
from serve_app.model_spec import Geometry
from serve_app.protocol.model import EXTENSIONS, PLATFORM, SERVER_NAME, limits, tritons_name
from serve_app.protocol.request import MODEL_VERSION
from serve_app.protocol.signature import TensorSpec
from serve_app.service import Service

GIVEN_ID: Schema = {"type": "string", "pattern": f"^({REQUEST_ID.pattern})$"}


def schemas(service: Service) -> Schema:
    """By name."""
    return {
        **_errors(),
        **_classes(service),
        **of_models(Geometry, UserConfig, mode="serialization"),
        "ModelMetadata": closed(_model_metadata(service)),
        "ModelDescription": closed({**_model_metadata(service), "limits": _limits(service)}),
        "ModelConfig": _model_config(service),
        "ModelStatistics": _statistics(service),
        "Duration": closed({"count": COUNT, "ns": COUNT}),
        "ServerMetadata": closed({**_server(), "extensions": array({"enum": list(EXTENSIONS)})}),
        "Models": closed({"models": array({"const": service.model_name}, minItems=1, maxItems=1)}),
        "RepositoryIndex": array(_repository_entry(service), minItems=1, maxItems=1),
        "Live": closed({"live": {"const": True}}),
        "Ready": closed({"ready": {"const": True}}),
        "ModelReady": closed({"name": {"const": service.model_name}, "ready": {"const": True}}),
    }


def _errors() -> Schema:
    message = {**TEXT, "description": "for a person; may change"}
    return {
        "Error": closed({"error": message, "code": {**TEXT, "description": "for a program; stays"}}),
        "InternalError": closed(
            {"error": message, "code": {"const": INTERNAL_CODE}, "id": {**GIVEN_ID, "description": "as in the log"}},
            optional=["id"],
        ),
    }


def _classes(service: Service) -> Schema:
    number = len(service.labels)
    one = {
        "class_id": {**COUNT, "maximum": number - 1},
        "label": TEXT,
        "score": {**NUMBER, "minimum": 0, "maximum": 1},
    }
    name = {**TEXT, "maxLength": MAX_NAME_LENGTH, "description": "the file's, in a form"}
    classified = {
        "name": name,
        "classes": array(closed(one), minItems=1, maxItems=service.max_top_k, description="best first"),
        "batch_size": {"type": "integer", "minimum": 1, "description": "images in its execution on the device"},
        "timings_ms": ref("Timings"),
    }
    failed = {"name": name, "error": TEXT, "code": TEXT}
    answer = {
        "id": {**GIVEN_ID, "description": "the request's X-Request-ID, or a new one"},
        "model_name": {"const": service.model_name},
        "replica": {**TEXT, "description": "which replica answered"},
        "timings_ms": {**ref("Timings"), "description": "each stage's slowest image"},
        "images": array(
            {"oneOf": [closed(classified, optional=["name"]), closed(failed, optional=["name"])]},
            minItems=1,
            maxItems=service.args.max_images,
            description="in the order that they came",
        ),
    }
    return {
        "Timings": closed(dict.fromkeys(STAGES, MILLISECONDS)),
        "Classification": closed(answer),
        "FailedClassification": closed({**answer, "error": TEXT, "code": TEXT}),
    }


def _server() -> Schema:
    return {"name": {"const": SERVER_NAME}, "version": TEXT}


def _tensor(spec: TensorSpec) -> Schema:
    """As the protocol lists it: -1 is as many images as the request has."""
    shape = [-1, *spec.shape]
    return closed({"name": {"const": spec.name}, "datatype": {"const": spec.datatype}, "shape": {"const": shape}})


def _each_of(tensors: list[Schema]) -> Schema:
    return array({"oneOf": tensors}, minItems=len(tensors), maxItems=len(tensors))


def _limits(service: Service) -> Schema:
    """What a client does well to keep to."""
    return closed({name: {"const": value} for name, value in limits(service).items()})


def _model_metadata(service: Service) -> Schema:
    of_the_protocol = {
        "name": {"const": service.model_name},
        "versions": {"const": [MODEL_VERSION]},
        "platform": {"const": PLATFORM},
        "inputs": _each_of([_tensor(each) for each in service.signature.inputs]),
        "outputs": _each_of([_tensor(each) for each in service.signature.outputs]),
        "server": closed(_server()),
    }
    of_the_checkpoint = {
        "arch": TEXT,
        "num_classes": {"const": len(service.labels)},
        "labels": array(TEXT, minItems=len(service.labels), maxItems=len(service.labels)),
        "geometry": ref("Geometry"),
        "weights": TEXT,
        "weights_sha256": TEXT,
        "description": nullable(TEXT),
        "accuracy": nullable(NUMBER),
        "notice": {**nullable(TEXT), "description": "what an operator should know"},
    }
    of_the_replica = {
        "device": TEXT,
        "precision": TEXT,
        "compiled": FLAG,
        "decode": {"enum": ["cpu", "gpu"]},
        "num_threads": COUNT,
        "batching": ref("UserConfig"),
        "refused_user_config": {**nullable(TEXT), "description": "why the last one is not in force"},
    }
    return {**of_the_protocol, **of_the_checkpoint, **of_the_replica}


def _model_config(service: Service) -> Schema:
    def tensor(spec: TensorSpec) -> Schema:
        return {
            "name": {"const": spec.name},
            "data_type": {"const": tritons_name(spec.datatype)},
            "dims": {"const": list(spec.shape)},
        }

    batching = {
        "preferred_batch_size": array({"type": "integer", "minimum": 1}, minItems=1, maxItems=1),
        "max_queue_delay_microseconds": COUNT,
        "priority_levels": {"const": 2},
        "default_priority_level": {"const": 1},
    }
    return closed(
        {
            "name": {"const": service.model_name},
            "platform": {"const": PLATFORM},
            "backend": TEXT,
            "version_policy": {"const": {"latest": {"num_versions": 1}}},
            "max_batch_size": {"const": service.args.max_images, "description": "images in a request"},
            "input": _each_of(
                [closed({**tensor(each), "optional": {"const": True}}) for each in service.signature.inputs]
            ),
            "output": _each_of([closed(tensor(each)) for each in service.signature.outputs]),
            "dynamic_batching": closed(batching),
        }
    )


def _statistics(service: Service) -> Schema:
    duration = ref("Duration")
    times = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    parts = ("compute_input", "compute_infer", "compute_output")
    model = {
        "name": {"const": service.model_name},
        "version": {"const": MODEL_VERSION},
        "last_inference": {**COUNT, "description": "milliseconds since the epoch; 0: none yet"},
        "inference_count": COUNT,
        "execution_count": COUNT,
        "inference_stats": closed(dict.fromkeys(times, duration)),
        "response_stats": closed({}),
        "batch_stats": array(
            closed({"batch_size": {"type": "integer", "minimum": 1}, **dict.fromkeys(parts, duration)})
        ),
        "memory_usage": array({}, maxItems=0),
    }
    return closed({"model_stats": array(closed(model), minItems=1, maxItems=1)})


def _repository_entry(service: Service) -> Schema:
    return closed(
        {
            "name": {"const": service.model_name},
            "version": {"const": MODEL_VERSION},
            "state": {"enum": ["READY", "UNAVAILABLE"]},
            "reason": TEXT,
        }
    )
