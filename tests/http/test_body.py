import itertools
from collections.abc import Iterable
from typing import Any

import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from serve_app.config import Args
from serve_app.errors import UnreadableImage, UnsupportedImage
from serve_app.http import build_app
from serve_app.http.body import MAX_NAME_LENGTH, MAX_PART_HEADER_BYTES, Upload, _Collector
from tests.http.asgi import Exchange
from tests.http.service import FakeService

LIMITS = Args(max_image_bytes=100, max_request_bytes=1000, max_images=3)
BOUNDARY = "--limit"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
CHUNK = b"7" * 10


def part(data: bytes, headers: bytes = b'Content-Disposition: form-data; name="file"; filename="a"') -> bytes:
    return b"--%s\r\n%s\r\n\r\n%s\r\n" % (BOUNDARY.encode(), headers, data)


END = b"--%s--\r\n" % BOUNDARY.encode()


def service(**fields: Any) -> FakeService:
    return FakeService(args=LIMITS, **fields)


def post(content: bytes, headers: dict[str, str] | None = None, to: FakeService | None = None) -> httpx2.Response:
    return TestClient(build_app(to or service())).post("/v1/classify", content=content, headers=headers)


def post_files(*images: bytes, to: FakeService | None = None) -> httpx2.Response:
    files = [("file", (f"{i}.png", image)) for i, image in enumerate(images)]
    return TestClient(build_app(to or service())).post("/v1/classify", files=files)


def exchange(chunks: Iterable[bytes], headers: dict[str, str]) -> Exchange:
    return Exchange(chunks, headers).run(build_app(service()))


def best(response: httpx2.Response) -> list[int | str]:
    """The first class of each image, or the code of its error."""
    images = response.json()["images"]
    return [image.get("code") or image["classes"][0]["class_id"] for image in images]


def refusal(response: httpx2.Response) -> tuple[int, str]:
    body = response.json()
    assert body.keys() == {"error", "code"}
    return response.status_code, body["code"]


def test_an_empty_body_is_refused() -> None:
    assert refusal(post(b"")) == (400, "empty_body")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "image/png",
        "application/json",
        "multipart/mixed; boundary=x",
        "nonsense",
        ";",
        "ÿ",
    ],
)
def test_any_other_content_type_is_a_raw_body(content_type: str) -> None:
    to = service()
    Exchange([b"7"], {"content-type": content_type}).run(build_app(to))
    assert to.seen == [b"7"]


def test_a_body_without_a_content_type_is_a_raw_body() -> None:
    assert best(post(b"7")) == [7]


def test_chunks_of_a_raw_body_are_joined_in_order() -> None:
    to = service()
    Exchange([b"1", b"", b"23"], {}).run(build_app(to))
    assert to.seen == [b"123"]


def test_a_body_of_exactly_the_limit_is_taken() -> None:
    to = service()
    post(b"0" * 100, to=to)
    assert to.seen == [b"0" * 100]


def test_a_body_over_the_limit_is_refused_with_both_numbers() -> None:
    response = post(b"0" * 101)
    assert refusal(response) == (413, "body_too_large")
    assert "at most 100 bytes; this body has 101" in response.json()["error"]


@pytest.mark.parametrize(
    ("headers", "limit"),
    [({}, LIMITS.max_image_bytes), (MULTIPART, LIMITS.max_request_bytes)],
    ids=["raw", "multipart"],
)
def test_a_declared_length_over_the_limit_is_refused_without_reading(headers: dict[str, str], limit: int) -> None:
    result = exchange(itertools.repeat(CHUNK), {**headers, "content-length": str(limit + 1)})
    assert (result.status, result.json["code"], result.pulled) == (413, "body_too_large", 0)


def test_a_declared_length_of_thousands_of_digits_is_refused_without_reading() -> None:
    result = exchange(itertools.repeat(CHUNK), {"content-length": "1" + "0" * 5000})
    assert (result.status, result.json["code"], result.pulled) == (413, "body_too_large", 0)


@pytest.mark.parametrize("length", ["", "-1", "abc", "0", "\xb2"])
def test_a_declared_length_that_lies_does_not_lift_the_limit(length: str) -> None:
    result = exchange(itertools.repeat(CHUNK), {"content-length": length})
    assert (result.status, result.pulled) == (413, 11)


def test_an_endless_raw_body_is_refused_by_the_chunk_that_passes_the_limit() -> None:
    result = exchange(itertools.repeat(CHUNK), {})
    assert (result.status, result.json["code"], result.pulled) == (413, "body_too_large", 11)


def test_an_endless_multipart_body_is_refused_by_the_chunk_that_passes_the_limit() -> None:
    result = exchange(itertools.chain([part(b"7")], itertools.repeat(CHUNK)), MULTIPART)
    expected = 1 + (LIMITS.max_request_bytes - len(part(b"7"))) // len(CHUNK) + 1
    assert (result.status, result.json["code"], result.pulled) == (413, "body_too_large", expected)


