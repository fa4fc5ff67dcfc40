"""The document against the code: every route, every error, every example."""

import re
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route
from starlette.testclient import TestClient

from serve_app.config import Args
from serve_app.decode import Pixels
from serve_app.engine.base import Normalised
from serve_app.errors import Overloaded, RequestError
from serve_app.http import build_app
from serve_app.http.infer import protocol_status
from serve_app.http.openapi import document, responses
from serve_app.protocol.signature import Signature
from serve_app.scheduler import Terms
from serve_app.service import Classification
from tests.http.service import CROP_SIZE, FakeService

ASSETS = re.compile("/(page|docs)/.*")
"""What the pages load: of no use to a client."""
CLASSIFY = "/v1/classify"
INFER = ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer")
DOCUMENT = document(FakeService())
each_error = pytest.mark.parametrize("error", RequestError.__subclasses__(), ids=lambda error: error.__name__)


def client(service: FakeService | None = None) -> TestClient:
    return TestClient(build_app(service or FakeService()), raise_server_exceptions=False)


def responses_of(path: str, method: str = "post") -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method]["responses"]
    return found


def codes(response: dict[str, Any]) -> set[str]:
    """Those that an answer in JSON may have."""
    schema = response["content"]["application/json"]["schema"]
    return set(schema.get("anyOf", [schema])[0]["properties"]["code"]["enum"])


def validator(name: str, of: dict[str, Any] = DOCUMENT) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": of["components"]})


def test_it_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_every_schema_is_valid() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_schema_is_used() -> None:
    used = set(re.findall("'#/components/schemas/([^']+)'", str(DOCUMENT)))
    assert used == set(DOCUMENT["components"]["schemas"])


def test_every_route_is_in_it_and_nothing_else() -> None:
    routes = {
        (route.path, method)
        for route in build_app(FakeService()).routes
        if isinstance(route, Route) and not ASSETS.fullmatch(route.path)
        for method in (route.methods or set()) - {"HEAD"}  # goes with GET (RFC 9110, 9.3.2)
    }
    documented = {(path, method.upper()) for path, item in DOCUMENT["paths"].items() for method in item}
    assert routes == documented


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for item in DOCUMENT["paths"].values() for operation in item.values()]
    assert len(set(names)) == len(names)


def test_every_parameter_in_a_path_is_described() -> None:
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            described = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]
            assert described == re.findall(r"{(\w+)}", path)


@each_error
def test_every_error_is_documented_with_its_status_where_it_can_come(error: type[RequestError]) -> None:
    assert error in {*responses.OF_CLASSIFY, *responses.OF_INFER, *responses.OF_A_MODEL}
    if error in responses.OF_CLASSIFY:
        assert error.code in codes(responses_of(CLASSIFY)[str(error.status)])
    for path in INFER:
        if error in responses.OF_INFER:
            assert error.code in codes(responses_of(path)[str(protocol_status(error("")))])


@each_error
def test_what_an_image_may_raise_is_documented_for_both_ways_to_send_one(error: type[RequestError]) -> None:
    """As raised by `Service.classify`: the answer's status and code are in the document."""
    raised = FakeService(raises={b"7": error("no")})
    body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["Nw=="]}]}
    for path, answer in (
        (CLASSIFY, client(raised).post(CLASSIFY, content=b"7")),
        (INFER[0], client(raised).post("/v2/models/digits/infer", json=body)),
    ):
        if error in (responses.OF_CLASSIFY if path == CLASSIFY else responses.OF_INFER):
            assert answer.json()["code"] in codes(responses_of(path)[str(answer.status_code)])


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_what_ray_answers_itself_is_documented_everywhere(path: str) -> None:
    for method in DOCUMENT["paths"][path]:
        found = responses_of(path, method)
        assert {"not_ready", "queue_full"} <= codes(found["503"])
        assert "deadline_exceeded" in codes(found["504"])
        assert set(found["500"]["content"]) == {"application/json", "text/plain"}
        assert found["503"]["headers"]["Retry-After"]["required"]


class OneService(FakeService):
    """Takes whatever file for the image 1."""

    async def classify(self, image: bytes | Pixels | Normalised, terms: Terms) -> Classification:
        return await super().classify(b"1" if isinstance(image, bytes) else image, terms)


def infer(body: object) -> httpx2.Response:
    return client(OneService()).post("/v2/models/digits/infer", json=body)


def test_the_example_of_a_request_is_as_its_schema_says_and_is_answered() -> None:
    content = DOCUMENT["paths"][INFER[0]]["post"]["requestBody"]["content"]["application/json"]
    [example] = content["examples"].values()
    validator("InferRequest").validate(example["value"])
    answer = infer(example["value"])
    assert answer.status_code == 200
    validator("InferResponse").validate(answer.json())


def image(**changes: object) -> dict[str, object]:
    return {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["Nw=="], **changes}


