"""An inference request, whatever carried it."""

from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.errors import BadTensor
from serve_app.protocol.tensor import Tensor
from serve_app.scheduler import Priority

MODEL_VERSION = "1"
"""The only one: a service has one model, and a new checkpoint is a new deployment."""
# Bounds of a request, whatever it asks for.
MAX_RANK = 8
MAX_ID_LENGTH = 1024
MAX_TENSORS = 16
MAX_PARTS = 64


@dataclass(frozen=True)
class RequestedOutput:
    name: str
    classification: int | None = None
    """Instead of the tensor, its so many highest values as `value:index:label`."""
    binary: bool = False
    """Where the answer is JSON: the elements behind it, not in it."""


@dataclass(frozen=True)
class InferRequest:
    id: str
    """The client's, echoed; empty where it gave none."""
    tensor: Tensor
    """One of the signature's inputs, its shape checked."""
    outputs: tuple[RequestedOutput, ...]
    """At least one, each of the signature's, in the order of the answer."""
    top_k: int
    """Classes in `class_ids` and `labels`."""
    timeout_s: float | None
    priority: Priority | None
    """None: not named."""


def check_once(outputs: Sequence[RequestedOutput]) -> None:
    """Raise BadTensor where an output is asked for twice."""
    if len({output.name for output in outputs}) < len(outputs):
        raise BadTensor("an output is asked for twice")
