"""One service and one browser for all tests of the page; a context and a `Visit` for each."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.serve.service import Service, config, running

if TYPE_CHECKING:
    from tests.browser.driver import Browser
    from tests.browser.visit import Visit

PREFIX = "/digits"
MAX_IMAGE_BYTES = 200_000
MAX_IMAGE_PIXELS = 1_000_000

Start = Callable[..., "Visit"]


# Of the package, not of the session: while Playwright runs, its thread has a running event loop, and the
# asyncio.run of tests elsewhere would refuse to start another.
@pytest.fixture(scope="package")
def browser() -> Iterator["Browser"]:
    from tests.browser.driver import chromium, sync_playwright

    path = chromium()
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def service(browser: "Browser") -> Iterator[Service]:
    """Below a prefix, so that a URL which is not relative shows. A stub, for batches that do not hang on the machine:
    a device of 40 ms is slower than a browser on any; its classes follow from the pixels."""
    args = {
        "device": "stub",
        "stub": {"base_ms": 40, "per_image_ms": 1},
        "max_image_bytes": MAX_IMAGE_BYTES,
        "max_image_pixels": MAX_IMAGE_PIXELS,
    }
    content = config(args)
    content["applications"][0]["route_prefix"] = PREFIX
    with running(content) as running_service:
        yield running_service


@pytest.fixture
def start(request: pytest.FixtureRequest, browser: "Browser", service: Service) -> Iterator[Start]:
    """Starts a visit in a context of these options. Afterwards: nothing came from elsewhere, nobody complained.

    `@pytest.mark.failures_are_meant` for a test whose requests fail by design.
    """
    from tests.browser.visit import Visit

    meant = request.node.get_closest_marker("failures_are_meant") is not None
    with ExitStack() as stack:
        visits: list[Visit] = []

        def visit(**options: Any) -> Visit:
            context = stack.enter_context(browser.new_context(**options))
            visits.append(Visit.start(context, service.url + PREFIX))
            return visits[-1]

        yield visit
        for each in visits:
            assert each.surprises(meant) == []
            assert each.hosts() <= {urlsplit(service.url).netloc}


@pytest.fixture
def visit(start: Start) -> "Visit":
    """The page, open."""
    return start().open()
