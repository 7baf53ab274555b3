"""Sending a message and following its answer, in a real browser."""

import asyncio

import pytest
from playwright.async_api import expect

from tests.live.checks import sockets, sockets_fall_to
from tests.live.conftest import Serve
from tests.live.pages import held, modelled, send
from tests.live.playground.conftest import Browse
from tests.live.playground.page import answer, said, stored, verified
from tests.live.service import Service
from tests.upstream import Upstream, chunk, completion, done, finish, refusal, reply


@pytest.mark.client("Playground", "send", "stream")
async def test_an_answer_appears_while_it_is_written(serve: Serve, browse: Browse) -> None:
    gate = asyncio.Event()
    async with Upstream(held(gate, "Once upon ", "a **time**.")) as upstream:
        service = await modelled(serve, upstream)
        page = await browse(service.url)
        await send(page, "Tell me a story, a long one, with a dragon in it")
        await expect(said(page)).to_have_text("Once upon")
        await expect(answer(page).locator(".meta")).to_contain_text("scripted")
        await expect(answer(page).locator(".meta")).to_contain_text("writing")
        gate.set()
        await verified(page)
        await expect(said(page).locator("strong")).to_have_text("time")
        title = "Tell me a story, a long one, with a…"
        await expect(page.locator("#sessions a[aria-current]")).to_have_text(title)
        await expect(page.locator("#title")).to_have_text(title)
        assert await stored(service, page) == [
            ("user", "Tell me a story, a long one, with a dragon in it", "completed"),
            ("assistant", "Once upon a **time**.", "completed"),
        ]


async def test_a_title_that_the_service_gives_appears_by_itself(serve: Serve, browse: Browse) -> None:
    page = await browse((await serve(TITLES="true")).url)
    await send(page, "Tell me a story, a long one, with a dragon in it")
    await verified(page)
    await expect(page.locator("#title")).to_have_text("Tell me a story, a long")  # the echo model's
    await expect(page.locator("#sessions a[aria-current]")).to_have_text("Tell me a story, a long")


async def test_an_address_from_elsewhere_can_be_answered(service: Service, browse: Browse) -> None:
    """What is said in somebody's conversation is said there; the reader's own are still the reader's."""
    theirs = {"message": "Hi", "session_id": "theirs", "user_id": "alice", "stream": False}
    assert (await service.client.post("/chat", json=theirs)).status_code == 200
    page = await browse(service.url)
    await send(page, "Mine")
    await verified(page)
    await page.evaluate("location.hash = 'theirs'")
    await expect(said(page)).to_have_text("Hi")
    await send(page, "Hello, Alice")
    await expect(said(page)).to_have_text("Hello, Alice")
    await verified(page)
    assert [text for _, text, _ in await stored(service, page)] == ["Hi", "Hi", "Hello, Alice", "Hello, Alice"]
    await page.reload()
    await expect(page.locator("#sessions a")).to_have_text(["Mine"])


@pytest.mark.client("Playground", "resume")
async def test_a_reload_in_the_middle_goes_on_where_it_was(serve: Serve, browse: Browse) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    parts = [part for number, gate in enumerate(gates) for part in (chunk(f"Part {number}, "), gate)]
    async with Upstream(reply(*parts, chunk("and the end."), finish(), done())) as upstream:
        page = await browse((await modelled(serve, upstream)).url)
        await send(page, "Go on")
        for number, gate in enumerate(gates):
            await expect(said(page)).to_contain_text(f"Part {number}")
            await page.reload()
            await expect(said(page)).to_contain_text(f"Part {number}")
            gate.set()
        await verified(page)
        await expect(said(page)).to_have_text("Part 0, Part 1, Part 2, and the end.")
        await expect(page.locator(".answer")).to_have_count(1)
        await page.reload()
        await expect(said(page)).to_have_text("Part 0, Part 1, Part 2, and the end.")


@pytest.mark.client("Playground", "stop")
async def test_stop_keeps_what_was_written(serve: Serve, browse: Browse) -> None:
    never = asyncio.Event()
    async with Upstream(held(never, "As far as ", "never")) as upstream:
        service = await modelled(serve, upstream)
        page = await browse(service.url)
        for number, how in enumerate(("button", "key")):
            await send(page, "Begin")
            await expect(said(page, number)).to_have_text("As far as")
            if how == "button":
                await page.get_by_role("button", name="Stop").click()
            else:
                await page.keyboard.press("Escape")
            await expect(answer(page).locator(".meta")).to_contain_text("stopped")
            await expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
        assert (await stored(service, page))[-1] == ("assistant", "As far as ", "cancelled")
        await page.reload()
        await expect(answer(page).locator(".meta")).to_contain_text("stopped")


