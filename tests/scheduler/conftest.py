"""What the tests of the scheduler share."""

from collections.abc import Iterator

import pytest

from serve_app.scheduler import admission, scheduler


@pytest.fixture(scope="session", autouse=True)
def _a_tenth_is_kept() -> Iterator[None]:
    """Round figures: how much of a request's time admission keeps back was chosen by load tests, not by these."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (admission, scheduler):
            patch.setattr(module, "MARGIN", 0.1)
        yield
