import base64
import gc
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.config import Args
from serve_app.errors import BadTensor, MalformedRequest, RequestError
from serve_app.protocol import json_form
from serve_app.protocol.infer import Answer
from serve_app.protocol.json_form import MAX_LISTS, MAX_OBJECTS, MAX_VALUES
from serve_app.protocol.request import MAX_ID_LENGTH, MAX_PARTS, InferRequest, RequestedOutput
from serve_app.protocol.tensor import Tensor
from serve_app.scheduler import Priority
from tests.http.service import FakeService
from tests.protocol.values import ANY, MAX_MESSAGE, REQUESTS, made

PIXELS: dict[str, Any] = {"name": "pixels", "datatype": "UINT8", "shape": [1, 4, 4, 3]}
FILES: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [2]}
SMALL = FakeService(args=Args(max_json_bytes=1000, max_images=8))


def request(**fields: Any) -> bytes:
    return json.dumps({"inputs": [PIXELS | {"data": [7] * 48}], **fields}).encode()


def parse(body: bytes, header_length: int | None = None, service: FakeService | None = None) -> InferRequest:
    return json_form.parse(memoryview(body), header_length, service or FakeService())


def binary(head: Mapping[str, Any], behind: bytes) -> InferRequest:
    text = json.dumps(head).encode()
    return parse(text + behind, len(text))


def refusal(body: bytes, header_length: int | None = None, service: FakeService | None = None) -> str:
    with pytest.raises(RequestError) as error:
        parse(body, header_length, service)
    assert isinstance(error.value, MalformedRequest | BadTensor)
    assert len(error.value.message) < MAX_MESSAGE
    return error.value.message


def test_a_request_in_json_in_full() -> None:
    found = parse(
        request(
            id="42",
            parameters={"timeout": 250_000, "priority": 2, "top_k": 3, "binary_data_output": True},
            outputs=[
                {"name": "labels"},
                {"name": "logits", "parameters": {"binary_data": False}},
                {"name": "probabilities", "parameters": {"classification": 2}},
            ],
        )
    )
    assert (found.id, found.top_k, found.timeout_s, found.priority) == ("42", 3, 0.25, Priority.BATCH)
    assert found.outputs == (
        RequestedOutput("labels", None, True),
        RequestedOutput("logits", None, False),
        RequestedOutput("probabilities", 2, True),
    )
    assert (found.tensor.name, found.tensor.datatype, found.tensor.shape) == ("pixels", "UINT8", (1, 4, 4, 3))
    assert np.array_equal(found.tensor.elements, np.full((1, 4, 4, 3), 7))


def test_without_outputs_all_come_in_json_with_the_defaults() -> None:
    found = parse(request())
    assert found.outputs == tuple(RequestedOutput(name) for name in ("class_ids", "labels", "probabilities", "logits"))
    assert (found.id, found.top_k, found.timeout_s, found.priority) == ("", 2, None, None)


def test_without_outputs_all_come_in_binary_where_that_is_asked_for() -> None:
    assert all(output.binary for output in parse(request(parameters={"binary_data_output": True})).outputs)


def test_a_request_with_its_tensor_behind_it() -> None:
    found = binary({"inputs": [PIXELS | {"parameters": {"binary_data_size": 48}}]}, bytes(range(48)))
    assert np.array_equal(found.tensor.elements, np.arange(48).reshape(1, 4, 4, 3))


def test_a_tensor_behind_the_json_is_not_copied() -> None:
    text = json.dumps({"inputs": [PIXELS | {"parameters": {"binary_data_size": 48}}]}).encode()
    body = bytearray(text + bytes(48))
    found = json_form.parse(memoryview(body), len(text), FakeService())
    assert np.shares_memory(found.tensor.elements, np.frombuffer(body, np.uint8))


