import asyncio
import logging
import re
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from serve_app import __version__, errors
from serve_app.config import Args
from serve_app.errors import BodyTooLarge, RequestError, UnreadableImage
from serve_app.http import build_app
from serve_app.scheduler import Priority, Terms
from tests.http.asgi import Exchange
from tests.http.service import LABELS, FakeService

INTERNALS = "secret /path"
PLAIN_IDS = ["a", "0b1c", "a.b_c-d:e", "x" * 128]
HOSTILE_IDS = ["", " ", "a b", "a/b", "<script>", "x" * 129, "ä".encode("latin-1"), "a\tb", '"', "{}"]


def client(service: FakeService | None = None) -> TestClient:
    return TestClient(build_app(service or FakeService()), raise_server_exceptions=False)


def post(service: FakeService | None = None, content: bytes = b"7", query: str = "", **headers: Any) -> httpx2.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client(service).post(f"/v1/classify{query}", content=content, headers=names)


def failing(error: Exception) -> FakeService:
    return FakeService(raises={b"bad": error})


def refusal(response: httpx2.Response) -> tuple[int, str]:
    body = response.json()
    assert body.keys() == {"error", "code"}
    return response.status_code, body["code"]


def test_the_answer_for_one_image_in_full() -> None:
    response = post(x_request_id="req-1")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "id": "req-1",
        "model_name": "digits",
        "replica": "r-1",
        "timings_ms": {"decode": 7.0, "queue": 14.0, "device": 21.0},
        "images": [
            {
                "classes": [
                    {"class_id": 7, "label": "seven", "score": 0.5},
                    {"class_id": 8, "label": "eight", "score": 0.25},
                ],
                "batch_size": 1,
                "timings_ms": {"decode": 7.0, "queue": 14.0, "device": 21.0},
            }
        ],
    }


@pytest.mark.parametrize("error", RequestError.__subclasses__(), ids=lambda error: error.__name__)
def test_every_error_reaches_the_client_with_its_status_code_and_words(error: type[RequestError]) -> None:
    response = post(failing(error("what to do")), b"bad")
    assert response.status_code == error.status
    assert response.json() == {"error": "what to do", "code": error.code}


def test_without_top_k_the_default_applies() -> None:
    assert len(post().json()["images"][0]["classes"]) == 2


def test_the_default_is_cut_to_the_classes_there_are() -> None:
    assert len(post(FakeService(default_top_k=5, max_top_k=3)).json()["images"][0]["classes"]) == 3


@pytest.mark.parametrize(("text", "top_k"), [("1", 1), ("3", 3), ("10", 10), ("007", 7)])
def test_top_k_says_how_many_classes_come_best_first(text: str, top_k: int) -> None:
    classes = post(query=f"?top_k={text}").json()["images"][0]["classes"]
    assert [c["label"] for c in classes] == [*LABELS[7:], *LABELS[:7]][:top_k]


@pytest.mark.parametrize(
    "query",
    [
        "?top_k=0",
        "?top_k=-1",
        "?top_k=abc",
        "?top_k=1e3",
        "?top_k=1.0",
        "?top_k=11",
        "?top_k=999999999",
        "?top_k=1" + "0" * 5000,
        "?top_k=" + "0" * 5000 + "1",
        "?top_k=",
        "?top_k",
        "?top_k=1&top_k=1",
        "?top_k=1&top_k=2",
        "?top_k=%D9%A3",
        "?top_k=%C2%B2",
        "?top_k=%EF%BC%93",
        "?top_k=+3",
        "?top_k=%2B3",
        "?top_k=3%20",
        "?top_k=3%0A",
        "?top_k=1_0",
        "?top_k=0x1",
        "?top_k=3%00",
        "?top_k=%FF",
    ],
    ids=lambda query: query[:24],
)
def test_a_wrong_top_k_is_refused_with_the_range(query: str) -> None:
    service = FakeService()
    response = post(service, query=query)
    assert refusal(response) == (400, "bad_parameter")
    assert response.json()["error"] == "top_k must be one whole number from 1 to 10"
    assert service.seen == []


@pytest.mark.parametrize("query", ["?topk=3", "?top_k=3&k=1", "?TOP_K=3", "?=", "?%FF=1", "?a[]=1"])
def test_an_unknown_parameter_is_refused_with_the_known_one(query: str) -> None:
    response = post(query=query)
    assert refusal(response) == (400, "bad_parameter")
    assert "there is top_k" in response.json()["error"]


