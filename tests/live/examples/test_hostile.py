"""Hostile texts on the pages among the examples: nothing of them runs, and nothing is fetched for them."""

import re
from pathlib import Path

from playwright.async_api import Page, expect

from tests.live.browser import Watched
from tests.live.conftest import Serve
from tests.live.examples import test_eventsource, test_react, test_streamlit
from tests.live.examples.page import answer
from tests.live.hostile import MARKUP, Elsewhere, Eye, hostile, looked, spoken, unclosed
from tests.live.pages import modelled, send
from tests.upstream import Upstream, completion

TOOLS = {"TOOLS": "tests.live.parrot_tool"}
RUNNING = "<script>owned(1)</script>"

DANGEROUS = """(place) => {
    const parts = [...document.querySelectorAll(place)].flatMap((found) => [...found.querySelectorAll('*')]);
    const tags = new Set(('APPLET AUDIO BASE EMBED FORM FRAME IFRAME IMAGE IMG INPUT LINK MATH META OBJECT PICTURE ' +
        'SCRIPT SELECT SOURCE STYLE TEMPLATE TEXTAREA TRACK VIDEO script foreignObject image use').split(' '));
    const bad = /^(on|srcdoc$|srcset$|action$|formaction$|ping$|background$|poster$|data$)/;
    const wrong = ({ name, value }) => bad.test(name) || (name === 'style' && value.includes('url('));
    const found = parts.filter((part) => tags.has(part.tagName) || [...part.attributes].some(wrong));
    return found.filter((part) => part.closest('.katex') === null).map((part) => part.outerHTML);
}"""
"""All that is there and could run or fetch something. Streamlit makes formulas, with tags of their own."""


def eye_on(page: Page, paths: str) -> Eye:
    """The page is open, on the server that may be asked for these paths."""
    return Eye(re.escape(page.url.partition("#")[0].rstrip("/")) + f"/?({paths})?(#.*)?")


async def test_react_shows_hostile_texts_as_text(
    serve: Serve, page: Page, tmp_path: Path, elsewhere: Elsewhere, watched: Watched
) -> None:
    watched.network_is_bad = True  # it is asked for a session that is not there
    texts = [*hostile(elsewhere.url), *unclosed(elsewhere.url)]
    async with Upstream(spoken(texts), completion(*texts[-3:])) as upstream:
        service = await modelled(serve, upstream, **TOOLS)
        async with test_react.opened(page, service.url, tmp_path):
            eye = eye_on(page, "(assets/|api/chat|sessions/|runs/).*")
            await eye.on(page)
            await page.reload()
            await send(page, "\n\n".join(texts).replace("\0", ""))
            await expect(page.get_by_role("button", name="Send")).to_be_visible()
            for _ in range(2):
                await expect(answer(page)).to_contain_text(RUNNING)
                await expect(answer(page).locator(".sources li")).to_have_count(64)
                await expect(answer(page).locator(".tool").last).to_contain_text("has failed")
                assert await page.evaluate(MARKUP, "main") == []
                await looked(page, f"{page.url.partition('#')[0]}sessions/none")
                assert eye.seen == []
                assert elsewhere.asked == []
                await page.reload()


async def test_eventsource_shows_hostile_texts_as_text(
    serve: Serve, page: Page, tmp_path: Path, elsewhere: Elsewhere
) -> None:
    texts = [*hostile(elsewhere.url), *unclosed(elsewhere.url)]
    async with Upstream(spoken(texts), completion(*texts[-3:])) as upstream:
        service = await modelled(serve, upstream, **TOOLS)
        async with test_eventsource.opened(page, service.url, tmp_path):
            eye = Eye(f"({re.escape(page.url)}|{re.escape(service.url)}/(chat|sessions|runs)).*")
            await eye.on(page)
            await page.reload()
            await send(page, "\n\n".join(texts).replace("\0", ""))
            await test_eventsource.complete(page)
            for _ in range(2):
                await expect(answer(page)).to_contain_text(RUNNING)
                assert await page.evaluate(DANGEROUS, "article") == []
                assert await page.evaluate("document.querySelectorAll('article a').length") == 0
                await looked(page, f"{service.url}/sessions")
                assert eye.seen == []
                assert elsewhere.asked == []
                await page.reload()


async def test_streamlit_shows_hostile_markdown_without_running_or_fetching_anything(
    serve: Serve, page: Page, tmp_path: Path, elsewhere: Elsewhere, watched: Watched
) -> None:
    watched.console_is_loud = True  # of formulas that are none, and of links that it does not follow
    whole, last = hostile(elsewhere.url), unclosed(elsewhere.url)
    parts = [[*whole[at :: len(last)], text] for at, text in enumerate(last)]
    answers = ["\n\n".join([*part, f"The end of number {number}."]) for number, part in enumerate(parts)]
    async with Upstream(*(completion(text) for text in answers)) as upstream:
        service = await modelled(serve, upstream)
        async with test_streamlit.opened(page, service.url, tmp_path, USE_STREAMING="true"):
            eye = eye_on(page, "(static/|_stcore/|vendor/|favicon).*")
            await eye.on(page)
            await page.reload()
            for number, text in enumerate(answers):
                await test_streamlit.ask(page, text.replace("\0", ""))
                await expect(test_streamlit.answers(page)).to_have_count(number + 1)
                await expect(test_streamlit.answer(page)).to_contain_text(re.compile(r"\d\d:\d\d:\d\d$"))
            await expect(page.get_by_label("Chat message from user").last).to_contain_text("The end of")
            assert await page.evaluate(DANGEROUS, "[data-testid=stChatMessageContent]") == []
            await looked(page, f"{page.url.rstrip('/')}/_stcore/health")
            assert eye.seen == []
            # Of links Streamlit turns javascript: off. Browsers follow none of the others that could run.
            for link in await page.locator("[data-testid=stChatMessageContent] a[href]").all():
                if await link.evaluate("link => link.protocol") not in ("http:", "https:", "mailto:"):
                    await link.dispatch_event("click")
            await looked(page, f"{page.url.rstrip('/')}/_stcore/health")
            assert [what for what in eye.seen if not re.match("opened: |request: (feed|intent|jar):", what)] == []
            assert elsewhere.asked == []
