"""The page with EventSource, as its README starts it, in a real browser."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.live.browser import Watched
from tests.live.conftest import Serve
from tests.live.examples.page import EXAMPLES, answer
from tests.live.links import BACK, Link
from tests.live.pages import EVENTS, accepted, held, modelled, send
from tests.live.service import Service, free_port
from tests.patience import soon
from tests.programs import answering, running
from tests.upstream import Upstream, chunk, completion, done, finish, refusal, reply


@asynccontextmanager
async def opened(page: Page, api: str, folder: Path) -> AsyncIterator[None]:
    """The page is in the browser; its copy in ``folder`` has the server's address."""
    example = Path(shutil.copytree(EXAMPLES / "eventsource", folder / "eventsource"))
    code = (example / "api.js").read_text()
    assert code.count("http://localhost:8000") == 1
    (example / "api.js").write_text(code.replace("http://localhost:8000", api))
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    async with running([example / "run.sh"], folder, answering(url), PORT=str(port)):
        await page.goto(url)
        yield


def said(page: Page) -> Locator:
    """The text of the last answer."""
    return answer(page).locator(".text")


async def complete(page: Page) -> None:
    await expect(page.get_by_role("status")).to_have_text("The answer is complete.")


async def stored(service: Service, page: Page) -> list[str]:
    response = await service.client.get(f"/sessions/{page.url.partition('#')[2]}/messages")
    return [message["content"] for message in response.json()["messages"]]


@pytest.mark.client("EventSource", "send", "stream", "resume")
async def test_a_reload_in_the_middle_goes_on(serve: Serve, page: Page, tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream(held(gate, "Once upon\n a time ", "  there was <b>one</b>.\n")) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path):
            await send(page, "A story\nof two lines, <i>please</i>")
            await expect(said(page)).to_have_text("Once upon a time")
            await page.reload()
            await expect(page.get_by_label("You")).to_have_text("A story of two lines, <i>please</i>")
            await expect(said(page)).to_have_text("Once upon a time")
            gate.set()
            await complete(page)
            assert await said(page).evaluate("it => it.textContent") == (await stored(service, page))[1]
            await page.reload()
            await expect(page.get_by_label("Answer")).to_have_count(1)
            assert await said(page).evaluate("it => it.textContent") == "Once upon\n a time   there was <b>one</b>.\n"


@pytest.mark.client("EventSource", "resume")
async def test_a_killed_server_goes_on_when_it_is_back(
    serve: Serve, page: Page, tmp_path: Path, watched: Watched
) -> None:
    watched.network_is_bad = True
    never = asyncio.Event()
    async with Upstream(held(never, "Before the kill, ", "never"), completion("after it.")) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path):
            await send(page, "Go")
            await expect(said(page)).to_have_text("Before the kill,")
            await service.kill()
            await expect(page.get_by_role("status")).to_contain_text("Reconnecting…")
            await service.start()
            await expect(said(page)).to_have_text("Before the kill, after it.")
            await complete(page)
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
            await expect(said(page)).to_have_text("Before the kill,")
            await service.kill()
            await page.reload()
            await expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")
            await service.start()
            await expect(said(page)).to_have_text("Before the kill, after it.")
            await expect(page.get_by_role("alert")).not_to_be_visible()


async def test_an_error_of_a_proxy_is_not_the_end(
    service: Service, page: Page, tmp_path: Path, watched: Watched
) -> None:
    watched.network_is_bad = True
    refused = asyncio.Event()

    async def once(route: Route) -> None:
        refused.set()
        await route.fulfill(status=502, body="Bad gateway")
        await page.unroute(EVENTS)

    async with opened(page, service.url, tmp_path):
        await page.route(EVENTS, once)
        await send(page, "Hello there")
        await soon(refused.wait())
        await expect(said(page)).to_have_text("Hello there")


@pytest.mark.client("EventSource", "stop")
async def test_stop_ends_the_answer(serve: Serve, page: Page, tmp_path: Path) -> None:
    never = asyncio.Event()
    async with Upstream(held(never, "Half of it ", "never"), completion("All of it.")) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path):
            await send(page, "Go")
            await expect(said(page)).to_have_text("Half of it")
            await page.get_by_role("button", name="Stop").click()
            await expect(answer(page)).to_contain_text("Stopped.")
            await soon((await upstream.request(0)).closed.wait())
            await page.reload()
            await expect(answer(page)).to_contain_text("Half of it Stopped.")
            await page.get_by_role("button", name="Try again").click()
            await complete(page)
            await expect(page.locator(".text")).to_have_text(["All of it."])


@pytest.mark.client("EventSource", "errors")
async def test_a_failed_answer_says_why_and_can_be_tried_again(serve: Serve, page: Page, tmp_path: Path) -> None:
    broken = reply(chunk("It was a dark and "))
    async with Upstream(broken, completion("It was sunny.")) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path):
            await send(page, "A story")
            await expect(answer(page).locator(".problem")).to_contain_text("broke off")
            await page.reload()
            await expect(answer(page).locator(".problem")).to_contain_text("broke off")
            await expect(said(page)).to_have_text("It was a dark and")
            await page.get_by_role("button", name="Try again").click()
            await complete(page)
            await page.reload()
            await expect(page.locator(".text")).to_have_text(["It was sunny."])


