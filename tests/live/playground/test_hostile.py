"""Hostile texts wherever the playground shows a text: nothing of them runs, and nothing is fetched for them."""

import re

from playwright.async_api import Page, expect

from tests.live.conftest import Serve
from tests.live.hostile import MARKUP, Elsewhere, Eye, hostile, looked, spoken, unclosed
from tests.live.pages import modelled, send
from tests.live.playground.conftest import Browse
from tests.live.playground.page import answer, session_of, verified
from tests.live.service import Service
from tests.upstream import Upstream, completion

TEXTS = ".prose, .said, .thoughts, .calls, .sources, .meta, #title, #sessions, #test"

RENDER = """async (texts) => {
    const { markdown } = await import('/static/markdown.js');
    const { GrowingMarkdown } = await import('/static/growing.js');
    const place = document.body.appendChild(document.createElement('div'));
    place.id = 'test';
    for (const text of texts) {
        place.append(...markdown(text));
        const grown = place.appendChild(document.createElement('div'));
        const growing = new GrowingMarkdown(grown);
        for (const char of text) {
            growing.append(char);
            growing.flush();
        }
    }
    for (const link of place.querySelectorAll('a')) link.dispatchEvent(new MouseEvent('pointerenter'));
    return place.textContent.length;
}"""


async def nothing_came_of_it(service: Service, page: Page, eye: Eye, elsewhere: Elsewhere) -> None:
    await looked(page, f"{service.url}/health")
    assert await page.evaluate(MARKUP, TEXTS) == []
    assert eye.seen == []
    assert elsewhere.asked == []


def eye_on(service: Service) -> Eye:
    return Eye(re.escape(service.url) + "/((playground|static/|chat|sessions|documents|runs/|health).*)?")


async def test_hostile_markdown_becomes_text_and_links_that_lead_to_pages(
    service: Service, browse: Browse, elsewhere: Elsewhere
) -> None:
    page = await browse(service.url)
    eye = eye_on(service)
    await eye.on(page)
    texts = [*hostile(elsewhere.url), *unclosed(elsewhere.url)]
    assert len(texts) > 150
    assert await page.evaluate(RENDER, texts) > len("".join(texts))
    await nothing_came_of_it(service, page, eye, elsewhere)


async def test_hostile_texts_stay_texts_wherever_they_are_shown(
    serve: Serve, browse: Browse, elsewhere: Elsewhere
) -> None:
    texts = [*hostile(elsewhere.url), *unclosed(elsewhere.url)]
    async with Upstream(spoken(texts), completion(*texts[-3:])) as upstream:
        name = "<img src=x onerror=owned(1)> [x](javascript:owned(1)) ![x](//evil.example)"
        service = await modelled(serve, upstream, MODEL_NAME=name, TOOLS="tests.live.parrot_tool")
        page = await browse(service.url)
        eye = eye_on(service)
        await eye.on(page)
        await page.reload()
        await send(page, "\n\n".join(texts).replace("\0", ""))
        await verified(page)
        await expect(answer(page).locator(".meta")).to_contain_text(name)
        session = (await service.client.get(f"/sessions/{session_of(page)}")).json()
        for text in texts:
            titled = {"title": text[:200], "user_id": session["user_id"]}
            assert (await service.client.post("/sessions", json=titled)).status_code in (201, 422)
        for _ in range(2):
            await expect(answer(page).locator(".calls .result").first).to_contain_text("<script>owned(1)</script>")
            await expect(answer(page).locator(".calls .state").last).to_have_text("failed")
            for part in await page.locator("details").all():
                await part.evaluate("part => { part.open = true; }")
            await nothing_came_of_it(service, page, eye, elsewhere)
            await page.reload()
        more = page.get_by_role("button", name="Show more")
        await expect(more).to_be_visible()
        while await more.is_visible():  # it goes, or stays, with the same drawing that brings more of them
            shown = await page.locator("#sessions li").count()
            await more.click()
            await expect(page.locator("#sessions li").nth(shown)).to_be_attached()
        assert await page.locator("#sessions li").count() > len(texts) * 0.9
        await nothing_came_of_it(service, page, eye, elsewhere)