def test_files_come_in_base64_or_behind_the_json() -> None:
    text = [base64.b64encode(file).decode() for file in (b"\xff\xd8a", b"b")]
    assert parse(json.dumps({"inputs": [FILES | {"data": text}]}).encode()).tensor.elements == [b"\xff\xd8a", b"b"]
    nested = FILES | {"shape": [2, 1], "data": [[each] for each in text]}
    assert parse(json.dumps({"inputs": [nested]}).encode()).tensor.elements == [b"\xff\xd8a", b"b"]
    behind = b"\3\0\0\0\xff\xd8a\1\0\0\0b"
    found = binary({"inputs": [FILES | {"parameters": {"binary_data_size": len(behind)}}]}, behind)
    assert found.tensor.elements == [b"\xff\xd8a", b"b"]


@pytest.mark.parametrize(
    "fields",
    [
        {"model_name": "other", "nonsense": {"a": [1]}},
        {"parameters": {"sequence_id": 7, "sequence_start": True, "mine": "x", "share": 0.5}},
        {"parameters": {"timeout": None, "priority": None, "top_k": None, "binary_data_output": None}},
        {"inputs": [PIXELS | {"data": [7] * 48, "parameters": {"content_type": "np", "binary_data_size": None}}]},
        {"outputs": [{"name": "logits", "data": [1], "parameters": {"mine": 1, "classification": None}}]},
        {"outputs": []},
    ],
    ids=lambda fields: str(fields)[:50],
)
def test_what_means_nothing_here_is_ignored_and_null_is_not_given(fields: dict[str, Any]) -> None:
    found, plain = parse(request(**fields)), parse(request())
    assert (found.top_k, found.timeout_s, found.priority) == (plain.top_k, plain.timeout_s, plain.priority)
    assert {output.name for output in found.outputs} <= {output.name for output in plain.outputs}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the request has no JSON"),
        (b" ", "the request is no JSON: EOF"),
        (b"\xff\xd8", "the request is no JSON"),
        (b'{"inputs": [', "the request is no JSON: EOF"),
        (b'{"inputs": []} {}', "the request is no JSON: trailing characters"),
        (b"{'inputs': []}", "the request is no JSON"),
        (b'{"id": "\xff"}', "the request is no JSON"),
        (b'{"id": "\\ud800"}', "the request is no JSON"),
        (b'{"inputs": ' + b"1" * 5000 + b"}", "the request is no JSON: number out of range"),
        (b"[" * 1000, "the request is no JSON: recursion limit"),
        (b"[]", "the request is no JSON object"),
        (b"null", "the request is no JSON object"),
        (b"1", "the request is no JSON object"),
        (b"{}", "inputs: Field required"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_json_or_no_object_is_refused(body: bytes, words: str) -> None:
    assert words in refusal(body)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id": 42}, "id: Input should be a valid string"),
        ({"id": "x" * (MAX_ID_LENGTH + 1)}, "id: String should have at most 1024 characters"),
        ({"parameters": []}, "parameters: Input should be a valid dictionary"),
        ({"parameters": {"x" * 5000: []}}, f"parameter '{'x' * 40}' is a string, a number, true or false"),
        ({"parameters": {"a": {}}}, "parameter 'a' is a string, a number, true or false"),
        ({"parameters": {str(i): 1 for i in range(MAX_PARTS + 1)}}, "more than 64 parameters"),
        ({"inputs": {}}, "inputs: Input should be a valid list"),
        ({"inputs": []}, "inputs: List should have at least 1 item"),
        ({"inputs": ["x" * 5000]}, "inputs.0: Input should be a valid dictionary"),
        (
            {"inputs": [{"data": []}]},
            "inputs.0.name: Field required; inputs.0.datatype: Field required; inputs.0.shape",
        ),
        ({"inputs": [PIXELS | {"data": [7] * 48}] * 2}, "the model takes one input, and 2 came"),
        ({"inputs": [PIXELS | {"data": [7] * 48}] * 65}, "more than 64 parameters, tensors or dimensions"),
        ({"inputs": [1] * 17}, "inputs: List should have at most 16 items"),
        ({"inputs": [PIXELS | {"shape": "1,4,4,3"}]}, "inputs.0.shape: Input should be a valid list"),
        ({"inputs": [PIXELS | {"shape": [True, 4, 4, 3]}]}, "inputs.0.shape.0: Input should be a valid integer"),
        ({"inputs": [PIXELS | {"shape": [1.0, 4, 4, 3]}]}, "inputs.0.shape.0: Input should be a valid integer"),
        ({"inputs": [PIXELS | {"shape": [math.nan, 4, 4, 3]}]}, "inputs.0.shape.0: Input should be a"),
        ({"inputs": [PIXELS | {"shape": ["1", 4, 4, 3]}]}, "inputs.0.shape.0: Input should be a valid integer"),
        ({"inputs": [PIXELS | {"shape": [None, 4, 4, 3]}]}, "inputs.0.shape.0: Input should be a valid integer"),
        ({"inputs": [PIXELS | {"shape": [1] * 9}]}, "inputs.0.shape: List should have at most 8 items"),
        ({"inputs": [PIXELS | {"shape": [1] * 65}]}, "more than 64 parameters, tensors or dimensions"),
        ({"inputs": [PIXELS | {"shape": []}]}, "not []"),
        ({"inputs": [FILES | {"shape": [], "data": []}]}, "not []"),
        ({"inputs": [PIXELS | {"shape": [10**4000, 4, 4, 3]}]}, "not 1,000,000,000"),
        ({"inputs": [PIXELS | {"shape": [-(10**4000), 4, 4, 3]}]}, "a size below zero"),
        ({"inputs": [PIXELS | {"name": None}]}, "inputs.0.name: Input should be a valid string"),
        ({"inputs": [PIXELS | {"name": "x" * 5000}]}, "no input 'xxx"),
        ({"inputs": [PIXELS]}, "input pixels: it has neither data nor a parameter binary_data_size"),
        ({"inputs": [PIXELS | {"data": None}]}, "it has neither data nor a parameter binary_data_size"),
        ({"inputs": [PIXELS | {"data": {}}]}, "input pixels: data is a list"),
        ({"inputs": [PIXELS | {"data": 7}]}, "input pixels: data is a list"),
        ({"inputs": [PIXELS | {"data": "Nw=="}]}, "input pixels: data is a list"),
        ({"inputs": [PIXELS | {"data": []}]}, "takes 48 elements, and 0 came"),
        ({"inputs": [PIXELS | {"data": [7] * 49}]}, "takes 48 elements, and 49 came"),
        ({"inputs": [PIXELS | {"data": [math.nan] * 48}]}, "whole numbers"),
        ({"inputs": [FILES | {"data": ["Nw=="]}]}, "takes 2 elements, and 1 came"),
        ({"inputs": [FILES | {"data": ["Nw==", "?"]}]}, "element 1 is not base64"),
        ({"inputs": [FILES | {"data": ["Nw==", 7]}]}, "element 1 is not a string of base64"),
        ({"inputs": [PIXELS | {"parameters": {"binary_data_size": 48}}]}, "have 48 bytes, and 0 came behind the JSON"),
        ({"outputs": {}}, "outputs: Input should be a valid list"),
        ({"outputs": ["logits"]}, "outputs.0: Input should be a valid dictionary"),
        ({"outputs": [{}]}, "outputs.0.name: Field required"),
        ({"outputs": [{"name": "other"}]}, "no output 'other'; the model gives"),
        ({"outputs": [{"name": "logits"}] * 17}, "outputs: List should have at most 16 items"),
        ({"outputs": [{"name": "logits"}, {"name": "logits"}]}, "an output is asked for twice"),
        ({"outputs": [{"name": "logits", "parameters": {"binary_data": 1}}]}, "binary_data is true or false"),
        ({"outputs": [{"name": "logits", "parameters": {"binary_data": [1]}}]}, "'binary_data' is a string, a number"),
        ({"outputs": [{"name": "logits", "parameters": {"classification": 11}}]}, "whole number from 1 to 10"),
        ({"outputs": [{"name": "labels", "parameters": {"classification": 1}}]}, "of probabilities and logits"),
        ({"parameters": {"binary_data_output": "true"}}, "binary_data_output is true or false"),
        ({"parameters": {"timeout": -1}}, "timeout is a whole number"),
        ({"parameters": {"priority": 3}}, "priority is 0"),
        ({"parameters": {"top_k": 11}}, "top_k is a whole number from 1 to 10"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, str) else "",
)
def test_a_malformed_request_is_refused_with_what_is_wrong(fields: dict[str, Any], words: str) -> None:
    assert words in refusal(request(**fields))