async def test_a_failure_that_no_retry_can_help_offers_none(serve: Serve, page: Page, tmp_path: Path) -> None:
    async with Upstream(refusal(401, {"error": {"message": "no such key"}})) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path):
            await send(page, "Hello")
            await expect(answer(page).locator(".problem")).to_be_visible()
            await expect(page.get_by_role("button", name="Try again")).to_have_count(0)


@pytest.mark.client("EventSource", "errors")
async def test_a_refused_message_stays_with_the_reader(
    serve: Serve, page: Page, tmp_path: Path, watched: Watched
) -> None:
    watched.network_is_bad = True  # the browser logs every 4xx
    service = await serve(MAX_MESSAGE_CHARS="20")
    async with opened(page, service.url, tmp_path):
        await send(page, "This is longer than twenty characters.")
        await expect(page.get_by_role("alert")).to_contain_text("20 characters")
        await send(page, "Short")
        await complete(page)
        await expect(page.get_by_role("alert")).not_to_be_visible()
        assert await stored(service, page) == ["Short", "Short"]


async def test_a_message_whose_acknowledgement_is_lost_is_stored_once(
    service: Service, page: Page, tmp_path: Path, watched: Watched
) -> None:
    watched.network_is_bad = True
    async with Link(service.port) as link, opened(page, link.url, tmp_path):
        await send(page, "First")  # the browser then knows that it may ask this server
        await complete(page)
        link.silence(BACK)
        await send(page, "Only once")
        await accepted(service, "Only once")
        link.cut()
        await expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")
        link.heal()
        await page.keyboard.press("Enter")
        await expect(said(page)).to_have_text("Only once")
        await complete(page)
        assert await stored(service, page) == ["First", "First", "Only once", "Only once"]
        assert len((await service.client.get("/sessions")).json()["sessions"]) == 1


@pytest.mark.client("EventSource", "tools")
async def test_a_call_is_shown_and_asks_first(serve: Serve, page: Page, tmp_path: Path) -> None:
    service = await serve(TOOLS="tests.live.careful_tool")
    async with opened(page, service.url, tmp_path):
        await send(page, '/order {"article": "<b>tea</b>"}')
        tool = answer(page).get_by_role("listitem")
        await expect(tool).to_contain_text("order asks for your permission")
        await page.reload()
        await expect(tool).to_contain_text('{"article": "<b>tea</b>"}')
        await tool.get_by_role("button", name="Allow", exact=True).click()
        await complete(page)
        await expect(tool).to_contain_text("order has answered")
        await page.reload()
        await expect(tool).to_contain_text("order has answered")
        assert len((await service.client.get("/records")).json()["records"]) == 1


async def test_thoughts_are_shown_apart_from_the_answer(serve: Serve, page: Page, tmp_path: Path) -> None:
    script = reply(chunk("", reasoning_content="Hm, let me see."), chunk("Four."), finish(), done())
    async with Upstream(script) as upstream:
        service = await modelled(serve, upstream)
        async with opened(page, service.url, tmp_path):
            await send(page, "Two and two?")
            await complete(page)
            await expect(said(page)).to_have_text("Four.")
            await page.get_by_text("Thoughts").click()
            await expect(page.get_by_text("Hm, let me see.")).to_be_visible()


async def test_a_new_conversation_is_the_same_users(service: Service, page: Page, tmp_path: Path) -> None:
    async with opened(page, service.url, tmp_path):
        for text in ("One", "Two"):
            await page.get_by_role("link", name="New conversation").click()
            await expect(page.get_by_label("Answer")).to_have_count(0)
            await send(page, text)
            await complete(page)
        sessions = (await service.client.get("/sessions")).json()["sessions"]
        assert [session["message_count"] for session in sessions] == [2, 2]
        assert len({session["user_id"] for session in sessions}) == 1
        await page.go_back()
        await expect(said(page)).to_have_text("One")


async def test_an_address_from_elsewhere_can_be_answered(service: Service, page: Page, tmp_path: Path) -> None:
    """What is said in somebody's conversation is said there; the reader's own are still the reader's."""
    theirs = {"message": "Hi", "session_id": "theirs", "user_id": "alice", "stream": False}
    assert (await service.client.post("/chat", json=theirs)).status_code == 200
    async with opened(page, service.url, tmp_path):
        await send(page, "Mine")
        await complete(page)
        mine = await page.evaluate("localStorage.getItem('user_id')")
        await page.evaluate("location.hash = 'theirs'")
        await expect(page.get_by_label("You")).to_have_text("Hi")
        await send(page, "Hello, Alice")
        await expect(page.get_by_label("You").last).to_have_text("Hello, Alice")
        await complete(page)
        assert await stored(service, page) == ["Hi", "Hi", "Hello, Alice", "Hello, Alice"]
        assert await page.evaluate("localStorage.getItem('user_id')") == mine


async def test_the_page_fits_a_phone(serve: Serve, page: Page, tmp_path: Path) -> None:
    service = await serve(STREAM_DELAY="0")
    await page.set_viewport_size({"width": 360, "height": 640})
    async with opened(page, service.url, tmp_path):
        await send(page, "w" * 300)
        await complete(page)
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
        assert re.fullmatch(r"[\w-]+", page.url.partition("#")[2])
