from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page

from tests.live.browser import Watched, chromium


@pytest.fixture
async def page(watched: Watched) -> AsyncIterator[Page]:
    async with chromium() as browser:
        page = await browser.new_page(viewport={"width": 1000, "height": 760})
        watched.add(page)
        yield page
