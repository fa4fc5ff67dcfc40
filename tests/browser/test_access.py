"""By keyboard, with a screen reader, on a phone, light and dark, without motion."""

from typing import Any

import pytest

from tests.browser.conftest import Start
from tests.browser.driver import Axe, Page, expect
from tests.browser.visit import Visit

PHONE = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
# What has the focus, and whether that shows; the file input is invisible, its label shows it.
FOCUSED = """() => {
  const focused = document.activeElement;
  const shown = focused.id === "files" ? document.querySelector("label[for=files] .button") : focused;
  const style = getComputedStyle(shown);
  const name = focused.id || focused.querySelector("img")?.alt || focused.textContent.trim();
  return [name, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
}"""
OUTSIDE = """() => [...document.querySelectorAll("body *:not(.skip, .skip *)")].filter((node) => {
  const box = node.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map((node) => node.outerHTML.slice(0, 80))"""
# Of a flex or grid item no text may stick out of its section.
STICKING_OUT = """() => [...document.querySelectorAll("section *")].filter((node) => {
  const section = node.closest("section").getBoundingClientRect();
  return node.getBoundingClientRect().right > section.right + 0.5;
}).map((node) => node.outerHTML.slice(0, 80))"""
TRANSITIONS = """() => [...document.querySelectorAll("*")].filter((node) => {
  const style = getComputedStyle(node);
  return style.transitionDuration.split(", ").some((time) => parseFloat(time) > 0) || style.animationName !== "none";
}).length"""


def fill(visit: Visit) -> None:
    """Everything that the page can show: results, an error, the picture of a burst."""
    visit.choose(("no image.png", b"no image"))
    expect(visit.card("no image.png").locator(".error")).to_be_visible()
    visit.sample("seven").click()
    expect(visit.card("7.png").locator(".classes")).to_be_visible()
    visit.burst(8)


def violations(page: Page) -> list[str]:
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{each['id']}: {node['html'][:200]} {node['failureSummary']}" for each in found for node in each["nodes"]]


@pytest.mark.failures_are_meant
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [{}, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing(start: Start, scheme: str, device: dict[str, Any]) -> None:
    visit = start(color_scheme=scheme, **device).open()
    assert violations(visit.page) == []
    fill(visit)
    assert violations(visit.page) == []


def test_axe_would_find_something(visit: Visit) -> None:
    visit.page.evaluate("() => document.querySelector('main').append(document.createElement('button'))")
    assert any("button-name" in each for each in violations(visit.page))


def test_light_and_dark_differ(start: Start) -> None:
    script = "() => getComputedStyle(document.body).backgroundColor"
    assert len({start(color_scheme=scheme).open().page.evaluate(script) for scheme in ("light", "dark")}) == 2


def test_all_of_it_works_by_keyboard_and_the_focus_shows(visit: Visit) -> None:
    keyboard = visit.page.keyboard
    walked = []
    expect(visit.sample("seven")).to_be_visible()
    for _ in range(16):
        keyboard.press("Tab")
        name, is_shown = visit.page.evaluate(FOCUSED)
        assert is_shown, name
        walked.append(name)
        if name == "sample digit seven":
            keyboard.press("Enter")
            expect(visit.card("7.png").locator(".classes")).to_be_visible()
    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    samples = [f"sample digit {digit}" for digit in digits]
    assert walked == ["Skip to the images", "files", *samples, "All ten at once", "size", "start", walked[-1]]

    keyboard.press("Shift+Tab")
    keyboard.press("Shift+Tab")
    keyboard.press("8")
    keyboard.press("Tab")
    keyboard.press("Space")
    expect(visit.page.get_by_role("button", name="Cancel")).to_be_focused()
    expect(visit.page.locator("#table [data-way=form]").first).to_be_visible()
    expect(visit.page.get_by_role("button", name="Burst")).to_be_focused()
    assert visit.figure("form", "answered") == "8"
    keyboard.press("Enter")
    expect(visit.page.get_by_role("button", name="Cancel")).to_be_focused()
    keyboard.press("Enter")
    expect(visit.page.locator("#burst-status")).to_have_text("Cancelled.")


def test_the_skip_link_leads_to_the_images(visit: Visit) -> None:
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("#classify")).to_be_focused()


def test_what_happens_is_told_to_screen_readers(visit: Visit) -> None:
    for name in ("progress", "burst-status", "banner"):
        expect(visit.page.locator(f"#{name}")).to_have_attribute("role", "status")
    for name in ("burst-error", "unreachable"):
        expect(visit.page.locator(f"#{name}")).to_have_attribute("role", "alert")
    visit.sample("seven").click()
    expect(visit.page.locator("#progress")).to_contain_text("7.png: ")
    visit.burst(8)
    table = visit.page.get_by_role("table", name="The figures of the burst")
    expect(table.get_by_role("columnheader")).to_have_text(["One by one", "All at once", "In bulk"])
    expect(table.get_by_role("rowheader")).to_have_count(9)


@pytest.mark.failures_are_meant
def test_a_phone_scrolls_down_only(start: Start) -> None:
    visit = start(**PHONE).open()
    fill(visit)
    assert visit.page.evaluate("() => document.documentElement.scrollWidth") == 320
    assert visit.page.evaluate(OUTSIDE) == []
    assert visit.page.evaluate(STICKING_OUT) == []


def test_on_a_phone_what_is_touched_is_large_enough(start: Start) -> None:
    """24 by 24 CSS pixels, WCAG 2.2, 2.5.8."""
    visit = start(**PHONE).open()
    expect(visit.sample("nine")).to_be_visible()
    for target in visit.page.locator("button, select, label .button").all():
        box = target.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 24


@pytest.mark.parametrize(("motion", "moves"), [("reduce", False), ("no-preference", True)])
def test_nothing_moves_for_those_who_want_no_motion(start: Start, motion: str, moves: bool) -> None:
    visit = start(reduced_motion=motion).open()
    assert (visit.page.evaluate(TRANSITIONS) > 0) == moves
