"""The page with React and useChat, built and served as its README says, in a real browser."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.live.browser import Watched
from tests.live.conftest import Serve
from tests.live.examples.page import EXAMPLES, answer
from tests.live.links import Link
from tests.live.pages import held, modelled, send
from tests.live.service import Service, free_port
from tests.patience import soon
from tests.programs import answering, running, unavailable
from tests.upstream import Upstream, chunk, completion, done, finish, refusal, reply, sse

REACT = EXAMPLES / "react"

SDK = "useChat, AI SDK 7"


@asynccontextmanager
async def opened(page: Page, api: str, home: Path) -> AsyncIterator[None]:
    if shutil.which("node") is None or not (REACT / "node_modules").exists():
        unavailable("The React example is not installed: npm ci in examples/react")
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    async with running([REACT / "run.sh", "--port", str(port)], home, answering(url), PARLEY_URL=api):
        await page.goto(url)
        yield


async def shows(page: Page, text: str) -> None:
    """The last answer has ended, and its text is this one, to the space."""
    await expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert "".join(await answer(page).locator(".text").all_text_contents()) == text


async def stored(service: Service, page: Page) -> list[str]:
    await expect(page.get_by_role("button", name="Stop")).to_have_count(0)  # an answer's last word comes before its end
    response = await service.client.get(f"/sessions/{page.url.partition('#')[2]}/messages")
    return [message["content"] for message in response.json()["messages"]]


@pytest.mark.client(SDK, "send", "stream", "resume")
async def test_a_reload_in_the_middle_goes_on(serve: Serve, page: Page, tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream(held(gate, "Once upon\n a time ", "  there was <b>one</b>.\n")) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path):
            await send(page, "A story\nof two lines, <i>please</i>")
            await expect(answer(page)).to_have_text("Once upon a time")
            await page.reload()
            await expect(page.get_by_label("You")).to_have_text("A story of two lines, <i>please</i>")
            await expect(answer(page)).to_have_text("Once upon a time")
            await expect(page.get_by_role("button", name="Stop")).to_be_visible()
            gate.set()
            await shows(page, "Once upon\n a time   there was <b>one</b>.\n")
            await page.reload()
            await expect(page.get_by_label("Answer")).to_have_count(1)
            await shows(page, (await stored(service, page))[1])


@pytest.mark.client(SDK, "resume")
async def test_a_killed_server_goes_on_when_it_is_back(
    serve: Serve, page: Page, tmp_path: Path, watched: Watched
) -> None:
    watched.network_is_bad = True
    never = asyncio.Event()
    async with Upstream(held(never, "Before the kill, ", "never"), completion("after it.")) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path):
            await send(page, "Go")
            await expect(answer(page)).to_have_text("Before the kill,")
            await service.kill()
            await expect(page.get_by_role("status")).to_contain_text("Reconnecting…")
            await service.start()
            await expect(answer(page)).to_have_text("Before the kill, after it.")
            await shows(page, "Before the kill, after it.")
            assert await stored(service, page) == ["Go", "Before the kill, after it."]


async def test_a_page_that_is_opened_before_the_server_waits_for_it(
    serve: Serve, page: Page, tmp_path: Path, watched: Watched
) -> None:
    watched.network_is_bad = True
    never = asyncio.Event()
    async with Upstream(held(never, "Before the kill, ", "never"), completion("after it.")) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path):
            await send(page, "Go")
            await expect(answer(page)).to_have_text("Before the kill,")
            await service.kill()
            await page.reload()
            await expect(page.get_by_role("status")).to_contain_text("cannot be reached")
            await service.start()
            await expect(answer(page)).to_have_text("Before the kill, after it.")
            await shows(page, "Before the kill, after it.")


async def test_an_answer_that_ends_while_the_network_is_down_is_shown(
    serve: Serve, page: Page, tmp_path: Path, watched: Watched
) -> None:
    watched.network_is_bad = True
    gate = asyncio.Event()
    async with Upstream(held(gate, "Before the cut, ", "behind it.")) as upstream:
        service = await modelled(serve, upstream)
        async with Link(service.port) as link, opened(page, link.url, tmp_path):
            await send(page, "Go")
            await expect(answer(page)).to_have_text("Before the cut,")
            link.cut()
            await expect(page.get_by_role("status")).to_contain_text("Reconnecting…")
            gate.set()
            [run_id] = service.rows("SELECT id FROM runs")[0]
            await service.ended(str(run_id))
            link.heal()
            await expect(answer(page)).to_have_text("Before the cut, behind it.")
            await shows(page, "Before the cut, behind it.")
            await expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.client(SDK, "stop")
async def test_stop_ends_the_answer(serve: Serve, page: Page, tmp_path: Path) -> None:
    never = asyncio.Event()
    async with Upstream(held(never, "Half of it ", "never"), completion("All of it.")) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path):
            await send(page, "Go")
            await expect(answer(page)).to_have_text("Half of it")
            await page.get_by_role("button", name="Stop").click()
            await expect(page.get_by_text("Stopped.")).to_be_visible()
            await soon((await upstream.request(0)).closed.wait())
            await page.reload()
            await expect(page.get_by_text("Stopped.")).to_be_visible()
            await shows(page, "Half of it ")
            await page.get_by_role("button", name="Try again").click()
            await expect(answer(page)).to_have_text("All of it.")
            await expect(page.get_by_text("Stopped.")).to_have_count(0)
            await expect(page.get_by_label("Answer")).to_have_count(1)


@pytest.mark.client(SDK, "errors")
async def test_a_failed_answer_says_why_and_can_be_tried_again(serve: Serve, page: Page, tmp_path: Path) -> None:
    broken = reply(chunk("It was a dark and "))
    async with Upstream(broken, broken, completion("It was sunny.")) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path):
            await send(page, "A story")
            await expect(page.get_by_role("alert")).to_contain_text("broke off")
            await shows(page, "It was a dark and ")
            await page.get_by_role("button", name="Try again").click()
            await expect(page.get_by_role("alert")).to_contain_text("broke off")
            await page.reload()
            await expect(page.get_by_role("alert")).to_contain_text("broke off")
            await page.get_by_role("button", name="Try again").click()
            await expect(answer(page)).to_have_text("It was sunny.")
            await expect(page.get_by_role("alert")).to_have_count(0)
            await page.reload()
            await expect(page.get_by_label("Answer")).to_have_text(["It was sunny."])


@pytest.mark.client(SDK, "errors")
async def test_an_answer_that_fails_at_once_says_why(serve: Serve, page: Page, tmp_path: Path) -> None:
    async with Upstream(refusal(401, {"error": {"message": "no such key"}}), completion("Hi.")) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path):
            await send(page, "Hello")
            await expect(page.get_by_role("alert")).to_be_visible()
            await expect(page.get_by_role("alert")).not_to_contain_text("no such key")
            await page.get_by_role("button", name="Try again").click()
            await expect(answer(page)).to_have_text("Hi.")


@pytest.mark.client(SDK, "errors")
async def test_a_refused_message_stays_with_the_reader(
    serve: Serve, page: Page, tmp_path: Path, watched: Watched
) -> None:
    watched.network_is_bad = True  # the browser logs every 4xx
    service = await serve(MAX_MESSAGE_CHARS="20")
    async with opened(page, service.url, tmp_path):
        await send(page, "This is longer than twenty characters.")
        await expect(page.get_by_role("alert")).to_contain_text("Not sent.")
        await expect(page.get_by_role("alert")).to_contain_text("20 characters")
        await expect(page.get_by_label("Message")).to_have_value("This is longer than twenty characters.")
        await expect(page.get_by_label("You")).to_have_count(0)
        await send(page, "Short")
        await expect(answer(page)).to_have_text("Short")
        await expect(page.get_by_role("alert")).to_have_count(0)
        assert await stored(service, page) == ["Short", "Short"]


@pytest.mark.client(SDK, "errors")
async def test_a_message_that_never_arrived_stays_with_the_reader(
    service: Service, page: Page, tmp_path: Path, watched: Watched
) -> None:
    watched.network_is_bad = True
    async with opened(page, service.url, tmp_path):
        await expect(page.get_by_label("Message")).to_be_visible()
        await service.kill()
        await send(page, "Anybody there?")
        await expect(page.get_by_role("status")).to_contain_text("Reconnecting…")
        await service.start()
        await expect(page.get_by_role("alert")).to_contain_text("Not sent.")
        await expect(page.get_by_label("Message")).to_have_value("Anybody there?")
        await page.get_by_role("button", name="Send").click()
        await expect(answer(page)).to_have_text("Anybody there?")


@pytest.mark.client(SDK, "tools")
async def test_a_call_is_shown_and_asks_first(serve: Serve, page: Page, tmp_path: Path) -> None:
    service = await serve(TOOLS="tests.live.careful_tool")
    async with opened(page, service.url, tmp_path):
        await send(page, '/order {"article": "<b>tea</b>"}')
        await expect(answer(page)).to_contain_text("order asks for your permission")
        await expect(answer(page)).to_contain_text('"article": "<b>tea</b>"')
        await answer(page).get_by_role("button", name="Allow", exact=True).click()
        await expect(answer(page)).to_contain_text("order has answered")
        await expect(page.get_by_role("button", name="Send")).to_be_visible()
        await page.reload()
        await expect(answer(page)).to_contain_text("order has answered")
        assert len((await service.client.get("/records")).json()["records"]) == 1


@pytest.mark.client(SDK, "tools")
async def test_a_call_that_asks_is_asked_about_again_after_a_reload(serve: Serve, page: Page, tmp_path: Path) -> None:
    service = await serve(TOOLS="tests.live.careful_tool")
    async with opened(page, service.url, tmp_path):
        await send(page, '/order {"article": "tea"}')
        await expect(answer(page)).to_contain_text("asks for your permission")
        await page.reload()
        await answer(page).get_by_role("button", name="Do not allow").click()
        await expect(answer(page)).to_contain_text("was not allowed")
        await expect(page.get_by_role("button", name="Send")).to_be_visible()
        assert (await service.client.get("/records")).json()["records"] == []


async def test_thoughts_are_shown_apart_from_the_answer(serve: Serve, page: Page, tmp_path: Path) -> None:
    script = reply(chunk("", reasoning_content="Hm, let me see."), chunk("Four."), finish(), done())
    async with Upstream(script) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path):
            await send(page, "Two and two?")
            await expect(answer(page).locator(".text")).to_have_text("Four.")
            await page.get_by_text("Thoughts").click()
            await expect(page.get_by_text("Hm, let me see.")).to_be_visible()


async def test_conversations_stay_apart(service: Service, page: Page, tmp_path: Path) -> None:
    async with opened(page, service.url, tmp_path):
        for text in ("One", "Two"):
            await page.get_by_role("link", name="New conversation").click()
            await expect(page.get_by_label("Answer")).to_have_count(0)
            await send(page, text)
            await expect(answer(page)).to_have_text(text)
            await expect(page.get_by_role("button", name="Send")).to_be_visible()
        sessions = (await service.client.get("/sessions")).json()["sessions"]
        assert [session["message_count"] for session in sessions] == [2, 2]
        await page.goto(page.url.partition("#")[0] + f"#{sessions[1]['session_id']}")
        await expect(answer(page)).to_have_text("One")


async def test_the_page_fits_a_phone(serve: Serve, page: Page, tmp_path: Path) -> None:
    service = await serve(STREAM_DELAY="0")
    await page.set_viewport_size({"width": 360, "height": 640})
    async with opened(page, service.url, tmp_path):
        await send(page, "w" * 300)
        await expect(answer(page)).to_have_text("w" * 300)
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
        assert re.fullmatch(r"[\w-]+", page.url.partition("#")[2])


async def test_sources_are_footnotes_also_after_a_reload(serve: Serve, page: Page, tmp_path: Path) -> None:
    results = [{"url": "https://a.example/rain", "title": "Rain <b>", "snippet": "It rains."}]
    found = sse({"search_results": results, "citations": ["https://b.example/"], "choices": []})
    async with (
        Upstream(reply(chunk("It rains."), found, finish(), done())) as upstream,
        opened(page, (await modelled(serve, upstream)).url, tmp_path),
    ):
        await send(page, "Weather?")
        for again in (False, True):
            if again:
                await page.reload()
            await shows(page, "It rains.")
            await answer(page).get_by_text("2 sources").click()
            link = answer(page).get_by_role("link").first
            await expect(link).to_have_text("Rain <b>")
            await expect(link).to_have_attribute("href", "https://a.example/rain")
            await expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
            await expect(answer(page).locator("blockquote")).to_have_text("It rains.")
            await expect(answer(page).get_by_role("link").last).to_have_text("https://b.example/")
