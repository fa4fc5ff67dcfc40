import asyncio

import pytest

from serve_app import errors
from serve_app.errors import BodyTooLarge
from serve_app.http import build_app
from serve_app.scheduler import Terms
from tests.http.asgi import Exchange
from tests.http.client import classify, client, failing, refusal
from tests.http.service import LABELS, FakeService


def test_the_answer_for_one_image_in_full() -> None:
    response = classify(x_request_id="req-1")
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


def test_without_top_k_the_default_applies() -> None:
    assert len(classify().json()["images"][0]["classes"]) == 2


def test_the_default_is_cut_to_the_classes_there_are() -> None:
    assert len(classify(FakeService(default_top_k=5, max_top_k=3)).json()["images"][0]["classes"]) == 3


@pytest.mark.parametrize(("text", "top_k"), [("1", 1), ("3", 3), ("10", 10), ("007", 7)])
def test_top_k_says_how_many_classes_come_best_first(text: str, top_k: int) -> None:
    classes = classify(query=f"?top_k={text}").json()["images"][0]["classes"]
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
    response = classify(service, query=query)
    assert refusal(response) == (400, "bad_parameter")
    assert response.json()["error"] == "top_k must be one whole number from 1 to 10"
    assert service.seen == []


@pytest.mark.parametrize("query", ["?topk=3", "?top_k=3&k=1", "?TOP_K=3", "?=", "?%FF=1", "?a[]=1"])
def test_an_unknown_parameter_is_refused_with_the_known_one(query: str) -> None:
    response = classify(query=query)
    assert refusal(response) == (400, "bad_parameter")
    assert "there is top_k" in response.json()["error"]


def test_a_long_unknown_parameter_is_not_echoed_whole() -> None:
    assert len(classify(query=f"?{'x' * 5000}=1").json()["error"]) < 100


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
def test_classify_takes_only_post(method: str) -> None:
    response = client().request(method, "/v1/classify")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_a_service_that_is_not_ready_does_not_classify() -> None:
    service = FakeService(ready=False)
    assert refusal(classify(service)) == (503, "not_ready")
    assert service.seen == []


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


def test_of_several_images_all_refused_the_longest_wait_is_told() -> None:
    service = FakeService(raises={b"1": errors.Overloaded("later", 2.5), b"2": errors.QueueFull("later", 6.2)})
    files = [("file", (name, name.encode())) for name in ("1", "2")]
    response = client(service).post("/v1/classify", files=files)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"
    assert [image["code"] for image in response.json()["images"]] == ["overloaded", "queue_full"]


def test_the_servers_own_objective_counts_from_when_the_request_has_been_read_the_clients_from_when_it_came() -> None:
    service = FakeService(counts_up=True)
    classify(service)
    classify(service, x_request_timeout_seconds="5")
    assert service.asked == [Terms(2.0), Terms(5.0)]
