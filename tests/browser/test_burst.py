"""The burst: three ways, their picture, and figures that agree with the answers."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from tests.browser.driver import expect
from tests.browser.visit import Visit

WARMING = 6
MAX_IMAGES = 32
WAYS = ("one", "all", "form")


def images_of(answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [image for answer in answers for image in answer["images"]]


def mean_batch(images: Sequence[dict[str, Any]]) -> float:
    return len(images) / math.fsum(1 / image["batch_size"] for image in images)


def by_way(visit: Visit, size: int) -> dict[str, list[dict[str, Any]]]:
    """The images answered in each way, from the wire."""
    answers = visit.answers()[WARMING:]
    one, all_, form = answers[:size], answers[size : 2 * size], answers[2 * size :]
    assert len(form) == -(-size // MAX_IMAGES)
    return {"one": images_of(one), "all": images_of(all_), "form": images_of(form)}


@pytest.mark.parametrize("size", [8, 64])
def test_the_figures_are_those_of_the_answers(visit: Visit, size: int) -> None:
    visit.burst(size)
    for way, images in by_way(visit, size).items():
        assert len(images) == size
        assert visit.figure(way, "answered") == str(size)
        assert visit.figure(way, "refused") == "0"
        assert visit.figure(way, "largestBatch") == str(max(image["batch_size"] for image in images))
        assert float(visit.figure(way, "meanBatch")) == pytest.approx(mean_batch(images), abs=0.06)
        device_ms = sum(image["timings_ms"]["device"] / image["batch_size"] for image in images) / size
        assert float(visit.figure(way, "devicePerImage")) == pytest.approx(device_ms, abs=0.06)
        rate = size / float(visit.figure(way, "seconds"))
        assert float(visit.figure(way, "throughput")) == pytest.approx(rate, rel=0.1)
        assert float(visit.figure(way, "median")) <= float(visit.figure(way, "worst"))


def test_the_more_wait_together_the_fuller_the_batches(visit: Visit) -> None:
    visit.burst(32)
    means = {way: mean_batch(images) for way, images in by_way(visit, 32).items()}
    assert means["one"] == 1
    assert 1 < means["all"] <= 6  # as many as a browser has connections
    assert means["form"] > means["all"]
    expect(visit.page.locator("#burst-status")).to_contain_text("times as many")


def test_it_is_drawn(visit: Visit) -> None:
    visit.burst(8)
    rows = visit.page.locator("#chart .row")
    expect(rows).to_have_count(3)
    for row in rows.all():
        assert [panel.locator("rect").count() for panel in row.locator(".panel").all()] == [1, 8, 8]
    widths = [float(rect.get_attribute("width") or 0) for rect in visit.page.locator(".panel:nth-child(2) rect").all()]
    speeds = [float(visit.figure(way, "throughput")) for way in WAYS]
    assert [width / max(widths) for width in widths] == pytest.approx([s / max(speeds) for s in speeds], rel=0.05)


def test_it_sends_what_was_chosen(visit: Visit, samples: dict[int, bytes]) -> None:
    visit.choose(("3.png", samples[3]))
    expect(visit.page.locator("#burst-source")).to_have_text("3.png")
    visit.burst(8)
    answers = visit.answers()
    assert len(answers) == 1 + WARMING + 8 + 8 + 1
    labels = {image["classes"][0]["label"] for image in images_of(answers)}
    assert labels == {visit.told(samples[3])[0]} != {visit.told(samples[7])[0]}
    assert {image["name"] for image in answers[-1]["images"]} == {"3.png"}


def test_it_can_be_cancelled_and_run_again(visit: Visit) -> None:
    visit.page.get_by_label("Images", exact=True).select_option("64")
    visit.page.get_by_role("button", name="Burst").click()
    expect(visit.page.locator("#burst-progress")).to_be_visible()
    visit.page.get_by_role("button", name="Cancel").click()
    expect(visit.page.locator("#burst-status")).to_have_text("Cancelled.")
    expect(visit.page.locator("#burst-progress")).to_be_hidden()
    expect(visit.page.locator("#burst-error")).to_be_hidden()
    assert len(visit.sent()) < WARMING + 64
    visit.burst(8)
    assert visit.figure("form", "answered") == "8"


def test_while_it_runs_it_says_how_far_it_is(visit: Visit) -> None:
    visit.page.get_by_label("Images", exact=True).select_option("64")
    visit.page.get_by_role("button", name="Burst").click()
    progress = visit.page.get_by_role("progressbar")
    expect(progress).to_have_attribute("max", "192")
    expect(progress).not_to_have_js_property("value", 0)
    expect(visit.page.locator("#burst-status")).to_have_text("One by one …")
    visit.page.get_by_role("button", name="Cancel").click()
    expect(visit.page.locator("#burst-status")).to_have_text("Cancelled.")
