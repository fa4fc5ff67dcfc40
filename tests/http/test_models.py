import pytest

from serve_app.config import Args
from serve_app.protocol import model
from tests.http.client import client, refusal
from tests.http.service import FakeService

MODEL = "/v2/models/digits"
NAMES = [MODEL, f"{MODEL}/versions/1"]
OF_A_MODEL = ["", "/ready", "/config", "/stats"]
PLAIN = ["/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/stats"]
EVERY = [*PLAIN, *(f"{name}{path}" for name in NAMES for path in OF_A_MODEL)]


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_tells_of_itself_with_and_without_a_slash(path: str) -> None:
    response = client().get(path)
    assert (response.status_code, response.json()) == (200, model.server_metadata())


@pytest.mark.parametrize("name", NAMES)
def test_a_ready_service_says_so_and_its_model_by_name(name: str) -> None:
    response = client().get("/v2/health/ready")
    assert (response.status_code, response.json()) == (200, {"ready": True})
    response = client().get(f"{name}/ready")
    assert (response.status_code, response.json()) == (200, {"name": "digits", "ready": True})


@pytest.mark.parametrize("path", ["/v2/health/ready", *(f"{name}/ready" for name in NAMES)])
def test_a_service_that_is_not_ready_says_when_to_come_back(path: str) -> None:
    response = client(FakeService(ready=False)).get(path)
    assert refusal(response) == (503, "not_ready")
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("ready", [True, False])
def test_a_service_is_live_whether_it_is_ready_or_not(ready: bool) -> None:
    response = client(FakeService(ready=ready)).get("/v2/health/live")
    assert (response.status_code, response.json()) == (200, {"live": True})


@pytest.mark.parametrize("path", ["/v2", "/v2/models", MODEL, f"{MODEL}/config", f"{MODEL}/stats"])
def test_what_a_service_says_of_itself_it_says_before_it_is_ready_too(path: str) -> None:
    assert client(FakeService(ready=False)).get(path).status_code == 200


def test_the_models_are_listed_by_name() -> None:
    assert client().get("/v2/models").json() == {"models": ["digits"]}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_tells_of_itself_its_configuration_and_its_statistics(name: str) -> None:
    service = FakeService(args=Args(max_images=3))
    service.statistics.succeeded(1.0, 2.0, 3.0)
    asked = client(service)
    assert asked.get(name).json() == model.model_metadata(service)
    assert asked.get(f"{name}/config").json() == model.model_config(service)
    assert asked.get(f"{name}/stats").json() == model.statistics(service)


def test_statistics_are_asked_for_without_a_name_too() -> None:
    service = FakeService()
    service.statistics.executed(4, 3.0)
    assert client(service).get("/v2/models/stats").json() == model.statistics(service)


def test_the_repository_is_asked_for_by_post() -> None:
    response = client().post("/v2/repository/index", json={"ready": True})
    assert (response.status_code, response.json()) == (200, model.repository_index(FakeService()))
    assert client().get("/v2/repository/index").status_code == 405


@pytest.mark.parametrize("path", OF_A_MODEL)
@pytest.mark.parametrize("name", ["other", "Digits", "digits%20", "%00", "x" * 5000, "\N{DIGIT ONE}\u0665"])
def test_an_unknown_model_is_refused_with_the_name_of_the_known_one(name: str, path: str) -> None:
    response = client().get(f"/v2/models/{name}{path}")
    assert refusal(response) == (404, "model_not_found")
    assert response.json()["error"] == "no such model; this server has digits"


@pytest.mark.parametrize("path", OF_A_MODEL)
@pytest.mark.parametrize("version", ["2", "0", "01", "-1", "latest", "1%20"])
def test_an_unknown_version_is_refused_with_the_known_one(version: str, path: str) -> None:
    response = client().get(f"{MODEL}/versions/{version}{path}")
    assert refusal(response) == (404, "model_not_found")
    assert response.json()["error"] == "no such version; digits has version 1"


@pytest.mark.parametrize("path", EVERY)
def test_every_path_answers_head_without_a_body(path: str) -> None:
    response = client().head(path)
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", EVERY)
def test_every_path_takes_nothing_but_get_and_head(path: str, method: str) -> None:
    response = client().request(method, path)
    assert refusal(response) == (405, "method_not_allowed")
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}