def test_a_long_unknown_parameter_is_not_echoed_whole() -> None:
    assert len(post(query=f"?{'x' * 5000}=1").json()["error"]) < 100


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
def test_classify_takes_only_post(method: str) -> None:
    response = client().request(method, "/v1/classify")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_a_wrong_method_is_refused_in_the_format_of_the_others() -> None:
    assert client().get("/v1/classify").json() == {"error": "Method Not Allowed", "code": "method_not_allowed"}


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/classify", "/v2/models/digits/infer", "/%00"])
def test_an_unknown_path_is_refused_in_the_format_of_the_others(path: str) -> None:
    response = client().get(path)
    assert response.json() == {"error": "Not Found", "code": "not_found"}
    assert response.status_code == 404


def test_a_ready_service_says_so() -> None:
    response = client().get("/v2/health/ready")
    assert (response.status_code, response.json()) == (200, {"ready": True})


def test_a_service_that_is_not_ready_says_so() -> None:
    assert refusal(client(FakeService(ready=False)).get("/v2/health/ready")) == (503, "not_ready")


def test_a_service_that_is_not_ready_does_not_classify() -> None:
    service = FakeService(ready=False)
    assert refusal(post(service)) == (503, "not_ready")
    assert service.seen == []


@pytest.mark.parametrize("ready", [True, False])
def test_a_service_is_live_whether_it_is_ready_or_not(ready: bool) -> None:
    response = client(FakeService(ready=ready)).get("/v2/health/live")
    assert (response.status_code, response.json()) == (200, {"live": True})


def test_the_models_are_listed_by_name() -> None:
    assert client().get("/v2/models").json() == {"models": ["digits"]}


def test_a_model_tells_of_itself_and_its_server() -> None:
    assert client().get("/v2/models/digits").json() == {
        "name": "digits",
        "device": "fake",
        "server": {"name": "serve-app", "version": __version__},
    }


def test_an_unknown_model_is_refused_with_the_name_of_the_known_one() -> None:
    response = client().get("/v2/models/other")
    assert refusal(response) == (404, "model_not_found")
    assert "digits" in response.json()["error"]


@pytest.mark.parametrize("path", ["/v1/classify", "/v2/health/live"])
def test_options_is_a_wrong_method_as_there_is_no_cors(path: str) -> None:
    assert client().options(path).status_code == 405


def test_a_bug_gives_a_bare_500_and_its_id() -> None:
    response = post(failing(RuntimeError(INTERNALS)), b"bad", x_request_id="req-1")
    assert response.status_code == 500
    assert response.json().keys() == {"error", "code", "id"}
    assert (response.json()["code"], response.json()["id"]) == (errors.INTERNAL_CODE, "req-1")


def test_a_bug_shows_the_client_nothing_of_itself() -> None:
    response = post(failing(RuntimeError(INTERNALS)), b"bad")
    seen = response.text + str(response.headers)
    assert not [word for word in ("secret", "path", "RuntimeError", "Traceback", ".py") if word in seen]


def test_a_bug_is_logged_once_with_its_traceback_and_its_id(caplog: pytest.LogCaptureFixture) -> None:
    response = post(failing(RuntimeError(INTERNALS)), b"bad")
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert response.json()["id"] in record.getMessage()
    assert f"RuntimeError: {INTERNALS}" in caplog.text
    assert "in classify" in caplog.text


def test_a_bug_in_one_of_several_files_is_a_bare_500(caplog: pytest.LogCaptureFixture) -> None:
    files = [("file", ("a", b"7")), ("file", ("b", b"bad"))]
    response = client(failing(RuntimeError(INTERNALS))).post("/v1/classify", files=files)
    assert (response.status_code, response.json()["code"]) == (500, errors.INTERNAL_CODE)
    assert f"RuntimeError: {INTERNALS}" in caplog.text


def test_a_refused_request_is_not_logged_as_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    post(failing(UnreadableImage("cut short")), b"bad")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_client_that_leaves_while_sending_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService()
    Exchange([b"half an ima"], ends_in_disconnect=True).run(build_app(service))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert service.seen == []


@pytest.mark.parametrize("given", PLAIN_IDS)
def test_a_plain_request_id_is_echoed(given: str) -> None:
    assert post(x_request_id=given).json()["id"] == given


@pytest.mark.parametrize("given", HOSTILE_IDS)
def test_a_hostile_request_id_is_replaced(given: str | bytes) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", post(x_request_id=given).json()["id"])


