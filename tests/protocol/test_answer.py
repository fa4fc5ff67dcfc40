import math
from typing import Any

import numpy as np
import pytest

from serve_app.engine.base import Prediction
from serve_app.protocol import answer
from serve_app.protocol.request import InferRequest, RequestedOutput
from serve_app.protocol.tensor import Tensor

LABELS = ("apple", "pickle", "naïve: yes", "plum")
# The classification extension's own example, and one where two tie and the device found 1 before 0.
LOGITS = ([1.0, 5.0, 10.0, 4.0], [2.0, 2.0, -1.0, 0.0])
FOUND = ([2, 1], [1, 0])


def predictions() -> list[Prediction]:
    return [
        Prediction(np.array(ids), np.zeros(2, np.float32), np.array(logits, np.float32), 1, 1.0, 0.0)
        for ids, logits in zip(FOUND, LOGITS, strict=True)
    ]


def outputs(*asked: RequestedOutput, top_k: int = 2) -> tuple[Tensor, ...]:
    given = Tensor("image", "BYTES", (2,), [b"", b""])
    return answer.outputs(InferRequest("", given, asked, top_k, None, None), predictions(), LABELS)


def output(name: str, classification: int | None = None, top_k: int = 2) -> Tensor:
    (found,) = outputs(RequestedOutput(name, classification), top_k=top_k)
    assert found.name == name
    return found


def test_outputs_come_in_the_order_that_they_were_asked_for() -> None:
    asked = [RequestedOutput(name) for name in ("logits", "class_ids", "probabilities", "labels")]
    assert [each.name for each in outputs(*asked)] == ["logits", "class_ids", "probabilities", "labels"]


@pytest.mark.parametrize("top_k", [1, 2])
def test_class_ids_and_labels_are_of_the_best_classes(top_k: int) -> None:
    ids, names = output("class_ids", top_k=top_k), output("labels", top_k=top_k)
    assert (ids.datatype, ids.shape) == ("INT64", (2, top_k))
    assert np.array_equal(ids.elements, np.array(FOUND)[:, :top_k])
    assert (names.datatype, names.shape) == ("BYTES", (2, top_k))
    assert names.elements == [LABELS[i].encode() for row in FOUND for i in row[:top_k]]


def test_logits_are_the_networks() -> None:
    found = output("logits")
    assert (found.datatype, found.shape) == ("FP32", (2, 4))
    assert np.array_equal(found.elements, np.array(LOGITS, np.float32))


def test_probabilities_are_their_softmax() -> None:
    found = output("probabilities")
    assert (found.datatype, found.shape) == ("FP32", (2, 4))
    expected = [[math.exp(x) / sum(map(math.exp, row)) for x in row] for row in LOGITS]
    np.testing.assert_allclose(np.asarray(found.elements), expected, rtol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_softmax_does_not_overflow(shift: float) -> None:
    found = answer.softmax(np.array([[0.0, 1.0]], np.float32) + np.float32(shift))
    np.testing.assert_allclose(found, [[0.268941, 0.731059]], rtol=1e-4)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("classification", "first", "second"),
    [
        (1, ["10.000000:2:naïve: yes"], ["2.000000:1:pickle"]),
        (2, ["10.000000:2:naïve: yes", "5.000000:1:pickle"], ["2.000000:1:pickle", "2.000000:0:apple"]),
        (3, ["10.000000:2:naïve: yes", "5.000000:1:pickle", "4.000000:3:plum"],
         ["2.000000:1:pickle", "2.000000:0:apple", "0.000000:3:plum"]),
        (4, ["10.000000:2:naïve: yes", "5.000000:1:pickle", "4.000000:3:plum", "1.000000:0:apple"],
         ["2.000000:1:pickle", "2.000000:0:apple", "0.000000:3:plum", "-1.000000:2:naïve: yes"]),
    ],
)  # fmt: skip
def test_classification_is_value_index_label_of_as_many_as_asked_for(
    classification: int, first: list[str], second: list[str]
) -> None:
    found = output("logits", classification)
    assert (found.datatype, found.shape) == ("BYTES", (2, classification))
    assert found.elements == [text.encode() for text in (*first, *second)]


def test_classification_of_probabilities_has_their_values() -> None:
    found: Any = output("probabilities", 1).elements
    assert found[1] == b"0.457640:1:pickle"


def test_classification_is_of_the_same_classes_as_class_ids_where_values_tie() -> None:
    found: Any = output("logits", 2).elements
    assert [int(text.split(b":")[1]) for text in found] == [i for row in FOUND for i in row]


def test_a_broken_networks_nan_is_passed_on() -> None:
    broken = [Prediction(np.array([0]), np.zeros(1, np.float32), np.full(4, math.nan, np.float32), 1, 1.0, 0.0)]
    given = Tensor("image", "BYTES", (1,), [b""])
    asked = (RequestedOutput("probabilities"), RequestedOutput("logits", 4))
    values, classes = answer.outputs(InferRequest("", given, asked, 1, None, None), broken, LABELS)
    assert np.isnan(np.asarray(values.elements)).all()
    assert len(classes.elements) == 4
