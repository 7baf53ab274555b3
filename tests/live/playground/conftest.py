from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page

from tests.live.browser import Watched, chromium
from tests.live.playground.page import DESKTOP

Browse = Callable[..., Awaitable[Page]]


@pytest.fixture
async def browse(watched: Watched) -> AsyncIterator[Browse]:
    """Opens the playground in a new browser profile; with ``beside=page`` in another tab of that page's."""
    async with chromium() as browser:

        async def open_page(url: str, *, beside: Page | None = None, script: str = "", **options: Any) -> Page:
            options = {"viewport": DESKTOP, **options}
            context = beside.context if beside else await browser.new_context(**options)
            page = await context.new_page()
            watched.add(page)
            await page.add_init_script(script)
            await page.goto(url if "/playground" in url else f"{url}/playground")
            return page

        yield open_page
