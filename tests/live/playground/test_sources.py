"""Sources in the playground: footnotes that open, and addresses from which nothing comes unasked."""

import asyncio

from playwright.async_api import Page, expect

from tests.live.browser import Watched
from tests.live.conftest import Serve
from tests.live.hostile import MARKUP, Elsewhere, hostile, unclosed
from tests.live.pages import modelled, send
from tests.live.playground.conftest import Browse
from tests.live.playground.page import PHONE, answer, said, session_of, verified
from tests.live.service import Service
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


async def collect(service: Service, title: str, *texts: str) -> None:
    for text in texts:
        body = {"title": title, "collection": "handbook", "text": text, "media_type": "text/markdown"}
        assert (await service.client.post("/documents", json=body)).status_code == 201


async def asked(service: Service, page: Page, text: str) -> None:
    """Ask in a session with the collection, and open it."""
    body = {"message": text, "collection": "handbook", "session_id": "s", "stream": False}
    assert (await service.client.post("/chat", json=body)).status_code == 200
    await page.goto(f"{service.url}/playground#s")
    await page.reload()


async def test_passage_is_a_footnote_that_opens_with_the_keyboard(serve: Serve, browse: Browse) -> None:
    service = await serve(STREAM_DELAY="0")
    await collect(service, "Guide", "# Hours\n\nThe shop opens at nine.\n", "Tea is free in the shop.")
    page = await browse(service.url, viewport=PHONE)
    await asked(service, page, '/search_documents {"query": "tea"}')
    sources = answer(page).locator(".sources")
    await expect(sources.locator("> summary")).to_have_text("1 source")
    await asked(service, page, "When does the shop open?")
    sources = answer(page).locator(".sources")
    await expect(sources.locator("> summary")).to_have_text("2 sources")
    await sources.locator("> summary").focus()
    await page.keyboard.press("Enter")
    first = sources.locator("li").filter(has_text="Hours")
    await expect(first.locator("summary")).to_have_text("Guide Hours, paragraph 1")
    await expect(first.locator("blockquote")).not_to_be_visible()
    await first.locator("summary").focus()
    await page.keyboard.press("Space")
    await expect(first.locator("blockquote")).to_be_visible()
    await expect(first.locator("blockquote")).to_have_text("# Hours\n\nThe shop opens at nine.")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_hostile_passages_are_text(serve: Serve, browse: Browse, elsewhere: Elsewhere) -> None:
    service = await serve(STREAM_DELAY="0", PASSAGE_TOKENS="4000")
    texts = [text.replace("\0", "") for text in [*hostile(elsewhere.url), *unclosed(elsewhere.url)]]
    page = await browse(service.url)
    for place in range(0, len(texts), 12):
        await collect(
            service, texts[place][:200] or "x", "\n\n".join(f"kettle {text}" for text in texts[place : place + 12])
        )
    await asked(service, page, "kettle")
    items = answer(page).locator(".sources li")
    await expect(items.first).to_be_attached()
    for part in await page.locator(".sources details, .sources").all():
        await part.evaluate("part => { part.open = true; }")
    await expect(items.first.locator("blockquote")).to_contain_text("kettle")
    assert await page.evaluate(MARKUP, ".sources") == []
    assert elsewhere.asked == []


async def test_collection_is_chosen_kept_and_taken_away(serve: Serve, browse: Browse) -> None:
    service = await serve(STREAM_DELAY="0")
    page = await browse(service.url)
    choice = page.get_by_label("Documents")
    await expect(page.locator("#log")).to_be_attached()
    await expect(choice).not_to_be_visible()  # there are none
    await collect(service, "Guide", "Tea is free in the shop.")
    await page.reload()
    await choice.select_option("handbook")
    await send(page, "Is tea free?")
    await verified(page)
    sources = answer(page).locator(".sources")
    await expect(sources.locator("> summary")).to_have_text("1 source")
    await page.reload()
    await expect(choice).to_have_value("handbook")
    async with page.expect_response(lambda response: response.request.method == "PATCH"):
        await choice.select_option("")
    await page.reload()
    await expect(page.locator(".answer")).to_have_count(1)
    await expect(choice).to_have_value("")
    session = (await service.client.get(f"/sessions/{session_of(page)}")).json()
    assert session["collection"] is None
    await send(page, "And now, is tea free?")
    await expect(page.locator(".answer")).to_have_count(2)
    await verified(page)
    await expect(answer(page).locator(".sources")).not_to_be_visible()


async def test_collection_that_cannot_be_kept_is_said(serve: Serve, browse: Browse, watched: Watched) -> None:
    watched.network_is_bad = True  # the browser logs every 4xx
    service = await serve(STREAM_DELAY="0")
    await collect(service, "Guide", "Tea is free in the shop.")
    page = await browse(service.url)
    await send(page, "Hello")
    await verified(page)
    [document] = (await service.client.get("/documents")).json()["documents"]
    await service.client.delete(f"/documents/{document['document_id']}")
    await page.get_by_label("Documents").select_option("handbook")
    await expect(page.get_by_role("alert")).to_contain_text("There is no document in this collection")
    await expect(page.get_by_label("Documents")).to_have_value("")
