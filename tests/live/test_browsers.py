"""What a real browser makes of the headers: foreign code does nothing on our pages, foreign pages get none of ours."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route

from tests.live.browser import chromium
from tests.live.conftest import Serve
from tests.live.hostile import Elsewhere
from tests.live.service import Service
from tests.patience import PATIENCE, soon

REPORT = """
    window.broken = [];
    document.addEventListener('securitypolicyviolation', (event) => window.broken.push(event.effectiveDirective));
"""

INJECTED = """
    <script>window.owned = 'inline'</script>
    <script src="{elsewhere}/script.js"></script>
    <script src="data:text/javascript,window.owned='data'"></script>
    <img src="static/nothing.png" onerror="window.owned = 'handler'">
    <img src="{elsewhere}/pixel.png">
    <svg onload="window.owned = 'svg'"></svg>
    <a id="trap" href="javascript:window.owned='link'">here</a>
    <style>body {{ background: url({elsewhere}/style.png) }}</style>
    <p style="background: url({elsewhere}/attribute.png)">styled</p>
    <link rel="stylesheet" href="{elsewhere}/style.css">
    <link rel="preload" as="image" href="{elsewhere}/preload.png">
    <iframe src="{elsewhere}/frame"></iframe>
    <iframe srcdoc="<script>parent.owned = 'srcdoc'</script>"></iframe>
    <object data="{elsewhere}/object"></object>
    <embed src="{elsewhere}/embed">
    <video src="{elsewhere}/video.mp4" autoplay></video>
    <base href="{elsewhere}/">
    <form action="{elsewhere}/form" method="post"><button id="form">Send</button></form>
"""
"""Markup as it would be there if some text of a stranger's ever became markup. ``elsewhere`` is another origin."""

FORBIDDEN = {
    "script-src-elem", "script-src-attr", "img-src", "style-src-elem", "style-src-attr", "frame-src", "object-src",
    "media-src", "base-uri", "form-action", "connect-src",
}  # fmt: skip

ASK = """async (url) => {
    try { return await (await fetch(url)).text(); } catch (error) { return String(error); }
}"""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def infected(browser: Browser, url: str, markup: str) -> tuple[Page, list[str]]:
    """A page of the service, opened, with foreign markup in it and its own headers; and what the console says."""
    page = await browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    await page.add_init_script(REPORT)

    async def infect(route: Route) -> None:
        response = await route.fetch()
        body = await response.text()
        assert body.count("</body>") == 1
        await route.fulfill(response=response, body=body.replace("</body>", f"{markup}</body>"))

    await page.route(url, infect)
    await page.goto(url)
    return page, said


@pytest.mark.parametrize("path", ["/playground", "/docs"])
async def test_foreign_markup_on_our_pages_runs_and_fetches_nothing(
    service: Service, browser: Browser, path: str
) -> None:
    async with Elsewhere() as elsewhere:
        page, said = await infected(browser, service.url + path, INJECTED.format(elsewhere=elsewhere.url))
        await page.evaluate(ASK, f"{elsewhere.url}/fetch")
        for trap in ("#trap", "#form"):
            await page.locator(trap).dispatch_event("click")
        async with asyncio.timeout(PATIENCE):
            while not set(await page.evaluate("window.broken")) >= FORBIDDEN:  # noqa: ASYNC110  # it is in the page
                await asyncio.sleep(0.05)
        assert await page.evaluate("window.owned") is None
        assert elsewhere.asked == []
        assert page.url == service.url + path
    refused = [line for line in said if line.startswith("error: ") and "Content Security Policy" in line]
    assert any("inline script" in line and "script-src 'self'" in line for line in refused), said


async def test_playground_cannot_make_markup_or_code_from_text_even_if_it_tried(
    service: Service, browser: Browser
) -> None:
    page = await browser.new_page()
    await page.goto(f"{service.url}/playground")
    for sink in (
        "document.body.innerHTML = '<img src=x onerror=alert(1)>'",
        "document.body.insertAdjacentHTML('beforeend', '<p>')",
        "document.write('<p>')",
        "document.createElement('script').textContent = 'alert(1)'",
        "document.createElement('script').src = 'static/app.js'",
        "document.createElement('iframe').srcdoc = '<p>'",
        "new DOMParser().parseFromString('<p>', 'text/html')",
        "document.createRange().createContextualFragment('<p>')",
        "trustedTypes.createPolicy('mine', { createHTML: (text) => text })",
    ):
        assert "TypeError" in await attempt(page, sink), sink