@pytest.mark.parametrize(
    ("parameters", "behind", "words"),
    [
        ({}, b"", "neither data nor"),
        ({"binary_data_size": 47}, bytes(48), "have 47 bytes, and 48 came behind the JSON"),
        ({"binary_data_size": 49}, bytes(48), "have 49 bytes, and 48 came behind the JSON"),
        ({"binary_data_size": 47}, bytes(47), "of UINT8 takes 48 bytes, and 47 came"),
        ({"binary_data_size": 0}, b"", "of UINT8 takes 48 bytes, and 0 came"),
        ({"binary_data_size": 2**63 - 1}, bytes(48), "have 9,223,372,036,854,775,807 bytes, and 48 came"),
        ({"binary_data_size": 2**63}, bytes(48), "binary_data_size is a whole number"),
        ({"binary_data_size": 10**4000}, bytes(48), "binary_data_size is a whole number"),
        ({"binary_data_size": -48}, bytes(48), "binary_data_size is a whole number"),
        ({"binary_data_size": 48.0}, bytes(48), "binary_data_size is a whole number"),
        ({"binary_data_size": "48"}, bytes(48), "binary_data_size is a whole number"),
        ({"binary_data_size": True}, b"x", "binary_data_size is a whole number"),
        ({"binary_data_size": [48]}, bytes(48), "'binary_data_size' is a string, a number"),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, str) else "",
)
def test_a_binary_tensor_is_refused_where_its_size_is_not_what_came(
    parameters: dict[str, Any], behind: bytes, words: str
) -> None:
    text = json.dumps({"inputs": [PIXELS | {"parameters": parameters}]}).encode()
    assert words in refusal(text + behind, len(text))


