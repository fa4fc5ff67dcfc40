"""Images in by every way there is; what the page shows is what the service answered."""

import json
from collections.abc import Sequence

import pytest

from tests.browser.conftest import Start
from tests.browser.driver import Page, Route, expect
from tests.browser.visit import Visit

OTHER = {"name": "resnet18", "arch": "resnet18", "weights": "ResNet18_Weights.IMAGENET1K_V1", "accuracy": None}
# Files in a DataTransfer, which only a script can make.
TRANSFER = """async (files) => {
  const transfer = new DataTransfer();
  for (const [name, bytes] of files) transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
  return transfer;
}"""


def carry(page: Page, event: str, files: Sequence[tuple[str, bytes]]) -> None:
    transfer = page.evaluate_handle(TRANSFER, [[name, list(content)] for name, content in files])
    if event == "drop":
        page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    else:
        script = "(data) => document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}))"
        page.evaluate(script, transfer)


def shows_what_was_answered(visit: Visit, name: str) -> None:
    """The latest card of `name` against the last answer."""
    card = visit.card(name)
    expect(card.locator(".classes")).to_be_visible()
    [image] = visit.answers()[-1]["images"]
    assert visit.shown(name) == [each["label"] for each in image["classes"]]
    scores = [float(text.removesuffix(" %")) for text in card.locator(".classes li > :last-child").all_inner_texts()]
    assert scores == pytest.approx([100 * each["score"] for each in image["classes"]], abs=0.06)
    company = "rode alone" if image["batch_size"] == 1 else f"rode in a batch of {image['batch_size']}"
    expect(card).to_contain_text(company)
    assert card.locator(".legend dt").all_inner_texts() == ["decode", "wait", "device", "network"]
    assert float(card.locator(".legend dd").nth(2).inner_text().removesuffix(" ms")) == pytest.approx(
        image["timings_ms"]["device"], abs=0.06
    )


def test_the_model_is_shown_with_a_plain_banner(visit: Visit) -> None:
    facts = visit.page.locator("#model")
    for text in ("digits (resnet10_narrow)", "stub", "none", "bundled", "99.7 %", "up to 16"):
        expect(facts).to_contain_text(text)
    expect(visit.page.locator("#banner")).to_contain_text("reads handwritten digits, and nothing else")
    expect(visit.page).to_have_title("digits – serve-app")


def test_a_notice_is_shown_as_text(start: Start) -> None:
    visit = start()
    describe_as(visit, notice="Served instead: <b>digits</b>")
    visit.open()
    expect(visit.page.locator("#banner")).to_contain_text("Served instead: <b>digits</b>")


def test_a_picked_file_is_classified(visit: Visit, samples: dict[int, bytes]) -> None:
    visit.choose(("my seven.png", samples[7]))
    shows_what_was_answered(visit, "my seven.png")
    assert visit.shown("my seven.png") == visit.told(samples[7])
    expect(visit.page.locator("#burst-source")).to_have_text("my seven.png")


def test_the_same_file_can_be_picked_again(visit: Visit, samples: dict[int, bytes]) -> None:
    for count in (1, 2):
        visit.choose(("7.png", samples[7]))
        expect(visit.page.locator("#results .classes")).to_have_count(count)


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_files_that_are_dropped_or_pasted_are_classified(visit: Visit, samples: dict[int, bytes], event: str) -> None:
    carry(visit.page, event, [("one.png", samples[1]), ("two.png", samples[2])])
    expect(visit.page.locator("#progress")).to_have_text("2 of 2 classified.")
    assert visit.page.locator("#results h3").all_inner_texts() == ["one.png", "two.png"]
    assert visit.shown("one.png") == visit.told(samples[1])
    assert visit.shown("two.png") == visit.told(samples[2])
    expect(visit.page.locator("#burst-source")).to_have_text("the 2 images chosen")


def test_a_drop_beside_the_field_does_not_leave_the_page(visit: Visit, samples: dict[int, bytes]) -> None:
    transfer = visit.page.evaluate_handle(TRANSFER, [["7.png", list(samples[7])]])
    visit.page.dispatch_event("footer", "drop", {"dataTransfer": transfer})
    shows_what_was_answered(visit, "7.png")


def test_of_too_many_files_the_first_are_sent_and_the_rest_is_told(visit: Visit, samples: dict[int, bytes]) -> None:
    visit.choose(*((f"{i}.png", samples[i % 10]) for i in range(67)))
    expect(visit.page.locator("#progress")).to_have_text(
        "64 of 64 classified. 3 more were left out: at most 64 at once."
    )
    assert len(visit.sent()) == 64


def test_a_sample_is_classified(visit: Visit, samples: dict[int, bytes]) -> None:
    visit.sample("seven").click()
    shows_what_was_answered(visit, "7.png")
    assert visit.shown("7.png") == visit.told(samples[7])
    expect(visit.page.locator("#burst-source")).to_have_text("the ten samples")


def test_ten_samples_at_once_share_batches(visit: Visit) -> None:
    visit.page.get_by_role("button", name="All ten at once").click()
    expect(visit.page.locator("#progress")).to_have_text("10 of 10 classified.")
    assert visit.page.locator("#results h3").all_inner_texts() == [f"{digit}.png" for digit in range(10)]
    assert max(answer["images"][0]["batch_size"] for answer in visit.answers()) > 1


def test_the_list_of_results_stays_bounded(visit: Visit) -> None:
    for round_ in range(1, 8):
        visit.page.get_by_role("button", name="All ten at once").click()
        expect(visit.page.locator("#results > li")).to_have_count(min(64, 10 * round_))
        expect(visit.page.locator("#results > [aria-busy]")).to_have_count(0)


def test_another_model_gets_a_drawn_picture_whose_classes_mean_nothing(start: Start) -> None:
    visit = start()
    describe_as(visit, **OTHER)
    visit.open()
    expect(visit.page.locator("#banner")).to_be_hidden()
    expect(visit.page.locator(".sample")).to_have_count(0)
    expect(visit.page.locator("#burst-source")).to_have_text("a picture drawn by this page")
    visit.page.get_by_role("button", name="Send a drawn picture").click()
    shows_what_was_answered(visit, "drawn.jpg")
    expect(visit.card("drawn.jpg")).to_contain_text("its classes mean nothing")
    assert visit.sent()[0].headers["content-type"] == "image/jpeg"


def describe_as(visit: Visit, **changes: object) -> None:
    """The service's description of its model, with `changes`."""

    def change(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=json.dumps({**answer.json(), **changes}))

    visit.page.route("**/v1/model", change)
