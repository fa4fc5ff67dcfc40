"""/docs in a browser, below a prefix: Swagger UI under our policy, and an example that is answered."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.browser.driver import expect

if TYPE_CHECKING:
    from tests.browser.visit import Visit

INFER = "#operations-inference-infer"


def test_the_example_of_an_inference_is_tried_and_answered(start: "Callable[..., Visit]") -> None:
    visit = start()
    visit.page.goto(f"{visit.url}/docs")
    operation = visit.page.locator(INFER)
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table")
    expect(answer.locator(".response-col_status").nth(1)).to_contain_text("200")
    expect(answer).to_contain_text('"model_name": "digits"')
    assert visit.requests[-1].url == f"{visit.url}/v2/models/digits/infer"
