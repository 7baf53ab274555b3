"""The two frontends of the README, as they stand there, in a real browser, through a crash of the service."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.live.browser import chromium
from tests.live.service import ROOT, Service

WORDS = " ".join(f"word{number}" for number in range(30))


def block(language: str) -> str:
    """The README's one code block in this language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with chromium() as browser:
        yield await browser.new_page()


@asynccontextmanager
async def showing(page: Page, html: str) -> AsyncIterator[None]:
    """The page from a server of its own: a browser lets only what comes from loopback talk to loopback."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n"
        writer.write((head + f'<!doctype html><link rel="icon" href="data:,">{html}').encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        await page.goto(f"http://localhost:{server.sockets[0].getsockname()[1]}/")
        yield


async def crash_once_it_says(service: Service, page: Page, word: str) -> None:
    await expect(page.locator("#answer")).to_contain_text(word)
    await service.kill()
    await service.start()


@pytest.mark.client("EventSource", "send", "stream", "resume")
async def test_the_eventsource_frontend_shows_the_whole_answer_through_a_crash(service: Service, page: Page) -> None:
    async with showing(page, block("html").replace("http://localhost:8000", service.url)):
        await page.locator("#say").fill(WORDS)
        await page.locator("#say").press("Enter")
        await crash_once_it_says(service, page, "word9")
        await expect(page.locator("#answer")).to_have_text(WORDS)


@pytest.mark.client("fetch", "send", "stream", "resume")
async def test_the_fetch_frontend_yields_the_whole_answer_through_a_crash(service: Service, page: Page) -> None:
    use = f"""
        for await (const {{ text }} of chat("{service.url}", "{WORDS}")) answer.append(text ?? "")
        answer.append(" END")"""
    async with showing(page, f'<pre id="answer"></pre><script type="module">{block("js")}{use}</script>'):
        await crash_once_it_says(service, page, "word9")
        await expect(page.locator("#answer")).to_have_text(f"{WORDS} END")


@pytest.mark.client("curl", "send")
async def test_the_quick_starts_curl_line_prints_what_the_readme_shows(service: Service) -> None:
    line = re.findall(r"^(curl -N -X POST .*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[0]
    script = str(line).replace("http://localhost:8000", service.url)
    process = await asyncio.create_subprocess_exec("sh", "-c", script, stdout=-1, stderr=-3, cwd=Path("/"))
    output, _ = await process.communicate()
    assert re.findall(r"^data: (.*)$", output.decode(), re.MULTILINE) == [
        "Hello ", "from ", "the ", "backend", "[DONE]",
    ]  # fmt: skip
