"""What the playground does when things go wrong around it."""

import asyncio
import re

import pytest
from playwright.async_api import Route, expect

from tests.live.browser import Watched
from tests.live.conftest import Serve
from tests.live.links import BACK, Link
from tests.live.pages import EVENTS, accepted, held, modelled, send
from tests.live.playground.conftest import Browse
from tests.live.playground.page import WORDS, answer, said, session_of, stored, verified
from tests.live.service import Service
from tests.upstream import Upstream, chunk, completion, refusal, reply


@pytest.mark.client("Playground", "resume")
async def test_a_cut_network_loses_nothing(serve: Serve, browse: Browse, watched: Watched) -> None:
    watched.network_is_bad = True
    gate = asyncio.Event()
    async with Upstream(held(gate, "Before the cut, ", "behind it.")) as upstream:
        service = await modelled(serve, upstream)
        async with Link(service.port) as link:
            page = await browse(link.url)
            await send(page, "Go")
            await expect(said(page)).to_have_text("Before the cut,")
            link.cut()
            await expect(answer(page).locator(".meta")).to_contain_text("Reconnecting…")
            gate.set()
            link.heal()
            await verified(page)
            await expect(said(page)).to_have_text("Before the cut, behind it.")
            await expect(answer(page).locator(".meta")).not_to_contain_text("Reconnecting")


@pytest.mark.client("Playground", "resume")
async def test_a_killed_server_goes_on_when_it_is_back(serve: Serve, browse: Browse, watched: Watched) -> None:
    watched.network_is_bad = True
    never = asyncio.Event()
    async with Upstream(held(never, "Before the kill, ", "never"), completion("after it.")) as upstream:
        service = await modelled(serve, upstream)
        page = await browse(service.url)
        await send(page, "Go")
        await expect(said(page)).to_have_text("Before the kill,")
        await service.kill()
        await expect(answer(page).locator(".meta")).to_contain_text("Reconnecting…")
        await service.start()
        await verified(page)
        await expect(said(page)).to_have_text("Before the kill, after it.")
        await expect(answer(page).locator(".meta")).to_contain_text("continued after a restart")
        assert (await stored(service, page))[-1] == ("assistant", "Before the kill, after it.", "completed")


async def test_a_deploy_in_the_middle_goes_on(serve: Serve, browse: Browse, watched: Watched) -> None:
    watched.network_is_bad = True
    service = await serve(STREAM_DELAY="0.03", DRAIN_SECONDS="0.1")
    page = await browse(service.url)
    await send(page, WORDS)
    await expect(said(page)).to_contain_text("word10")
    await service.terminate()
    await service.start()
    await verified(page)
    await expect(said(page)).to_have_text(WORDS)


async def test_an_interrupted_answer_says_so(serve: Serve, browse: Browse, watched: Watched) -> None:
    watched.network_is_bad = True
    service = await serve(STREAM_DELAY="0.05", CRASH_RECOVERY="interrupt")
    page = await browse(service.url)
    await send(page, WORDS)
    await expect(said(page)).to_contain_text("word3")
    await service.restart()
    await expect(answer(page).locator(".meta")).to_contain_text("interrupted")
    await expect(answer(page).get_by_role("button", name="Try again")).to_be_visible()


async def test_a_message_whose_acknowledgement_is_lost_is_sent_once(
    service: Service, browse: Browse, watched: Watched
) -> None:
    watched.network_is_bad = True
    async with Link(service.port) as link:
        page = await browse(link.url)
        await expect(page.locator("#welcome")).to_be_visible()
        link.silence(BACK)
        await send(page, "Only once")
        await accepted(service, "Only once")
        link.cut()
        await expect(page.locator(".user .note")).to_have_text("Waiting for the connection…")
        link.heal()
        await verified(page)
        assert [content for _, content, _ in await stored(service, page)] == ["Only once"] * 2
        listed = (await service.client.get("/sessions")).json()["sessions"]
        assert [session["session_id"] for session in listed] == [session_of(page)]


async def test_a_reload_while_a_message_is_on_its_way_sends_it_once(
    service: Service, browse: Browse, watched: Watched
) -> None:
    watched.network_is_bad = True
    async with Link(service.port) as link:
        page = await browse(link.url)
        await send(page, "First")
        await verified(page)
        link.silence(BACK)
        await send(page, "Second")
        await accepted(service, "Second")
        link.cut()
        link.heal()
        await page.reload()
        await expect(page.locator(".answer")).to_have_count(2)
        await expect(said(page)).to_have_text("Second")
        await expect(page.locator(".user")).to_have_count(2)
        await expect(page.locator("#send")).to_be_visible()  # nothing is being answered
        assert [content for _, content, _ in await stored(service, page)] == ["First", "First", "Second", "Second"]