@pytest.mark.parametrize("size", [0, 48])
def test_data_in_both_places_is_refused(size: int) -> None:
    text = json.dumps({"inputs": [PIXELS | {"data": [7] * 48, "parameters": {"binary_data_size": size}}]}).encode()
    assert "both data and a parameter binary_data_size" in refusal(text + bytes(size), len(text))


def test_bytes_that_no_input_claims_are_refused() -> None:
    assert "have 0 bytes, and 1 came behind the JSON" in refusal(request() + b"x", len(request()))


def test_json_that_ends_behind_the_body_is_refused_with_both_numbers() -> None:
    assert refusal(b"{}", 1234) == "the JSON is to have 1,234 bytes, and the body has 2"


def test_a_header_of_no_bytes_is_refused_with_why() -> None:
    assert "binary tensors alone do for models of a single input" in refusal(bytes(48), 0)


@pytest.mark.parametrize("behind", [b"", bytes(5000)])
def test_json_over_the_limit_is_refused_with_the_limit_and_the_way_out(behind: bytes) -> None:
    body = b" " * (1001 - len(request())) + request()
    message = refusal(body + behind, len(body) if behind else None, SMALL)
    assert message == json_form.too_much_json(1000)
    assert "1,000 bytes (max_json_bytes): send its tensors as binary data" in message
    assert parse(body[1:], None, SMALL).id == ""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"x":[' + b"0," * (MAX_VALUES + 1) + b"0]}", "1,048,576 values in 262,144 lists"),
        (b'{"x":[' + b"[]," * MAX_LISTS + b"[]]}", "1,048,576 values in 262,144 lists"),
        (b'{"x":[' + b"{}," * MAX_OBJECTS + b"0]}", "4,096 objects and keys"),
        (b"{" + b",".join(b'"%d":0' % i for i in range(MAX_OBJECTS)) + b"}", "4,096 objects and keys"),
    ],
    ids=["values", "lists", "objects", "keys"],
)
def test_json_that_would_keep_the_event_loop_is_refused_before_it_is_read(
    body: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(json_form, "from_json")
    assert words in refusal(body)


def test_as_many_nested_pixels_as_the_limit_holds_are_taken() -> None:
    image = [[[7, 7, 7]] * 224] * 224
    body = json.dumps({"inputs": [PIXELS | {"shape": [5, 224, 224, 3], "data": [image] * 5}]}, separators=(",", ":"))
    from serve_app.protocol.signature import Signature

    assert parse(body.encode(), None, FakeService(signature=Signature(224, 10))).tensor.shape == (5, 224, 224, 3)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("body", [request(), b"{", b"{}"], ids=repr)
def test_the_garbage_collector_is_left_as_it_was(body: bytes, enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        made(lambda: parse(body))
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


@settings(deadline=None)
@given(ANY)
def test_any_json_is_a_request_or_refused(value: Any) -> None:
    found = made(lambda: parse(json.dumps(value).encode(), None, SMALL))
    assert found is None or isinstance(found, InferRequest)


@settings(deadline=None, max_examples=300)
@given(REQUESTS)
def test_any_request_that_is_almost_right_is_a_request_or_refused(value: Any) -> None:
    found = made(lambda: parse(json.dumps(value).encode()))
    assert found is None or found.outputs


@settings(deadline=None)
@given(st.binary(max_size=100), st.none() | st.integers(0, 120))
def test_any_bytes_are_refused(body: bytes, header_length: int | None) -> None:
    assert made(lambda: parse(body, header_length)) is None


@settings(deadline=None)
@given(st.integers(0, 3), st.binary(max_size=60), st.integers(-1, 1))
def test_any_bytes_behind_a_request_are_files_or_refused(number: int, behind: bytes, lie: int) -> None:
    head = {"inputs": [FILES | {"shape": [number], "parameters": {"binary_data_size": max(0, len(behind) + lie)}}]}
    found = made(lambda: binary(head, behind))
    assert found is None or len(found.tensor.elements) == number


def answer(*tensors: Tensor, id: str = "") -> Answer:
    return Answer("digits", id, tensors, (1.0, 2.0, 3.0))


LOGITS = Tensor("logits", "FP32", (1, 2), np.array([[1.5, math.nan]], np.float32))
NAMES = Tensor("labels", "BYTES", (1, 2), ["Käfer".encode(), b"b"])
IDS = Tensor("class_ids", "INT64", (1, 2), np.array([[1, 0]]))


def asked(*outputs: RequestedOutput) -> InferRequest:
    return InferRequest("", LOGITS, outputs, 2, None, None)


def test_an_answer_in_json_in_full() -> None:
    outputs = asked(RequestedOutput("logits"), RequestedOutput("labels"), RequestedOutput("class_ids"))
    body, length = json_form.render(answer(LOGITS, NAMES, IDS, id="4 ü"), outputs)
    assert length is None
    assert json.loads(body) == {
        "id": "4 ü",
        "model_name": "digits",
        "model_version": "1",
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": [1.5, None]},
            {"name": "labels", "datatype": "BYTES", "shape": [1, 2], "data": ["Käfer", "b"]},
            {"name": "class_ids", "datatype": "INT64", "shape": [1, 2], "data": [1, 0]},
        ],
    }


def test_an_answer_without_an_id_has_none() -> None:
    assert "id" not in json.loads(json_form.render(answer(IDS), asked(RequestedOutput("class_ids")))[0])


def test_binary_tensors_follow_the_json_in_its_order() -> None:
    outputs = asked(
        RequestedOutput("labels", None, True), RequestedOutput("class_ids"), RequestedOutput("logits", None, True)
    )
    body, length = json_form.render(answer(NAMES, IDS, LOGITS), outputs)
    assert length is not None
    first, second, third = json.loads(body[:length])["outputs"]
    assert first == {"name": "labels", "datatype": "BYTES", "shape": [1, 2], "parameters": {"binary_data_size": 15}}
    assert second["data"] == [1, 0]
    assert third == {"name": "logits", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    assert body[length:] == b"\6\0\0\0K\xc3\xa4fer\1\0\0\0b" + np.array([1.5, math.nan], "<f4").tobytes()


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_id_comes_back(text: str) -> None:
    found = parse(request(id=text, outputs=[{"name": "class_ids"}]))
    body, _ = json_form.render(answer(IDS, id=found.id), found)
    assert json.loads(body).get("id", "") == text
