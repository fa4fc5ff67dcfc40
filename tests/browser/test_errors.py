"""What goes wrong is said in words, where it went wrong, and the page stays usable."""

import io
import itertools
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import MAX_IMAGE_BYTES, Start
from tests.browser.driver import Route, expect
from tests.browser.test_burst import WARMING
from tests.browser.visit import Visit

pytestmark = pytest.mark.failures_are_meant
ANSWERS = [
    (
        {
            "status": 503,
            "headers": {"retry-after": "3"},
            "json": {"error": "it would come too late", "code": "overloaded"},
        },
        "The service cannot take this now: it would come too late. Try again in 3 s.",
    ),
    ({"status": 502, "body": "<html>Bad Gateway</html>"}, "No answer from behind the proxy: <html>Bad Gateway</html>."),
    ({"status": 200, "body": "<html>a login</html>"}, "An answer that is no JSON: <html>a login</html>."),
    ({"status": 401, "body": ""}, "This service asks for a token."),
    ({"status": 403, "body": ""}, "Refused with status 403."),
]


def png(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def answer_with(visit: Visit, **answer: Any) -> None:
    def fulfill(route: Route) -> None:
        route.fulfill(**answer)

    visit.page.route("**/v1/classify", fulfill)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"this is no image", "Not an image that this service reads"),
        (png(64)[:60], "The image is damaged"),
        (png(1200), "Too large"),
        (b"", "Refused with status 400"),
    ],
    ids=["text", "cut short", "pixels", "empty"],
)
def test_a_file_that_cannot_be_read_is_told_so_on_its_card(visit: Visit, content: bytes, words: str) -> None:
    visit.choose(("file.png", content))
    expect(visit.card("file.png").locator(".error")).to_contain_text(words)
    expect(visit.page.locator("#progress")).to_contain_text(words)
    expect(visit.page.locator("#burst-source")).to_have_text("the ten samples")


def test_a_file_over_the_limit_is_not_sent(visit: Visit) -> None:
    visit.choose(("large.png", bytes(MAX_IMAGE_BYTES + 1)))
    expect(visit.card("large.png")).to_contain_text("it has 200,001 bytes, an image may have 200,000. It was not sent.")
    assert visit.sent() == []


def test_good_files_are_answered_beside_a_bad_one(visit: Visit, samples: dict[int, bytes]) -> None:
    visit.choose(("a.png", samples[1]), ("b.png", b"no image"), ("c.png", samples[2]))
    expect(visit.page.locator("#progress")).to_have_text("2 of 3 classified.")
    expect(visit.page.locator("#results .error")).to_have_count(1)
    expect(visit.page.locator("#burst-source")).to_have_text("the 2 images chosen")


@pytest.mark.parametrize(("answer", "words"), ANSWERS, ids=["overloaded", "proxy", "no json", "token", "empty"])
def test_an_answer_that_is_no_classification_is_put_into_words(
    visit: Visit, answer: dict[str, Any], words: str
) -> None:
    answer_with(visit, **answer)
    visit.sample("seven").click()
    expect(visit.card("7.png").locator(".error")).to_have_text(words)
    visit.page.get_by_role("button", name="Burst").click()
    expect(visit.page.get_by_role("alert").filter(has_text=words)).to_be_visible()
    expect(visit.page.get_by_role("button", name="Burst")).to_be_enabled()


def test_a_burst_of_which_some_are_refused_counts_them(visit: Visit) -> None:
    numbers = itertools.count()

    def refuse_each_second_one(route: Route) -> None:
        number = next(numbers)
        if number in range(WARMING, WARMING + 16) and number % 2:
            route.fulfill(status=503, json={"error": "the queue is full", "code": "queue_full"})
        else:
            route.continue_()

    visit.page.route("**/v1/classify", refuse_each_second_one)
    visit.burst(8)
    counts = [(visit.figure(way, "answered"), visit.figure(way, "refused")) for way in ("one", "all", "form")]
    assert counts == [("4", "4"), ("4", "4"), ("8", "0")]
    expect(visit.page.locator("#burst-status")).to_contain_text("Some were refused. The service cannot take this now")


def test_a_burst_of_which_a_way_is_refused_altogether_says_so_and_keeps_the_others(visit: Visit) -> None:
    numbers = itertools.count()

    def refuse_bulk(route: Route) -> None:
        if next(numbers) < WARMING + 16:
            route.continue_()
        else:
            route.fulfill(status=413, json={"error": "a request may have less", "code": "body_too_large"})

    visit.page.route("**/v1/classify", refuse_bulk)
    visit.page.get_by_label("Images", exact=True).select_option("8")
    visit.page.get_by_role("button", name="Burst").click()
    expect(visit.page.locator("#burst-error")).to_have_text("Too large: a request may have less.")
    expect(visit.page.locator("#chart .row")).to_have_count(2)


def test_without_a_network_it_says_so_and_goes_on_when_there_is_one(visit: Visit) -> None:
    visit.page.context.set_offline(True)
    visit.sample("seven").click()
    expect(visit.card("7.png").locator(".error")).to_contain_text("cannot be reached")
    visit.page.get_by_role("button", name="Burst").click()
    expect(visit.page.locator("#burst-error")).to_contain_text("cannot be reached")
    visit.page.context.set_offline(False)
    visit.sample("seven").click()
    expect(visit.card("7.png").locator(".classes")).to_be_visible()
    visit.burst(8)
    expect(visit.page.locator("#burst-error")).to_be_hidden()


def test_a_service_that_is_gone_when_the_page_loads_can_be_asked_again(start: Start) -> None:
    visit = start()
    visit.page.route("**/v1/model", lambda route: route.abort())
    visit.page.goto(visit.url)
    expect(visit.page.locator("#unreachable")).to_contain_text("cannot be reached")
    expect(visit.page.get_by_role("button", name="Burst")).to_be_disabled()
    visit.page.unroute("**/v1/model")
    visit.page.get_by_role("button", name="Try again").click()
    expect(visit.page.locator("#model")).to_contain_text("resnet10_narrow")
    expect(visit.page.locator("#unreachable")).to_be_hidden()
    expect(visit.page.get_by_role("button", name="Burst")).to_be_enabled()
