"""What a reader sees on the playground."""

from playwright.async_api import Locator, Page, ViewportSize, expect

from tests.live.service import Service

DESKTOP: ViewportSize = {"width": 1280, "height": 860}
PHONE: ViewportSize = {"width": 390, "height": 844}

WORDS = " ".join(f"word{number}" for number in range(60))


def answer(page: Page, number: int = -1) -> Locator:
    return page.locator(".answer").nth(number)


def said(page: Page, number: int = -1) -> Locator:
    """The text of an answer."""
    return answer(page, number).locator(".prose")


async def verified(page: Page) -> None:
    """The last answer is complete, and its text has the SHA-256 that the service stored."""
    await expect(answer(page).locator(".verified")).to_be_visible()


def session_of(page: Page) -> str:
    return page.url.partition("#")[2]


async def stored(service: Service, page: Page) -> list[tuple[str, str, str]]:
    """Role, content and status of all messages of the session that the page shows."""
    response = await service.client.get(f"/sessions/{session_of(page)}/messages")
    return [(message["role"], message["content"], message["status"]) for message in response.json()["messages"]]