@pytest.mark.parametrize(
    "endless",
    [
        itertools.chain([b"--%s\r\n" % BOUNDARY.encode()], itertools.repeat(b"x" * 100)),
        itertools.chain([b"--%s\r\nX: " % BOUNDARY.encode()], itertools.repeat(b"x" * 100)),
        itertools.chain([b"--%s\r\nX:" % BOUNDARY.encode()], itertools.repeat(b" " * 100)),
    ],
    ids=["name", "value", "spaces"],
)
def test_an_endless_part_header_is_refused_soon_after_its_limit(endless: Iterable[bytes]) -> None:
    result = Exchange(endless, MULTIPART).run(build_app(FakeService()))
    assert (result.status, result.json["code"]) == (400, "bad_multipart")
    assert result.pulled <= MAX_PART_HEADER_BYTES // 100 + 4


def test_endless_part_headers_are_refused_long_before_the_body_limit() -> None:
    endless = itertools.chain([b"--%s\r\n" % BOUNDARY.encode()], itertools.repeat(b"X: y\r\n"))
    result = Exchange(endless, MULTIPART).run(build_app(FakeService()))
    assert (result.status, result.json["code"]) == (400, "bad_multipart")
    assert result.pulled < 100


def test_one_file_is_answered_with_its_name() -> None:
    response = post_files(b"7")
    assert (response.status_code, best(response)) == (200, [7])
    assert response.json()["images"][0]["name"] == "0.png"


def test_files_are_answered_in_their_order() -> None:
    response = post_files(b"3", b"1", b"2")
    assert best(response) == [3, 1, 2]
    assert [image["name"] for image in response.json()["images"]] == ["0.png", "1.png", "2.png"]


def test_a_form_field_may_have_any_name_and_repeat() -> None:
    headers = b'Content-Type: image/png\r\ncontent-disposition: form-data; filename="x"'
    assert best(post(part(b"4", headers) + part(b"5", headers) + END, MULTIPART)) == [4, 5]


def test_one_unreadable_file_hurts_none_of_the_others() -> None:
    to = service(raises={b"bad": UnreadableImage("cut short")})
    response = post_files(b"1", b"bad", b"2", to=to)
    assert (response.status_code, best(response)) == (200, [1, "unreadable_image", 2])
    assert response.json()["images"][1] == {"name": "1.png", "error": "cut short", "code": "unreadable_image"}


def test_one_empty_file_hurts_none_of_the_others() -> None:
    assert best(post_files(b"1", b"", b"2")) == [1, "empty_body", 2]


@pytest.mark.parametrize("size", [101, 400])
def test_one_file_too_large_hurts_none_of_the_others_and_is_not_decoded(size: int) -> None:
    to = service()
    response = post_files(b"1", b"0" * size, b"2", to=to)
    assert (response.status_code, best(response)) == (200, [1, "body_too_large", 2])
    assert to.seen == [b"1", b"2"]


def test_a_file_of_exactly_the_limit_is_taken() -> None:
    assert best(post_files(b"0" * 99 + b"7")) == [7]


def test_one_file_too_large_alone_is_refused_like_a_raw_body() -> None:
    assert refusal(post_files(b"0" * 101)) == (413, "body_too_large")


def test_all_files_unreadable_gives_the_status_of_the_first_and_every_error() -> None:
    to = service(raises={b"bad": UnreadableImage("cut short"), b"odd": UnsupportedImage("no image")})
    response = post_files(b"odd", b"bad", to=to)
    assert (response.status_code, best(response)) == (415, ["unsupported_image", "unreadable_image"])
    assert response.json()["code"] == "unsupported_image"
    assert "none of the 2 images" in response.json()["error"]


def test_as_many_files_as_allowed_are_taken() -> None:
    assert best(post_files(b"1", b"2", b"3")) == [1, 2, 3]


def test_a_file_more_than_allowed_is_refused_before_any_is_classified() -> None:
    to = service()
    response = post_files(b"1", b"2", b"3", b"4", to=to)
    assert refusal(response) == (413, "too_many_images")
    assert "at most 3 images" in response.json()["error"]
    assert to.seen == []


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary=""'],
)
def test_a_form_without_a_boundary_is_refused(content_type: str) -> None:
    assert refusal(post(part(b"7") + END, {"content-type": content_type})) == (400, "bad_multipart")


