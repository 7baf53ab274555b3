"""The Streamlit app, as its README starts it, in a real browser."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.listener import Listener
from tests.live.browser import Watched
from tests.live.conftest import Serve
from tests.live.examples.page import EXAMPLES
from tests.live.links import BACK, Link
from tests.live.pages import held, modelled
from tests.live.service import ROOT, Service, free_port
from tests.patience import PATIENCE, soon
from tests.programs import answering, running, unavailable
from tests.upstream import End, Upstream, chunk, completion, refusal, reply


@asynccontextmanager
async def opened(page: Page, backend: str, home: Path, **settings: str) -> AsyncIterator[None]:
    if not (ROOT / ".venv-streamlit/bin/streamlit").exists():
        unavailable("Streamlit is not installed: VENV=.venv-streamlit scripts/install.sh examples/streamlit/...")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {"BACKEND_URL": backend, **settings}
    command = [str(EXAMPLES / "streamlit/run.sh"), "--server.port", str(port), "--server.address", "127.0.0.1"]
    async with running(command, home, answering(f"{url}/_stcore/health"), **environment):
        await page.goto(url)
        await expect(page.get_by_placeholder("Ask anything")).to_be_visible()
        yield
        await page.goto("about:blank")  # it would miss the app


async def ask(page: Page, prompt: str) -> None:
    await page.get_by_placeholder("Ask anything").fill(prompt)
    await page.keyboard.press("Enter")


def answer(page: Page) -> Locator:
    return answers(page).last


def answers(page: Page) -> Locator:
    return page.get_by_label("Chat message from assistant")


def badge(page: Page) -> Locator:
    return sidebar(page).get_by_text(re.compile("Connected|Unreachable"))


def sidebar(page: Page) -> Locator:
    return page.get_by_role("region", name="Sidebar")


async def switch(page: Page, *, on: bool) -> None:
    """A click is lost on a page that is drawn anew just then."""
    stream = page.get_by_role("switch", name="Stream answers")
    async with asyncio.timeout(PATIENCE):
        while await stream.is_checked() is not on:
            await stream.click(force=True)
            with suppress(AssertionError):
                await expect(stream).to_be_checked(checked=on, timeout=2_000)


async def fails(page: Page, title: str, solution: str) -> None:
    """One row of the table of errors is shown, and its way out offered."""
    await expect(page.get_by_role("alert")).to_contain_text(title)
    await expect(page.get_by_role("alert")).to_contain_text(solution)
    await expect(page.get_by_role("button", name="Retry")).to_be_visible()


async def increase_timeout(page: Page) -> None:
    await page.get_by_label("Request timeout").fill("30")
    await page.keyboard.press("Enter")


async def retry(page: Page) -> None:
    await page.get_by_role("button", name="Retry").click()


def runs(service: Service) -> int:
    return len(service.rows("SELECT id FROM runs"))


@pytest.mark.client("Streamlit", "errors")
async def test_the_badge_says_whether_the_backend_is_there(service: Service, page: Page, tmp_path: Path) -> None:
    async with opened(page, service.url, tmp_path):
        await expect(badge(page)).to_contain_text("Connected")
        await service.kill()
        await expect(badge(page)).to_contain_text("Unreachable")
        await expect(sidebar(page)).to_contain_text("Cannot connect to backend")
        await service.start()
        await expect(badge(page)).to_contain_text("Connected")


@pytest.mark.client("Streamlit", "send", "stream")
async def test_the_switch_chooses_whether_an_answer_is_streamed(serve: Serve, page: Page, tmp_path: Path) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    script = held(first, "One **bold** ", "word.\n\nTwo"), held(second, "All ", "at once.")
    async with Upstream(*script) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path, USE_STREAMING="true"):
            await ask(page, "Stream it")
            await expect(answer(page)).to_contain_text("One bold")
            first.set()
            await expect(answer(page)).to_contain_text("word.")
            await expect(answer(page).get_by_role("paragraph").filter(has_text=re.compile("^Two$"))).to_be_visible()
            await switch(page, on=False)
            await ask(page, "Not now")
            await expect(answer(page)).to_contain_text("Waiting for the answer")
            await upstream.request(1)
            await expect(answer(page)).not_to_contain_text("All")
            second.set()
            await expect(answer(page)).to_contain_text("All at once.")
            await expect(page.get_by_label("Chat message from user")).to_have_count(2)
            assert runs(service) == 2


@pytest.mark.client("Streamlit", "stop")
async def test_stop_ends_the_answer(serve: Serve, page: Page, tmp_path: Path) -> None:
    never = asyncio.Event()
    async with Upstream(held(never, "Half of it ", "never")) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path, USE_STREAMING="true"):
            await ask(page, "Go")
            await expect(answer(page)).to_contain_text("Half of it")
            await page.get_by_role("button", name="Stop").click()
            await soon((await upstream.request(0)).closed.wait())
            await expect(page.get_by_role("button", name="Stop")).to_have_count(0)
            await expect(answers(page)).to_have_count(1)
            await expect(answer(page)).to_contain_text(re.compile(r"Half of it.*\d\d:"))
            assert service.rows("SELECT status FROM runs") == [("cancelled",)]


@pytest.mark.client("Streamlit", "resume")
async def test_a_click_in_the_middle_of_an_answer_loses_nothing(serve: Serve, page: Page, tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream(held(gate, "Before the click, ", "behind it.")) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path, USE_STREAMING="true"):
            await ask(page, "Go")
            await expect(answer(page)).to_contain_text("Before the click,")
            await switch(page, on=False)
            gate.set()
            await expect(answer(page)).to_contain_text(re.compile(r"Before the click, behind it.\d\d:"))
            await expect(answers(page)).to_have_count(1)
            assert runs(service) == 1


@pytest.mark.client("Streamlit", "errors")
async def test_connection_error(service: Service, page: Page, tmp_path: Path) -> None:
    async with opened(page, service.url, tmp_path):
        for streaming in (True, False):
            await switch(page, on=streaming)
            await service.kill()
            await ask(page, "Anybody there?")
            await fails(page, "Connection Error. Cannot connect to backend", "Start backend: ./scripts/run.sh")
            await service.start()
            await retry(page)
            await expect(answer(page)).to_contain_text("Anybody there?")
            await expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.client("Streamlit", "errors")
@pytest.mark.parametrize("streaming", [True, False])
async def test_timeout_error(serve: Serve, page: Page, tmp_path: Path, streaming: bool) -> None:
    gate = asyncio.Event()
    async with Upstream(held(gate, "A slow ", "answer.")) as upstream:
        service = await modelled(serve, upstream, PING_SECONDS="1")  # the connection is alive, and nothing is said
        settings = {"USE_STREAMING": str(streaming), "REQUEST_TIMEOUT": "2"}
        async with opened(page, service.url, tmp_path, **settings):
            await ask(page, "Are you slow?")
            await fails(page, "Timeout Error", "Increase REQUEST_TIMEOUT")
            await increase_timeout(page)
            gate.set()
            await retry(page)
            await expect(answer(page)).to_contain_text("A slow answer.")
            assert runs(service) == 1


async def test_timeout_error_of_a_backend_that_says_nothing_at_all(serve: Serve, page: Page, tmp_path: Path) -> None:
    service = await serve(PING_SECONDS="60")
    async with Link(service.port) as link, opened(page, link.url, tmp_path, USE_STREAMING="true", REQUEST_TIMEOUT="2"):
        link.silence(BACK)
        await ask(page, "Are you there?")
        await fails(page, "Timeout Error", "Increase REQUEST_TIMEOUT")
        await increase_timeout(page)
        link.heal()
        await retry(page)
        await expect(answer(page)).to_contain_text("Are you there?")
        assert runs(service) == 1


@pytest.mark.client("Streamlit", "errors")
async def test_500_error(serve: Serve, page: Page, tmp_path: Path) -> None:
    refused = refusal(401, {"error": {"message": "no such key"}})
    async with Upstream(refused, completion("With a key."), refused, completion("With another.")) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path):
            for title, said in ("Backend error", "With a key."), ("Backend error (502)", "With another."):
                await switch(page, on=title == "Backend error")
                await ask(page, "Have you a key?")
                await fails(page, title, "Check backend logs & API key")
                await expect(page.get_by_role("alert")).not_to_contain_text("no such key")
                await retry(page)
                await expect(answer(page)).to_contain_text(said)


@pytest.mark.client("Streamlit", "errors")
async def test_an_answer_that_breaks_off_is_shown_as_far_as_it_came(serve: Serve, page: Page, tmp_path: Path) -> None:
    async with Upstream(reply(chunk("It was a dark and "), End.CLOSE)) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path, USE_STREAMING="true"):
            await ask(page, "A story")
            await fails(page, "Backend error", "Check backend logs")
            await expect(answer(page)).to_contain_text("It was a dark and")


@pytest.mark.client("Streamlit", "errors", "resume")
@pytest.mark.parametrize("disable", [False, True], ids=["retry", "disable streaming"])
async def test_sse_stream_error(serve: Serve, page: Page, tmp_path: Path, disable: bool) -> None:
    gate = asyncio.Event()
    async with Upstream(held(gate, "Before the cut, ", "behind it.")) as upstream:
        service = await modelled(serve, upstream)
        async with Link(service.port) as link, opened(page, link.url, tmp_path, USE_STREAMING="true"):
            await ask(page, "Go")
            await expect(answer(page)).to_contain_text("Before the cut,")
            link.cut()
            await fails(page, "SSE Stream Error", "Retry or disable streaming")
            await expect(answer(page)).to_contain_text("Before the cut,")
            link.heal()
            gate.set()
            if disable:
                await switch(page, on=False)
            await retry(page)
            await expect(answer(page)).to_contain_text("Before the cut, behind it.")
            assert runs(service) == 1


class Portal(Listener):
    """Says "Sign in first" to whatever is asked, as networks of hotels do."""

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"<h1>Sign in first</h1>"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        writer.close()


@pytest.mark.client("Streamlit", "errors")
async def test_invalid_json(page: Page, tmp_path: Path) -> None:
    async with Portal() as portal, opened(page, portal.url, tmp_path):
        for streaming in (True, False):
            await switch(page, on=streaming)
            await ask(page, f"Hello, streaming {streaming}?")
            await expect(page.get_by_text(f"Hello, streaming {streaming}?")).to_be_visible()
            await fails(page, "Invalid JSON", "Check backend response format")


@pytest.mark.client("Streamlit", "errors")
@pytest.mark.parametrize("backend", ["localhost:8000", "http://localhost:80000", "http://"])
async def test_address_that_is_none_is_a_connection_error(backend: str, page: Page, tmp_path: Path) -> None:
    async with opened(page, backend, tmp_path):
        await expect(badge(page)).to_contain_text("Unreachable")
        for streaming in (True, False):
            await switch(page, on=streaming)
            await ask(page, "Hello?")
            await fails(page, "Connection Error", "Start backend")


async def test_nothing_that_is_said_becomes_html_or_an_image(
    serve: Serve, page: Page, tmp_path: Path, watched: Watched
) -> None:
    """An image would be asked for at any address; the browser's every request is watched."""
    service = await serve(STREAM_DELAY="0")
    evil = '<img src="http://192.0.2.1/a.png"> <script>alert(1)</script> ![x](http://192.0.2.1/b.png)'
    async with opened(page, service.url, tmp_path, USE_STREAMING="true"):
        await ask(page, evil)
        await expect(answer(page)).to_contain_text("<script>alert(1)</script>")
        await expect(answer(page).locator("img[src*='192.0.2.1']")).to_have_count(0)
        await expect(page.get_by_label("Chat message from user")).to_contain_text(evil)


async def test_the_sidebar_has_the_settings_counts_and_begins_anew(
    service: Service, page: Page, tmp_path: Path
) -> None:
    async with opened(page, service.url, tmp_path):
        await expect(page.get_by_role("switch", name="Stream answers")).not_to_be_checked()
        await expect(page.get_by_label("Request timeout")).to_have_value("30.00")
        await ask(page, "Hello")
        await expect(answer(page)).to_contain_text(re.compile(r"Hello\s*\d\d:\d\d:\d\d"))
        await expect(sidebar(page)).to_contain_text("2 messages")
        before = await sidebar(page).get_by_text("Session ").inner_text()
        await page.get_by_role("button", name="New conversation").click()
        await expect(page.get_by_label("Chat message from user")).to_have_count(0)
        await expect(sidebar(page)).to_contain_text("0 messages")
        assert await sidebar(page).get_by_text("Session ").inner_text() != before
