"""Tools in the playground: what was called is seen, also after a reload, and a call that asks is decided there."""

import pytest
from playwright.async_api import expect

from tests.live.conftest import Serve
from tests.live.pages import send
from tests.live.playground.conftest import Browse
from tests.live.playground.page import answer, said


@pytest.mark.client("Playground", "tools")
async def test_calls_are_shown_while_they_are_made_and_in_the_history(serve: Serve, browse: Browse) -> None:
    service = await serve(TOOLS="examples.town_hall", STREAM_DELAY="0")
    page = await browse(service.url)
    await send(page, '/submit_feedback {"feedback": "Lockers, <b>please</b>"}')
    call = answer(page).locator(".calls li")
    for _ in range(2):
        await expect(call).to_have_count(1)
        await expect(call.locator("summary")).to_have_text("submit_feedback done")
        await expect(call.locator(".given")).to_have_text('{"feedback": "Lockers, <b>please</b>"}')
        await expect(call.locator(".result")).to_contain_text("received")
        await expect(said(page)).to_contain_text("received")
        await page.reload()


async def test_call_that_fails_says_so(serve: Serve, browse: Browse) -> None:
    page = await browse((await serve(TOOLS="examples.town_hall", STREAM_DELAY="0")).url)
    await send(page, "/report_incident {}")
    await expect(answer(page).locator(".calls .state")).to_have_text("failed")
    await expect(answer(page).locator(".calls .result")).to_contain_text("The arguments do not fit")


@pytest.mark.parametrize(
    ("button", "words", "records"), [("Allow", "done", 1), ("Do not allow", "failed", 0)], ids=["yes", "no"]
)
async def test_call_that_asks_is_decided_here_also_after_a_reload(
    serve: Serve, browse: Browse, button: str, words: str, records: int
) -> None:
    service = await serve(TOOLS="tests.live.careful_tool", STREAM_DELAY="0")
    page = await browse(service.url)
    await send(page, '/order {"article": "tea"}')
    state = answer(page).locator(".calls .state")
    await expect(state).to_have_text("asks for your permission")
    await page.reload()
    await expect(state).to_have_text("asks for your permission")
    await expect(answer(page).locator(".calls .given")).to_be_visible()
    await page.get_by_role("button", name=button, exact=True).click()
    await expect(state).to_have_text(words)
    await expect(page.get_by_role("button", name=button, exact=True)).to_have_count(0)
    assert len((await service.client.get("/records")).json()["records"]) == records
