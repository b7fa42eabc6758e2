"""A signed-in Chromium through Playwright, which notes every error and every request that leaves the server or is refused."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, Response, expect, sync_playwright

from wavegate_server.adapters.store.tokens import SESSION_COOKIE

__all__ = ["CHROMIUM", "Visit", "open_browser", "settled"]

CHROMIUM = shutil.which("chromium")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Debian's Chromium, which talks to nobody by itself."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield chromium
        chromium.close()


class Visit:
    """Pages of one server in fresh contexts, signed in by a session's cookie when there is one."""

    def __init__(self, browser: Browser, cookie: str | None, url: str) -> None:
        self._browser, self._cookie, self._url = browser, cookie, url
        self._contexts: list[BrowserContext] = []
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self.refused: list[tuple[int, str]] = []
        self.bytes = 0

    def open(self, path: str, *, width: int = 1280, **options: Any) -> Page:
        context = self._browser.new_context(
            ignore_https_errors=True, viewport={"width": width, "height": 900}, **{"locale": "en-GB", **options}
        )
        self._contexts.append(context)
        if self._cookie is not None:
            context.add_cookies([{"name": SESSION_COOKIE, "value": self._cookie, "url": self._url, "secure": True}])
        page = context.new_page()
        page.on("request", lambda request: self._note(request.url))
        page.on("response", self._check)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("requestfinished", lambda request: self._count(request))
        page.goto(self._url + path)
        return page

    def forgive(self, words: str) -> None:
        """Forget an error of the console that the test is about."""
        self.errors = [error for error in self.errors if words not in error]

    def close(self) -> None:
        for context in self._contexts:
            context.close()

    def _note(self, address: str) -> None:
        if not address.startswith(self._url):
            self.foreign.append(address)

    def _check(self, response: Response) -> None:
        if response.status >= 400:
            self.refused.append((response.status, response.url))

    def _count(self, request: Any) -> None:
        if not request.url.endswith("/events"):
            sizes = request.sizes()
            self.bytes += sizes["responseBodySize"] + sizes["responseHeadersSize"]


def settled(page: Page) -> None:
    """The page is up to date, and its charts are drawn."""
    expect(page.locator("#live-state")).to_have_class(re.compile("on"))
    for holder in page.locator(".chart").all():
        expect(holder.locator("canvas")).to_have_count(1)
