"""A real browser for tests: the system's Chromium, which loads nothing and tells what a page tried."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser")
DESKTOP, PHONE = (1280, 900), (390, 844)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser; the test is skipped where there is none."""
    if EXECUTABLE is None:
        pytest.skip("there is no chromium; on Debian and Ubuntu: apt-get install chromium")
    with sync_playwright() as playwright:
        # Its sandbox refuses to run as root, which CI and containers often do.
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page that is open, and all that happened on it which should not.

    Attributes:
        page: to act on.
        troubles: alerts, errors, messages of the console, and requests for anything but the page.
    """

    def __init__(
        self, browser: Browser, file: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light"
    ) -> None:
        self.troubles: list[str] = []
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        context.set_default_timeout(10_000)
        self.page: Page = context.new_page()
        self.page.on(
            "dialog", lambda dialog: self._note(f"dialog: {dialog.message}", dialog.dismiss)
        )
        self.page.on("pageerror", lambda error: self._note(f"error: {error}"))
        self.page.on("console", lambda message: self._note(f"console: {message.text}"))
        address = file.absolute().as_uri()
        self.page.on("request", lambda request: self._requested(request.url, address))
        self.page.goto(address)

    def _requested(self, url: str, address: str) -> None:
        if url.partition("#")[0] != address and not url.startswith("data:"):
            self._note(f"request: {url}")

    def _note(self, trouble: str, then: object = None) -> None:
        self.troubles.append(trouble)
        if callable(then):
            then()
