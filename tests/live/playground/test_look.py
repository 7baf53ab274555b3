"""The page around the conversation."""

import asyncio

from playwright.async_api import expect

from tests.live.conftest import Serve
from tests.live.pages import held, modelled, send
from tests.live.playground.conftest import Browse
from tests.live.playground.page import PHONE, answer, said, session_of, verified
from tests.live.service import Service
from tests.upstream import Upstream


async def test_the_policy_forbids_whatever_is_not_ours(service: Service) -> None:
    for path in ("/playground", "/static/app.js"):
        policy = (await service.client.get(path)).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


async def test_sessions_are_listed_renamed_and_deleted(service: Service, browse: Browse) -> None:
    page = await browse(service.url)
    for text in ("Apples", "Pears"):
        await page.get_by_role("button", name="New conversation", exact=True).click()
        await send(page, text)
        await verified(page)
    names = page.locator("#sessions a")
    await expect(names).to_have_text(["Pears", "Apples"])
    await names.nth(1).click()
    await expect(said(page)).to_have_text("Apples")
    await page.go_back()
    await expect(said(page)).to_have_text("Pears")
    await page.go_forward()
    await expect(said(page)).to_have_text("Apples")

    await page.get_by_role("button", name="Rename “Apples”").click()
    await page.locator("dialog input").fill("Fruit")
    await page.keyboard.press("Enter")
    await expect(names).to_have_text(["Pears", "Fruit"])
    await expect(page.locator("#title")).to_have_text("Fruit")

    await page.get_by_role("button", name="Delete “Fruit”").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await expect(names).to_have_count(2)
    await page.get_by_role("button", name="Delete “Fruit”").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(names).to_have_text(["Pears"])
    await expect(page.locator("#welcome")).to_be_visible()
    await page.reload()
    await expect(names).to_have_text(["Pears"])


async def test_earlier_messages_are_loaded_on_demand(serve: Serve, browse: Browse) -> None:
    service = await serve(STREAM_DELAY="0")
    page = await browse(service.url)
    await send(page, "number 0")
    await verified(page)
    for number in range(1, 60):
        await service.ended(await service.begin(f"number {number}", session_id=session_of(page)))
    await page.reload()
    await expect(said(page)).to_have_text("number 59")
    await expect(page.locator(".answer")).to_have_count(50)
    await page.get_by_role("button", name="Show earlier messages").click()
    await expect(page.locator(".answer")).to_have_count(60)
    await expect(said(page, 0)).to_have_text("number 0")


async def test_a_reader_who_scrolled_up_is_left_alone(serve: Serve, browse: Browse) -> None:
    gate = asyncio.Event()
    lines = "\n\n".join(f"line {number}" for number in range(80))
    async with Upstream(held(gate, lines, "\n\nthe end")) as upstream:
        page = await browse((await modelled(serve, upstream)).url)
        box = page.locator("#scroll")
        below = "box => Math.round(box.scrollHeight - box.scrollTop - box.clientHeight)"
        await send(page, "Many lines")
        await expect(said(page)).to_contain_text("line 79")
        assert await box.evaluate(below) <= 1
        await box.hover()
        await page.mouse.wheel(0, -400)
        await expect(page.get_by_role("button", name="Go to the end")).to_be_visible()
        gate.set()
        await verified(page)
        assert await box.evaluate(below) > 300
        await page.get_by_role("button", name="Go to the end").click()
        assert await box.evaluate(below) <= 1


async def test_plain_http_to_another_machine_works_without_the_proof(service: Service, browse: Browse) -> None:
    missing = """
        Object.defineProperty(crypto, 'subtle', { value: undefined });
        Object.defineProperty(crypto, 'randomUUID', { value: undefined });
        Object.defineProperty(navigator, 'clipboard', { value: undefined });
    """
    page = await browse(service.url, script=missing)
    await send(page, "```\nHello\n```")
    await expect(answer(page)).to_have_attribute("data-status", "completed")
    await expect(answer(page).locator(".verified")).to_have_count(0)
    await page.get_by_role("button", name="Copy this code").click()
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()


async def test_dark_and_light_follow_the_system_until_chosen(service: Service, browse: Browse) -> None:
    page = await browse(service.url, color_scheme="dark")
    theme = page.locator("html")
    await expect(theme).to_have_attribute("data-theme", "dark")
    dark = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    await page.locator("#theme").click()
    await expect(theme).to_have_attribute("data-theme", "light")
    await page.reload()
    await expect(theme).to_have_attribute("data-theme", "light")
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


async def test_a_phone_has_a_drawer_and_no_sideways_scrolling(serve: Serve, browse: Browse) -> None:
    service = await serve(STREAM_DELAY="0")
    page = await browse(service.url, viewport=PHONE, is_mobile=True, has_touch=True, device_scale_factor=2)
    await expect(page.locator("#side")).not_to_be_visible()
    wide = "| " + " | ".join(f"column{number}" for number in range(20)) + " |\n" + "|-" * 20 + "|"
    await send(page, f"{wide}\n\n```\n{'code ' * 60}\n```\n\n{'w' * 300}")
    await verified(page)
    assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert await page.locator("#scroll").evaluate("box => box.scrollWidth <= box.clientWidth")
    await page.get_by_role("button", name="Conversations").tap()
    await expect(page.locator("#side")).to_be_visible()
    await page.get_by_role("button", name="New conversation", exact=True).tap()
    await expect(page.locator("#side")).not_to_be_visible()
    await expect(page.locator("#welcome")).to_be_visible()