async def test_a_lost_server_is_announced_until_it_is_back(service: Service, browse: Browse, watched: Watched) -> None:
    watched.network_is_bad = True
    async with Link(service.port) as link:
        page = await browse(link.url)
        await send(page, "Hello")
        await verified(page)
        link.cut()
        await expect(page.locator("#connection")).to_contain_text("No connection")
        link.heal()
        await expect(page.locator("#connection")).not_to_be_visible()


async def test_trouble_of_the_store_is_told_in_its_words(service: Service, browse: Browse) -> None:
    page = await browse(service.url)
    trouble = 'event: stream.error\ndata: {"code": "x", "message": "The store is full.", "retryable": true}\n\n'

    async def once(route: Route) -> None:
        await route.fulfill(content_type="text/event-stream", body=trouble)
        await expect(answer(page).locator(".meta")).to_contain_text("The store is full. Reconnecting…")
        await page.unroute(EVENTS)

    await page.route(EVENTS, once)
    await send(page, "Hello")
    await verified(page)
    await expect(answer(page).locator(".meta")).not_to_contain_text("The store is full.")


async def test_a_text_that_is_not_the_stored_one_is_replaced(serve: Serve, browse: Browse) -> None:
    service = await serve(STREAM_DELAY="0")
    page = await browse(service.url)

    async def corrupt(route: Route) -> None:
        response = await route.fetch()
        await route.fulfill(response=response, body=(await response.text()).replace("three", "3"))

    await page.route(EVENTS, corrupt)
    await send(page, "one two three")
    await verified(page)
    await expect(said(page)).to_have_text("one two three")


@pytest.mark.client("Playground", "errors")
async def test_a_failed_answer_says_why_and_can_be_tried_again(serve: Serve, browse: Browse) -> None:
    broken = reply(chunk("It was a dark and "))
    async with Upstream(broken, completion("It was sunny.")) as upstream:
        service = await modelled(serve, upstream)
        page = await browse(service.url)
        await send(page, "Tell me a story")
        await expect(answer(page).locator(".note")).to_contain_text("broke off")
        await expect(said(page)).to_have_text("It was a dark and")
        await page.reload()
        await expect(answer(page).locator(".note")).to_contain_text("broke off")
        await answer(page).get_by_role("button", name="Try again").click()
        await verified(page)
        await expect(said(page)).to_have_text("It was sunny.")
        await expect(page.locator(".answer")).to_have_count(1)
        await page.get_by_role("button", name="Previous version").click()
        await expect(said(page)).to_have_text("It was a dark and")


async def test_a_failure_that_no_retry_can_help_offers_none(serve: Serve, browse: Browse) -> None:
    async with Upstream(refusal(401, {"error": {"message": "no such key"}})) as upstream:
        page = await browse((await modelled(serve, upstream)).url)
        await send(page, "Hello")
        await expect(answer(page).locator(".note")).to_be_visible()
        await expect(answer(page).locator(".note")).not_to_contain_text("no such key")
        await expect(answer(page).get_by_role("button", name="Try again")).to_have_count(0)


async def test_a_refused_message_is_kept_for_editing(serve: Serve, browse: Browse, watched: Watched) -> None:
    watched.network_is_bad = True  # the browser logs every 4xx
    service = await serve(MAX_MESSAGE_CHARS="20")
    page = await browse(service.url)
    await send(page, "This is longer than twenty characters.")
    await expect(page.locator(".user .note")).to_contain_text("Not sent.")
    await expect(page.locator(".user .note")).to_contain_text("20 characters")
    await page.locator(".user .note").get_by_role("button", name="Edit").click()
    await expect(page.get_by_label("Message", exact=True)).to_have_value("This is longer than twenty characters.")
    await send(page, "Short")
    await verified(page)


async def test_a_busy_session_shows_its_answer_and_keeps_the_message(
    serve: Serve, browse: Browse, watched: Watched
) -> None:
    watched.network_is_bad = True
    gate = asyncio.Event()
    async with Upstream(completion("Hello."), held(gate, "Still ", "writing.")) as upstream:
        service = await modelled(serve, upstream)
        page = await browse(service.url)
        await send(page, "Hi")
        await verified(page)
        # The page may have seen the other run already when it sends; it must not, so its question is held up.
        await page.route(re.compile(r"/sessions/ses_\w+$"), lambda route: route.abort())
        await service.begin("From elsewhere", session_id=session_of(page))
        await send(page, "From here")
        await page.unroute_all()
        await expect(page.get_by_role("alert")).to_contain_text("still being written")
        await expect(page.get_by_label("Message", exact=True)).to_have_value("From here")
        await expect(said(page)).to_have_text("Still")
        gate.set()
        await verified(page)


async def test_a_session_that_is_gone_says_so(service: Service, browse: Browse, watched: Watched) -> None:
    watched.network_is_bad = True
    page = await browse(f"{service.url}/playground#ses_nothing")
    await expect(page.get_by_role("alert")).to_contain_text("does not exist")
    await expect(page.locator("#welcome")).to_be_visible()