async def test_shift_enter_makes_a_line_and_enter_sends(service: Service, browse: Browse) -> None:
    page = await browse(service.url)
    field = page.get_by_label("Message", exact=True)
    await field.fill("one")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("two")
    await expect(field).to_have_value("one\ntwo")
    await page.keyboard.press("Enter")
    await verified(page)
    assert (await stored(service, page))[0] == ("user", "one\ntwo", "completed")


async def test_reasoning_is_shown_apart_from_the_answer(serve: Serve, browse: Browse) -> None:
    script = reply(chunk("", reasoning_content="Hm, let me see."), chunk("Four."), finish(), done())
    async with Upstream(script) as upstream:
        page = await browse((await modelled(serve, upstream)).url)
        await send(page, "Two and two?")
        await verified(page)
        await expect(said(page)).to_have_text("Four.")
        await expect(answer(page).locator(".thoughts")).to_have_text("Hm, let me see.")


async def test_another_answer_is_a_version_beside_the_first(serve: Serve, browse: Browse) -> None:
    async with Upstream(completion("Heads."), completion("Tails.")) as upstream:
        service = await modelled(serve, upstream)
        page = await browse(service.url)
        await send(page, "Toss a coin")
        await verified(page)
        await answer(page).get_by_role("button", name="Another answer").click()
        await expect(said(page)).to_have_text("Tails.")
        await expect(answer(page).locator(".count")).to_have_text("2 of 2")
        await page.reload()
        await expect(said(page)).to_have_text("Tails.")
        await page.get_by_role("button", name="Previous version").click()
        await expect(said(page)).to_have_text("Heads.")
        await send(page, "Again")
        await expect(page.locator(".answer")).to_have_count(2)
        request = await upstream.request(2)
        assert [message["content"] for message in request.body["messages"]][-3:] == ["Toss a coin", "Heads.", "Again"]


async def test_an_edited_message_begins_a_branch(service: Service, browse: Browse) -> None:
    page = await browse(service.url)
    await send(page, "Hello wurld")
    await verified(page)
    await page.locator(".user").hover()
    await page.get_by_role("button", name="Edit and send again").click()
    await expect(page.get_by_label("Message", exact=True)).to_have_value("Hello wurld")
    await page.keyboard.press("Escape")
    await expect(page.get_by_label("Message", exact=True)).to_have_value("")
    await page.get_by_role("button", name="Edit and send again").click()
    await send(page, "Hello world")
    await verified(page)
    await expect(page.locator(".user .said")).to_have_text(["Hello world"])
    await expect(said(page)).to_have_text("Hello world")
    await expect(page.locator(".user .count")).to_have_text("2 of 2")


async def test_two_tabs_show_the_same_running_answer(serve: Serve, browse: Browse) -> None:
    gate = asyncio.Event()
    async with Upstream(completion("Hello."), held(gate, "For both ", "of you.")) as upstream:
        service = await modelled(serve, upstream)
        first = await browse(service.url)
        await send(first, "Hi")
        await verified(first)
        second = await browse(first.url, beside=first)
        await expect(said(second)).to_have_text("Hello.")
        await send(first, "And now?")
        for page in (first, second):
            await expect(said(page)).to_have_text("For both")
        gate.set()
        for page in (first, second):
            await verified(page)
            await expect(said(page)).to_have_text("For both of you.")


async def test_a_hidden_tab_gives_its_connection_back(serve: Serve, browse: Browse) -> None:
    turn = """() => {
        Object.defineProperty(document, 'hidden', { value: !document.hidden, configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    gate = asyncio.Event()
    async with Upstream(held(gate, "Seen, ", "and seen later.")) as upstream:
        service = await modelled(serve, upstream)
        page = await browse(service.url)
        await send(page, "Go")
        await expect(said(page)).to_have_text("Seen,")
        open_with_stream = sockets(service)
        await page.evaluate(turn)
        await sockets_fall_to(service, open_with_stream - 1)
        gate.set()
        await page.evaluate(turn)
        await verified(page)
        await expect(said(page)).to_have_text("Seen, and seen later.")


async def test_an_answer_says_which_model_stood_in(serve: Serve, browse: Browse) -> None:
    async with Upstream(refusal(503)) as upstream:
        service = await modelled(serve, upstream, FALLBACK_MODELS="echo")
        page = await browse(service.url)
        await send(page, "Hello")
        await verified(page)
        await expect(said(page)).to_have_text("Hello")
        await expect(answer(page).locator(".meta")).to_contain_text("echo")
