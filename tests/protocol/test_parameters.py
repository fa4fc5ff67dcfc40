import math
from typing import Any

import pytest

from serve_app.errors import BadTensor, MalformedRequest
from serve_app.protocol import parameters
from serve_app.scheduler import Priority

NOT_WHOLE = [True, False, 1.0, math.nan, "1", ""]


def name_of(value: Any) -> str:
    return repr(value)[:20]


@pytest.mark.parametrize(("value", "seconds"), [(0, None), (1, 1e-6), (250_000, 0.25), (10**15, 1e9)])
def test_timeout_is_in_microseconds_and_0_is_none(value: int, seconds: float | None) -> None:
    assert parameters.timeout_s({"timeout": value}) == seconds


def test_without_timeout_there_is_none() -> None:
    assert parameters.timeout_s({}) is None


@pytest.mark.parametrize("value", [*NOT_WHOLE, -1, 10**15 + 1, 10**4000], ids=name_of)
def test_a_timeout_that_is_no_number_of_microseconds_is_refused(value: Any) -> None:
    with pytest.raises(MalformedRequest, match="timeout is a whole number of microseconds up to 1,000,000,000,000,000"):
        parameters.timeout_s({"timeout": value})


@pytest.mark.parametrize(
    ("given", "priority"),
    [({}, None), ({"priority": 0}, None), ({"priority": 1}, Priority.INTERACTIVE), ({"priority": 2}, Priority.BATCH)],
)
def test_priority_1_is_the_highest_and_0_the_default(given: dict[str, int], priority: Priority | None) -> None:
    assert parameters.priority(given) is priority


@pytest.mark.parametrize("value", [*NOT_WHOLE, -1, 3, 10**4000], ids=name_of)
def test_an_unknown_priority_is_refused_with_those_that_there_are(value: Any) -> None:
    with pytest.raises(MalformedRequest, match=r"priority is 0 \(the default\), 1 \(interactive\) or 2 \(batch\)"):
        parameters.priority({"priority": value})


@pytest.mark.parametrize(
    ("given", "default", "top_k"), [({}, 5, 5), ({}, 50, 10), ({"top_k": 1}, 5, 1), ({"top_k": 10}, 5, 10)]
)
def test_top_k_is_the_default_cut_to_the_classes_there_are_unless_it_is_named(
    given: dict[str, int], default: int, top_k: int
) -> None:
    assert parameters.top_k(given, default, 10) == top_k


@pytest.mark.parametrize("value", [*NOT_WHOLE, -1, 0, 11, 10**4000], ids=name_of)
def test_a_wrong_top_k_is_refused_with_the_range(value: Any) -> None:
    with pytest.raises(MalformedRequest, match="top_k is a whole number from 1 to 10"):
        parameters.top_k({"top_k": value}, 5, 10)


@pytest.mark.parametrize(("given", "k"), [({}, None), ({"classification": 0}, None), ({"classification": 10}, 10)])
@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_classification_is_a_number_of_classes(output: str, given: dict[str, int], k: int | None) -> None:
    assert parameters.classification(output, given, 10) == k


@pytest.mark.parametrize("value", [True, 1.0, "1", -1, 11, 10**4000], ids=name_of)
def test_a_wrong_classification_is_refused_with_the_range(value: Any) -> None:
    with pytest.raises(BadTensor, match="output 'logits': classification is a whole number from 1 to 10"):
        parameters.classification("logits", {"classification": value}, 10)


@pytest.mark.parametrize("output", ["class_ids", "labels"])
def test_what_is_no_score_has_no_classification(output: str) -> None:
    assert parameters.classification(output, {"classification": 0}, 10) is None
    with pytest.raises(BadTensor, match="there is classification of probabilities and logits"):
        parameters.classification(output, {"classification": 1}, 10)


@pytest.mark.parametrize("default", [True, False])
def test_a_flag_is_its_default_unless_it_is_named(default: bool) -> None:
    assert parameters.flag({}, "binary_data", default) is default
    assert parameters.flag({"binary_data": not default}, "binary_data", default) is not default


@pytest.mark.parametrize("value", [0, 1, 1.0, "true", ""])
def test_a_flag_that_is_neither_true_nor_false_is_refused(value: Any) -> None:
    with pytest.raises(MalformedRequest, match="parameter binary_data is true or false"):
        parameters.flag({"binary_data": value}, "binary_data", False)