PIXELS = {"name": "pixels", "datatype": "UINT8", "data": [0] * 3 * CROP_SIZE**2}


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [image()]},
        {"id": "7", "inputs": [image(shape=[2, 1], data=[["Nw=="], ["Nw=="]])], "unknown": 1},
        {"inputs": [image()], "parameters": {"timeout": None, "priority": 2, "top_k": 10, "unknown": "x"}},
        {"inputs": [image()], "outputs": [{"name": "logits", "parameters": {"classification": 2}}]},
        {"inputs": [{**PIXELS, "shape": [1, CROP_SIZE, CROP_SIZE, 3]}]},
        {"inputs": [{**PIXELS, "shape": [1, 3, CROP_SIZE, CROP_SIZE]}]},
        {"inputs": [{**PIXELS, "name": "normalized", "datatype": "FP32", "shape": [1, 3, CROP_SIZE, CROP_SIZE]}]},
    ],
)
def test_what_the_schema_of_a_request_takes_is_answered_as_the_schema_of_answers_says(body: object) -> None:
    validator("InferRequest").validate(body)
    answer = infer(body)
    assert answer.status_code == 200, answer.text
    validator("InferResponse").validate(answer.json())


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"inputs": []},
        {"inputs": [image(), image()]},
        {"inputs": [image(name="other")]},
        {"inputs": [image(datatype="UINT8")]},
        {"inputs": [image(shape=[0])]},
        {"inputs": [image(shape=[33])]},
        {"inputs": [image(shape=[1, 2])]},
        {"inputs": [image(shape=["1"])]},
        {"inputs": [image(data=None)]},
        {"inputs": [image(data=[1])]},
        {"inputs": [{**PIXELS, "shape": [1, CROP_SIZE + 1, CROP_SIZE, 3]}]},
        {"inputs": [{**PIXELS, "shape": [1, CROP_SIZE, CROP_SIZE, 3], "data": [256] * 3 * CROP_SIZE**2}]},
        {"inputs": [image()], "id": 7},
        {"inputs": [image()], "id": "x" * 1025},
        {"inputs": [image()], "outputs": [{"name": "other"}]},
        {"inputs": [image()], "outputs": [{"name": "logits", "parameters": {"classification": 11}}]},
        {"inputs": [image()], "outputs": [{"name": "logits"}] * 17},
        {"inputs": [image()], "parameters": {"top_k": 0}},
        {"inputs": [image()], "parameters": {"priority": 3}},
        {"inputs": [image()], "parameters": {"timeout": -1}},
        {"inputs": [image()], "parameters": {"timeout": "1"}},
        {"inputs": [image()], "parameters": {"binary_data_output": 1}},
        {"inputs": [image()], "parameters": {"nested": {}}},
    ],
    ids=lambda body: str(body)[:80],
)
def test_what_the_schema_of_a_request_refuses_is_refused(body: object) -> None:
    assert not validator("InferRequest").is_valid(body)
    assert infer(body).status_code == 400


@pytest.mark.parametrize("content", [b"7", b"bad"])
def test_a_form_s_answer_is_as_its_schema_says(content: bytes) -> None:
    service = FakeService(raises={b"bad": Overloaded("no", 1)})
    answer = client(service).post(CLASSIFY, files=[("a", ("a.png", content)), ("b", ("b.png", b"bad"))])
    schema = responses_of(CLASSIFY)[str(answer.status_code)]["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(answer.json())


def test_model_limits_and_tensors_are_those_of_the_service() -> None:
    args = Args(max_images=5, max_json_bytes=1000)
    other = FakeService(args=args, model_name="birds", max_top_k=3, signature=Signature(7, 2), labels=("a", "b"))
    found = document(other)
    request = {"inputs": [{**PIXELS, "shape": [5, 7, 7, 3]}], "parameters": {"top_k": 3}}
    assert validator("InferRequest", found).is_valid(request)
    assert not validator("InferRequest").is_valid(request)
    parameters = {each["name"]: each["schema"] for each in found["paths"][INFER[1]]["post"]["parameters"]}
    assert (parameters["name"]["enum"], parameters["version"]["enum"]) == (["birds"], ["1"])
    assert parameters["Inference-Header-Content-Length"]["maximum"] == 1000
    classes = found["components"]["schemas"]["Classification"]["properties"]["images"]
    assert classes["maxItems"] == 5


def schema_of_get(path: str) -> dict[str, Any]:
    found: dict[str, Any] = responses_of(path, "get")["200"]["content"]["application/json"]["schema"]
    return found


# The fake has little to say of its model: tests/serve/test_openapi.py asks a real one.
OF_A_CHECKPOINT = {"#/components/schemas/ModelMetadata", "#/components/schemas/ModelDescription"}
IN_JSON = [path for path, item in DOCUMENT["paths"].items() if "get" in item and "/v" in path]
ANSWERED = [path for path in IN_JSON if schema_of_get(path)["$ref"] not in OF_A_CHECKPOINT]


@pytest.mark.parametrize("path", ANSWERED)
def test_answers_are_as_their_schemas_say(path: str) -> None:
    answer = client().get(path.format(name="digits", version="1"))
    assert answer.status_code == 200
    Draft202012Validator({**schema_of_get(path), "components": DOCUMENT["components"]}).validate(answer.json())
