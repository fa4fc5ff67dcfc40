"""Predictions -> the output tensors that a request asks for."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serve_app.engine.base import Prediction
from serve_app.protocol.request import InferRequest, RequestedOutput
from serve_app.protocol.tensor import BYTES, Tensor

Floats = npt.NDArray[np.float32]


def outputs(request: InferRequest, predictions: Sequence[Prediction], labels: Sequence[str]) -> tuple[Tensor, ...]:
    """One tensor for each output asked for, in that order; one row for each prediction."""
    return tuple(_output(each, predictions, labels, request.top_k) for each in request.outputs)


def _output(output: RequestedOutput, predictions: Sequence[Prediction], labels: Sequence[str], top_k: int) -> Tensor:
    if output.name == "class_ids":
        return _numbers(output.name, "INT64", np.stack([each.class_ids[:top_k] for each in predictions]))
    if output.name == "labels":
        names = [labels[i].encode() for each in predictions for i in each.class_ids[:top_k].tolist()]
        return Tensor(output.name, BYTES, (len(predictions), top_k), names)
    logits = np.stack([each.logits for each in predictions])
    values = logits if output.name == "logits" else softmax(logits)
    if output.classification is None:
        return _numbers(output.name, "FP32", values)
    rows = [
        _classes(row, _best(each, output.classification), labels) for each, row in zip(predictions, values, strict=True)
    ]
    return Tensor(output.name, BYTES, (len(rows), output.classification), [text for row in rows for text in row])


def _numbers(name: str, datatype: str, values: npt.NDArray[np.generic]) -> Tensor:
    return Tensor(name, datatype, values.shape, values)


def softmax(logits: Floats) -> Floats:
    """float32 (N, num_classes) -> the same, each row's sum 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _best(prediction: Prediction, k: int) -> npt.NDArray[np.int64]:
    """Class ids, best first: those that the device found, so that all outputs agree where logits tie, then the rest."""
    found = prediction.class_ids
    if k <= len(found):
        return found[:k]
    by_logit = np.argsort(-prediction.logits, kind="stable")
    return np.concatenate([found, by_logit[~np.isin(by_logit, found)]])[:k]


def _classes(values: Floats, class_ids: npt.NDArray[np.int64], labels: Sequence[str]) -> list[bytes]:
    """`value:index:label`, as Triton's classification extension has it."""
    return [f"{values[i]:f}:{i}:{labels[i]}".encode() for i in class_ids.tolist()]