async def attempt(page: Page, statement: str) -> str:
    """What becomes of the statement: the name of its error, if it has one."""
    tried = f"() => {{ try {{ {statement}; return 'done'; }} catch (error) {{ return `${{error}}`; }} }}"
    return str(await page.evaluate(tried))


FRAMES = """<!doctype html>
<iframe name="playground" src="{url}/playground"></iframe>
<iframe name="docs" src="{url}/docs"></iframe>
<iframe name="health" src="{url}/health"></iframe>
<iframe name="missing" src="{url}/nothing"></iframe>
<script src="{url}/static/theme.js" onerror="window.kept = (window.kept ?? 0) + 1"></script>
<script src="{url}/sessions" onerror="window.kept = (window.kept ?? 0) + 1"></script>
<img src="{url}/health" onerror="window.kept = (window.kept ?? 0) + 1">
"""


async def test_foreign_page_can_neither_frame_nor_embed_anything(service: Service, browser: Browser) -> None:
    async with Elsewhere(FRAMES.format(url=service.url)) as elsewhere:
        page = await browser.new_page()
        # Of another name, and so of another site: between two ports of one name a browser has fewer scruples.
        await page.goto(elsewhere.url.replace("127.0.0.1", "localhost"))
        async with asyncio.timeout(PATIENCE):
            while not all(frame.url.startswith("chrome-error://") for frame in page.frames[1:]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # a frame that is refused is another one for a moment
        assert len(page.frames) == 1 + FRAMES.count("<iframe")
        await page.wait_for_function("window.kept === 3")
        opened = await page.evaluate("(url) => { window.other = open(url); return true; }", f"{service.url}/playground")
        assert opened
        await page.wait_for_function("window.other.closed")  # to its opener: Cross-Origin-Opener-Policy


WITH_COOKIES = "(url) => fetch(url, { credentials: 'include' }).then(({ status }) => status, () => 0)"

FOLLOW = """(url) => new Promise((resolve) => {
    const source = new EventSource(url);
    let text = '';
    source.onmessage = ({ data }) => {
        if (data !== '[DONE]') { text += data; return; }
        source.close();
        resolve(text);
    };
    source.onerror = () => { source.close(); resolve('refused'); };
})"""


async def test_page_of_an_allowed_origin_asks_and_follows_and_no_other_does(serve: Serve, browser: Browser) -> None:
    async with Elsewhere() as elsewhere:
        named = elsewhere.url.replace("127.0.0.1", "localhost")
        service = await serve(ALLOWED_ORIGINS=named, ALLOW_CREDENTIALS="true", STREAM_DELAY="0")
        for origin, may in ((named, True), (elsewhere.url, False)):
            page = await browser.new_page()
            await page.goto(origin)
            health: Any = await soon(page.evaluate(ASK, f"{service.url}/health"))
            assert ('"healthy"' in health) is may
            text = await soon(page.evaluate(FOLLOW, f"{service.url}/chat?message=Hello+there"))
            assert (text == "Hello there") is may
            assert (await page.evaluate(WITH_COOKIES, f"{service.url}/health") == 200) is may
        assert len((await service.client.get("/sessions")).json()["sessions"]) == 1


STRIKE = """(url) => Promise.all([
    new Promise((resolve) => { const image = new Image(); image.onerror = resolve; image.src = url; }),
    fetch(url, { mode: 'no-cors', credentials: 'include' }).catch(() => {}),
    fetch(url).catch(() => {}),
])"""


async def test_foreign_page_starts_nothing_with_an_address(service: Service, browser: Browser) -> None:
    async with Elsewhere() as elsewhere:
        page = await browser.new_page()
        await page.goto(elsewhere.url.replace("127.0.0.1", "evil.localhost"))
        await soon(page.evaluate(STRIKE, f"{service.url}/chat?message=Hello"))
        assert (await service.client.get("/sessions")).json()["sessions"] == []
