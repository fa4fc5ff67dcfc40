import pytest

from tests.http.client import client


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v1/classify/", "/v2/models/", "/v2/health/live/", "/v2/classify", "/v2/models/digits/infers", "/%00"],
)
def test_an_unknown_path_is_refused_in_the_format_of_the_others(path: str) -> None:
    response = client().get(path)
    assert response.json() == {"error": "Not Found", "code": "not_found"}
    assert response.status_code == 404


@pytest.mark.parametrize("path", ["/v1/classify", "/v2/health/live"])
def test_options_is_a_wrong_method_as_there_is_no_cors(path: str) -> None:
    assert client().options(path).status_code == 405
