"""Playwright, or why there is none: a test without it is skipped, but not where CI counts on it."""

import os
import shutil
from typing import NoReturn

import pytest

CHROMIUM = "chromium"


def unavailable(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI is to have it", pytrace=False)
    pytest.skip(reason, allow_module_level=True)


try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import (
        Browser,
        BrowserContext,
        ConsoleMessage,
        FilePayload,
        Locator,
        Page,
        Request,
        Route,
        expect,
        sync_playwright,
    )
except ImportError as error:
    unavailable(f"needs Playwright and axe ({error}): make install")

__all__ = [
    "Axe",
    "Browser",
    "BrowserContext",
    "ConsoleMessage",
    "FilePayload",
    "Locator",
    "Page",
    "Request",
    "Route",
    "chromium",
    "expect",
    "sync_playwright",
]


def chromium() -> str:
    """The path of the system's own browser; Playwright's is never downloaded."""
    path = shutil.which(CHROMIUM)
    if path is None:
        unavailable(f"needs {CHROMIUM} on the PATH; on Debian: apt install chromium")
    return path
