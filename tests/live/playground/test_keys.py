"""The page where the service asks who is there."""

import asyncio

from playwright.async_api import expect

from tests.live.browser import Watched
from tests.live.conftest import Serve
from tests.live.pages import held, modelled, send
from tests.live.playground.conftest import Browse
from tests.live.playground.page import said, verified
from tests.live.test_who import keys
from tests.upstream import Upstream


async def test_page_asks_for_a_key_and_follows_with_tickets(serve: Serve, browse: Browse, watched: Watched) -> None:
    gate = asyncio.Event()
    watched.network_is_bad = True  # a 401 is told on the console
    async with Upstream(held(gate, "Once upon ", "a time.")) as upstream:
        service = await modelled(serve, upstream, AUTH="keys")
        key = await keys(service, "add", "web")
        page = await browse(service.url)
        await send(page, "Tell me a story")
        for wrong in ("parley_wrong", "parley_wrong_again"):
            await page.get_by_label("Who are you?").and_(page.locator("input")).fill(wrong)
            await page.keyboard.press("Enter")
            await expect(page.get_by_text("does not know this key")).to_be_visible()
        await page.get_by_label("Who are you?").and_(page.locator("input")).fill(key)
        await page.keyboard.press("Enter")
        await expect(said(page)).to_have_text("Once upon")
        await page.reload()
        await expect(said(page)).to_have_text("Once upon")
        gate.set()
        await verified(page)
        await expect(said(page)).to_have_text("Once upon a time.")
        await expect(page.locator("#sessions a")).to_have_text(["Tell me a story"])
        assert await page.evaluate("Object.values(localStorage).some((value) => value.includes('parley_'))") is False
    assert key not in service.log.read_text()
