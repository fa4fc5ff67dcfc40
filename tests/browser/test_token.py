"""A service that asks for a token: the page asks its visitor, once."""

import pytest

from tests.browser.conftest import Start
from tests.browser.driver import Route, expect
from tests.browser.test_access import violations
from tests.browser.visit import Visit

pytestmark = pytest.mark.failures_are_meant
TOKEN = "sa_right"


def ask_for_it(visit: Visit) -> None:
    def answer(route: Route) -> None:
        if route.request.headers.get("authorization") == f"Bearer {TOKEN}":
            route.continue_()
        else:
            route.fulfill(status=401, json={"error": "it is not known here", "code": "unauthorized"})

    visit.page.route("**/v1/*", answer)


def test_it_is_asked_for_used_everywhere_and_remembered(start: Start) -> None:
    visit = start()
    ask_for_it(visit)
    visit.page.goto(visit.url)
    asking = visit.page.locator("#unreachable")
    expect(asking).to_contain_text("This service asks for a token: it is not known here.")
    assert violations(visit.page) == []

    for token, shown in (("sa_wrong", True), (f" {TOKEN} ", False)):
        visit.page.get_by_label("Token").fill(token)
        visit.page.get_by_role("button", name="Use it").click()
        expect(asking).to_be_visible(visible=shown)
    expect(visit.page.locator("#model")).to_contain_text("Precision")
    visit.sample("seven").click()
    expect(visit.card("7.png").locator(".classes")).to_be_visible()

    visit.page.reload()
    expect(visit.page.locator("#model")).to_contain_text("Precision")
    expect(asking).to_be_hidden()


def test_it_is_in_no_address_and_in_no_other_tab(start: Start) -> None:
    visit = start()
    ask_for_it(visit)
    visit.page.goto(visit.url)
    visit.page.get_by_label("Token").fill(TOKEN)
    visit.page.get_by_label("Token").press("Enter")
    expect(visit.page.locator("#model")).to_contain_text("Precision")
    assert not [request.url for request in visit.requests if TOKEN in request.url]
    assert not [cookie for cookie in visit.page.context.cookies() if TOKEN in str(cookie)]
    other = Visit.start(visit.page.context, visit.url)
    ask_for_it(other)
    other.page.goto(visit.url)
    expect(other.page.get_by_label("Token")).to_be_visible()
