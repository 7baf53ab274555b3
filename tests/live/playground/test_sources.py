"""Sources in the playground: footnotes that open, and addresses from which nothing comes unasked."""

import asyncio

from playwright.async_api import expect

from tests.live.conftest import Serve
from tests.live.pages import modelled, send
from tests.live.playground.conftest import Browse
from tests.live.playground.page import answer, said, verified
from tests.upstream import Upstream, chunk, done, finish, reply, sse

RESULT = {"url": "https://a.example/rain?<b>", "title": "no page: it has brackets"}
PAGES = [
    {"url": "https://a.example/rain", "title": "Rain <b>& more</b>", "snippet": "<img src=x onerror=alert(1)>"},
    {"url": "javascript:alert(1)", "title": "Click me"},
    RESULT,
]


async def test_sources_are_footnotes_that_open_also_after_a_reload(serve: Serve, browse: Browse) -> None:
    gate = asyncio.Event()
    found = sse({"search_results": PAGES, "citations": ["https://b.example/"], "choices": []})
    async with Upstream(reply(chunk("It "), found, gate, chunk("rains."), finish(), done())) as upstream:
        page = await browse((await modelled(serve, upstream)).url)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await send(page, "Weather?")
        sources = answer(page).locator(".sources")
        await expect(sources.locator("summary")).to_have_text("2 sources")  # while it is being written
        gate.set()
        await verified(page)
        for _ in range(2):
            await expect(said(page)).to_have_text("It rains.")
            first, second = sources.locator("li").nth(0), sources.locator("li").nth(1)
            await expect(first).not_to_be_visible()
            await sources.locator("summary").click()
            await expect(first.locator("a")).to_have_text("Rain <b>& more</b>")
            await expect(first.locator("a")).to_have_attribute("href", "https://a.example/rain")
            await expect(first.locator("a")).to_have_attribute("rel", "noopener noreferrer nofollow")
            await expect(first.locator(".whence")).to_have_text("a.example")
            await expect(first.locator("blockquote")).to_have_text("<img src=x onerror=alert(1)>")
            await expect(second.locator("a")).to_have_text("https://b.example/")
            await expect(sources.locator("li")).to_have_count(2)
            await page.reload()
            await expect(sources.locator("summary")).to_have_text("2 sources")
        assert not [url for url in asked if "example" in url]


async def test_answer_without_sources_says_nothing_of_them(serve: Serve, browse: Browse) -> None:
    page = await browse((await serve(STREAM_DELAY="0")).url)
    await send(page, "Hello")
    await verified(page)
    await expect(answer(page).locator(".sources")).not_to_be_visible()
