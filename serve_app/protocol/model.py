"""What server and model say of themselves: metadata, Triton's configuration, statistics, the repository."""

from typing import Any

from serve_app.protocol.request import MODEL_VERSION
from serve_app.protocol.signature import TensorSpec
from serve_app.protocol.tensor import BYTES
from serve_app.service import Service
from serve_app.version import VERSION

SERVER_NAME = "serve-app"
PLATFORM = "pytorch_torchvision"
EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "schedule_policy", "statistics")
LIMITS = ("max_image_bytes", "max_request_bytes", "max_json_bytes", "max_image_pixels", "max_images")
VARIABLE = -1


def server_metadata() -> dict[str, Any]:
    """`GET /v2`."""
    return {"name": SERVER_NAME, "version": VERSION, "extensions": list(EXTENSIONS)}


def model_metadata(service: Service) -> dict[str, Any]:
    """`GET /v2/models/{name}`: the protocol's, and beside it what the checkpoint says and where it runs."""
    return {
        **service.metadata(),
        "versions": [MODEL_VERSION],
        "platform": PLATFORM,
        "inputs": [_tensor(spec) for spec in service.signature.inputs],
        "outputs": [_tensor(spec) for spec in service.signature.outputs],
        "server": {"name": SERVER_NAME, "version": VERSION},
    }


def description(service: Service) -> dict[str, Any]:
    """`GET /v1/model`: the model, where it runs, and what a client does well to keep to.

    A refusal while it sends closes the connection, and few read it then.
    """
    return {**model_metadata(service), "limits": limits(service)}


def limits(service: Service) -> dict[str, int]:
    """Of a request, by the names of the settings."""
    return {**{name: getattr(service.args, name) for name in LIMITS}, "max_top_k": service.max_top_k}


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": [VARIABLE, *spec.shape]}


def model_config(service: Service) -> dict[str, Any]:
    """Triton's model configuration, as far as it has a meaning here.

    `max_batch_size` is Triton's word for images in a request, `max_images` of ours; what the device runs at
    once is `preferred_batch_size`. A request has one of the inputs: each is optional.
    """
    batching = service.metadata()["batching"]
    return {
        "name": service.model_name,
        "platform": PLATFORM,
        "backend": "",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": service.args.max_images,
        "input": [{**_configured(spec), "optional": True} for spec in service.signature.inputs],
        "output": [_configured(spec) for spec in service.signature.outputs],
        "dynamic_batching": {
            "preferred_batch_size": [batching["max_batch_size"]],
            "max_queue_delay_microseconds": round(batching["batch_wait_timeout_s"] * 1e6),
            "priority_levels": 2,
            "default_priority_level": 1,
        },
    }


def _configured(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": tritons_name(spec.datatype), "dims": list(spec.shape)}


def tritons_name(datatype: str) -> str:
    """Of a datatype of the protocol, in a model configuration."""
    return "TYPE_STRING" if datatype == BYTES else f"TYPE_{datatype}"


def statistics(service: Service) -> dict[str, Any]:
    """`GET /v2/models/{name}/stats`."""
    return {"model_stats": [{"name": service.model_name, "version": MODEL_VERSION, **service.statistics.as_dict()}]}


def repository_index(service: Service) -> list[dict[str, str]]:
    """`POST /v2/repository/index`."""
    state = "READY" if service.ready else "UNAVAILABLE"
    return [{"name": service.model_name, "version": MODEL_VERSION, "state": state, "reason": ""}]
