"""A real browser, and an eye on what the pages do in it."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

from tests.live.service import PATIENCE
from tests.programs import unavailable

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

expect.set_options(timeout=PATIENCE * 1000)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    if _CHROMIUM is None:
        unavailable("Chromium is not on PATH")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield browser
        await browser.close()


class Watched:
    """What no page may do: complain, break its policy, or talk to anyone but its service."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.network_is_bad = False
        self.console_is_loud = False

    def add(self, page: Page) -> None:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.seen.append(f"exception: {error}"))
        page.on("dialog", lambda dialog: self.seen.append(f"dialog: {dialog.message}"))
        page.on("request", self._requested)

    def _said(self, message: ConsoleMessage) -> None:
        failed = message.text.startswith("Failed to load resource") or "net::ERR_" in message.text
        quiet = self.console_is_loud or (failed and self.network_is_bad)
        if message.type in ("error", "warning") and not quiet:
            self.seen.append(f"{message.type}: {message.text}")

    def _requested(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:")):
            self.seen.append(f"request: {request.url}")