def test_requests_without_an_id_get_one_each() -> None:
    both = client()
    first, second = (both.post("/v1/classify", content=b"7").json()["id"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize("images", [[b"7"], [b"2", b"9", b"bad"], [b"bad", b"bad"]], ids=repr)
def test_the_server_timing_header_says_what_the_body_says(images: list[bytes]) -> None:
    service = failing(UnreadableImage("cut short")) if len(images) > 1 else FakeService()
    files = [("file", (str(i), image)) for i, image in enumerate(images)]
    response = client(service).post("/v1/classify", files=files)
    header = response.headers["server-timing"]
    assert re.fullmatch(r"decode;dur=[0-9.]+, queue;dur=[0-9.]+, device;dur=[0-9.]+", header)
    stages = (entry.split(";dur=") for entry in header.split(", "))
    assert {name: float(ms) for name, ms in stages} == response.json()["timings_ms"]


def test_the_timings_of_several_images_are_those_of_the_slowest() -> None:
    files = [("file", (str(i), b"%d" % i)) for i in (2, 9, 4)]
    assert client().post("/v1/classify", files=files).json()["timings_ms"] == {
        "decode": 9.0,
        "queue": 18.0,
        "device": 27.0,
    }


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"hang", {}),
        (
            b"".join(
                b'--x\r\nContent-Disposition: form-data; filename="a"\r\n\r\n%s\r\n' % data for data in (b"7", b"hang")
            )
            + b"--x--",
            {"content-type": "multipart/form-data; boundary=x"},
        ),
    ],
    ids=["raw", "multipart"],
)
def test_a_cancelled_request_cancels_its_images(body: bytes, headers: dict[str, str]) -> None:
    service = FakeService()

    async def cancel_once_started() -> None:
        request = asyncio.create_task(Exchange([body], headers).drive(build_app(service)))
        await service.started.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(asyncio.wait_for(cancel_once_started(), 10))
    assert service.cancelled == [b"hang"]


def test_an_image_that_is_refused_does_not_cancel_the_others() -> None:
    service = failing(BodyTooLarge("too large"))
    files = [("file", ("a", b"bad")), ("file", ("b", b"7"))]
    response = client(service).post("/v1/classify", files=files)
    assert [sorted(image) for image in response.json()["images"]] == [
        ["code", "error", "name"],
        ["batch_size", "classes", "name", "timings_ms"],
    ]


def test_without_headers_a_request_is_interactive_and_the_server_sets_its_deadline() -> None:
    service = FakeService()
    assert post(service).status_code == 200
    assert service.asked == [Terms()]


@pytest.mark.parametrize(
    ("text", "seconds"), [("0.25", 0.25), ("3", 3.0), (".5", 0.5), ("2.", 2.0), ("999999999", 999_999_999)]
)
def test_a_request_names_its_deadline_and_priority(text: str, seconds: float) -> None:
    service = FakeService()
    assert post(service, x_request_timeout_seconds=text, x_request_priority="Batch").status_code == 200
    assert service.asked == [Terms(seconds, Priority.BATCH)]


@pytest.mark.parametrize("text", ["", "0", "0.0", "-1", "nan", "inf", "1e3", "1s", "1,5", "0x1", "1" * 400, "١"])
def test_a_deadline_that_is_no_positive_number_is_refused(text: str) -> None:
    service = FakeService()
    response = post(service, x_request_timeout_seconds=text.encode())
    assert refusal(response) == (400, "bad_parameter")
    assert "x-request-timeout-seconds" in response.json()["error"]
    assert service.seen == []


@pytest.mark.parametrize("text", ["", "high", "0", "interactive, batch"])
def test_an_unknown_priority_is_refused_with_those_that_there_are(text: str) -> None:
    response = post(x_request_priority=text)
    assert refusal(response) == (400, "bad_parameter")
    assert "interactive, batch" in response.json()["error"]


@pytest.mark.parametrize(("seconds", "header"), [(0.2, "1"), (1.0, "1"), (1.01, "2"), (0.0, "1")])
def test_a_refusal_at_the_door_says_when_to_come_back_and_reads_nothing(seconds: float, header: str) -> None:
    service = FakeService(refuses=errors.Overloaded("later", seconds), args=Args(max_image_bytes=1))
    response = post(service, content=b"more than one byte")
    assert refusal(response) == (503, "overloaded")
    assert response.headers["retry-after"] == header
    assert service.seen == []


def test_an_error_that_does_not_pass_with_time_has_no_retry_after() -> None:
    assert "retry-after" not in post(failing(UnreadableImage("no")), content=b"bad").headers


def test_of_several_images_all_refused_the_longest_wait_is_told() -> None:
    service = FakeService(raises={b"1": errors.Overloaded("later", 2.5), b"2": errors.QueueFull("later", 6.2)})
    files = [("file", (name, name.encode())) for name in ("1", "2")]
    response = client(service).post("/v1/classify", files=files)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"
    assert [image["code"] for image in response.json()["images"]] == ["overloaded", "queue_full"]


def test_the_servers_own_objective_counts_from_when_the_request_has_been_read_the_clients_from_when_it_came() -> None:
    service = FakeService(counts_up=True)
    post(service)
    post(service, x_request_timeout_seconds="5")
    assert service.asked == [Terms(2.0), Terms(5.0)]
