"""What readers do on pages, and the services behind these."""

import asyncio
import re

from playwright.async_api import Page

from tests.live.checks import until
from tests.live.conftest import Serve
from tests.live.service import Service
from tests.upstream import Reply, Upstream, chunk, done, finish, reply

EVENTS = re.compile(r"/runs/\w+/events")


async def send(page: Page, text: str) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


async def modelled(serve: Serve, upstream: Upstream, **settings: str) -> Service:
    """A service whose model is the scripted upstream."""
    model = {"BASE_URL": upstream.base_url, "MODEL_NAME": "scripted", "OPENAI_API_KEY": "a-key-for-tests"}
    return await serve(**model | settings)


async def accepted(service: Service, text: str) -> None:
    """Wait until the service has this message, whoever knows of it."""
    await until(lambda: (text,) in service.rows("SELECT content FROM messages WHERE role = 'user'"))


def held(gate: asyncio.Event, before: str, after: str) -> Reply:
    """An answer that stops in the middle until the gate is opened."""
    return reply(chunk(before), gate, chunk(after), finish(), done())