@pytest.mark.parametrize("content_type", ["Multipart/Form-Data; Boundary={}", 'multipart/form-data ; boundary="{}"'])
def test_the_content_type_of_a_form_may_be_spelt_in_any_way(content_type: str) -> None:
    response = post(part(b"7") + END, {"content-type": content_type.format(BOUNDARY)})
    assert best(response) == [7]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (part(b"7").replace(b"limit", b"other") + END, "damaged or does not match"),
        (b"\r\n" + part(b"7").replace(b"limit", b"other"), "damaged or does not match"),
        (b"no form at all", "damaged or does not match"),
        (b"", "before its closing boundary"),
        (b"\r\n" * 10, "before its closing boundary"),
        (part(b"7"), "before its closing boundary"),
        (part(b"7")[:-4], "before its closing boundary"),
        (part(b"7") + END[:-3], "before its closing boundary"),
        (part(b"7") + part(b"8")[:30], "before its closing boundary"),
        (part(b"7", b"bad header") + END, "damaged or does not match"),
        (part(b"7", b": no name") + END, "damaged or does not match"),
        (part(b"7", b"X-Long: " + b"x" * 900) + END, "a form field is not a file"),
        (part(b"7", b'Content-Disposition: form-data; name="top_k"') + END, "go into the URL's query"),
        (part(b"7", b"Content-Type: image/png") + END, "a form field is not a file"),
        (part(b"7") + part(b"5", b'Content-Disposition: form-data; name="top_k"') + END, "a form field is not a file"),
    ],
    ids=lambda value: repr(value[:60]),
)
def test_a_damaged_form_is_refused_with_the_reason(body: bytes, words: str) -> None:
    response = post(body, MULTIPART)
    assert refusal(response) == (400, "bad_multipart")
    assert words in response.json()["error"]


def test_a_boundary_that_no_client_writes_is_refused() -> None:
    headers = {"content-type": f"multipart/form-data; boundary={'x' * 300}"}
    assert refusal(post(part(b"7") + END, headers)) == (400, "bad_multipart")


def test_a_form_without_files_is_refused_as_empty() -> None:
    assert refusal(post(END, MULTIPART)) == (400, "empty_body")


def test_a_form_over_the_limit_is_refused_whatever_its_files() -> None:
    response = post_files(b"0" * 90, b"0" * 90, b"0" * 900)
    assert refusal(response) == (413, "body_too_large")
    assert "a request may have at most 1,000 bytes" in response.json()["error"]


@pytest.mark.parametrize("name", ["Käfer.jpg", "猫.png", "😀", "a b;c=d.png", "[red].png", "../../etc/passwd"])
def test_a_file_name_comes_back_as_it_was(name: str) -> None:
    headers = b'Content-Disposition: form-data; name="f"; filename="%s"' % name.encode()
    assert post(part(b"7", headers) + END, MULTIPART).json()["images"][0]["name"] == name


def test_a_file_name_that_is_no_utf_8_is_mended() -> None:
    headers = b'Content-Disposition: form-data; name="f"; filename="\xff.png"'
    assert post(part(b"7", headers) + END, MULTIPART).json()["images"][0]["name"] == "\N{REPLACEMENT CHARACTER}.png"


def test_a_long_file_name_is_cut() -> None:
    headers = b'Content-Disposition: form-data; name="f"; filename="%s"' % (b"x" * 300)
    assert post(part(b"7", headers) + END, MULTIPART).json()["images"][0]["name"] == "x" * MAX_NAME_LENGTH


def test_a_file_grows_in_place_and_is_not_copied_for_every_chunk() -> None:
    events = (collector := _Collector(LIMITS, [Upload("a", bytearray())])).callbacks()
    before = collector.uploads[0].data
    events["on_part_data"](CHUNK, 0, len(CHUNK))
    assert collector.uploads[0].data is before
    assert before == CHUNK


FILES = st.lists(st.binary(max_size=60).map(lambda data: data or b"x"), min_size=1, max_size=3)


@settings(deadline=None)
@given(FILES, st.lists(st.integers(0, 500), max_size=8))
@example([b"\r\n", b"\r\n--" + BOUNDARY.encode()[:4], b"-"], list(range(500)))
def test_files_arrive_whole_however_the_body_is_cut(files: list[bytes], cuts: list[int]) -> None:
    body = b"".join(map(part, files)) + END
    ends = sorted({0, *cuts, len(body)})
    chunks = [body[a:b] for a, b in itertools.pairwise(ends)]
    to = service(raises={data: UnreadableImage("") for data in files})
    Exchange(chunks, MULTIPART).run(build_app(to))
    assert to.seen == files


@settings(deadline=None)
@given(st.binary(max_size=300))
@example(part(b"7", b"Content-Disposition: form-data; filename") + END)
@example(part(b"7", b'Content-Disposition: ;;;=;"; filename="') + END)
@example(part(b"7", b"Content-Disposition:") + END)
def test_no_form_whatever_is_a_bug_or_a_success(body: bytes) -> None:
    result = exchange([b"--%s\r\n" % BOUNDARY.encode(), body], MULTIPART)
    assert (result.status, result.json["code"]) in [(400, "bad_multipart"), (400, "empty_body")]
