"""The parameters of a request that mean something here; others are ignored, as Triton does."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from serve_app.errors import BadTensor, MalformedRequest
from serve_app.protocol.tensor import quoted
from serve_app.scheduler import Priority

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Value = bool | int | float | str
Parameters = Mapping[str, Value]

MICROSECONDS = 1e6
MAX_TIMEOUT_US = 10**15
PRIORITIES = {0: None, 1: Priority.INTERACTIVE, 2: Priority.BATCH}
"""Triton's levels: 0 is the default, 1 the highest."""


def timeout_s(parameters: Parameters) -> float | None:
    """`timeout`, in microseconds; 0 is none, as in Triton. Raises MalformedRequest."""
    value = parameters.get("timeout", 0)
    if not is_whole(value) or not 0 <= value <= MAX_TIMEOUT_US:
        raise MalformedRequest(f"parameter timeout is a whole number of microseconds up to {MAX_TIMEOUT_US:,}")
    return value / MICROSECONDS or None


def priority(parameters: Parameters) -> Priority | None:
    """`priority`. Raises MalformedRequest."""
    value = parameters.get("priority", 0)
    if not is_whole(value) or value not in PRIORITIES:
        raise MalformedRequest("parameter priority is 0 (the default), 1 (interactive) or 2 (batch)")
    return PRIORITIES[value]


def top_k(parameters: Parameters, default: int, largest: int) -> int:
    """`top_k`: classes in `class_ids` and `labels`. Raises MalformedRequest."""
    value = parameters.get("top_k", min(default, largest))
    if not is_whole(value) or not 1 <= value <= largest:
        raise MalformedRequest(f"parameter top_k is a whole number from 1 to {largest}")
    return value


def classification(output: str, parameters: Parameters, num_classes: int) -> int | None:
    """`classification` of a requested output. Raises BadTensor."""
    value = parameters.get("classification", 0)
    if not is_whole(value) or not 0 <= value <= num_classes:
        raise BadTensor(f"output {quoted(output)}: classification is a whole number from 1 to {num_classes}")
    if value and output not in ("probabilities", "logits"):
        raise BadTensor(f"output {quoted(output)}: there is classification of probabilities and logits")
    return value or None


def flag(parameters: Parameters, name: str, default: bool) -> bool:
    """A parameter that is true or false. Raises MalformedRequest."""
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise MalformedRequest(f"parameter {name} is true or false")
    return value


def is_whole(value: Value) -> "TypeIs[int]":
    """An integer; `true` is none, though Python says it is."""
    return isinstance(value, int) and not isinstance(value, bool)
