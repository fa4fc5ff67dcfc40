"""The README's picture of the page: PAGE_PICTURE=.github/page.png make test ARGS="tests/browser -k readme"."""

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.browser.driver import Browser, expect
from tests.browser.visit import Visit
from tests.serve.service import config, running

MAX_BYTES = 200_000
COLOURS = 256
WIDTH = 1200


def test_readme_picture(browser: Browser) -> None:
    path = os.environ.get("PAGE_PICTURE")
    if path is None:
        pytest.skip("writes a picture to the path in PAGE_PICTURE, if there is one")
    with running(config()) as service, browser.new_context(viewport={"width": WIDTH, "height": 2000}) as context:
        visit = Visit.start(context, service.url).open()
        visit.burst(32)  # the first of a service is slow: its threads and connections are new
        visit.sample("three").click()
        visit.sample("four").click()
        visit.sample("seven").click()
        expect(visit.page.locator("#results .classes")).to_have_count(3)
        visit.burst(32)
        visit.page.mouse.move(0, 0)
        visit.page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
        chart = visit.page.locator("#chart").bounding_box()
        assert chart is not None
        height = chart["y"] + chart["height"] + 16
        picture = compressed(visit.page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": height}))
    assert len(picture) < MAX_BYTES
    Path(path).write_bytes(picture)


def compressed(png: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
