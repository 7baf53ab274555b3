"""What a reader does on the playground and sees there, and the network that it is reached by."""

import asyncio
import re

from playwright.async_api import Locator, Page, ViewportSize, expect

from tests.listener import Listener
from tests.live.conftest import Serve
from tests.live.service import Service
from tests.upstream import Reply, Upstream, chunk, done, finish, reply

DESKTOP: ViewportSize = {"width": 1280, "height": 860}
PHONE: ViewportSize = {"width": 390, "height": 844}

EVENTS = re.compile(r"/runs/\w+/events")
WORDS = " ".join(f"word{number}" for number in range(60))


class Wire(Listener):
    """The network between a browser and a service: a TCP proxy that can be cut and mended.

    ``deaf``: what the service says does not arrive, what it is told does. ``accepted`` is set when that was a 202.
    """

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.deaf = False
        self.accepted = asyncio.Event()
        self._port = service.port
        self._whole = True
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        self._whole = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._whole, self.deaf = True, False

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            return writer.transport.abort()
        self._writers.add(writer)
        try:
            there, here = await asyncio.open_connection("127.0.0.1", self._port)
            self._writers.add(here)
            await asyncio.gather(self._pump(reader, here), self._pump(there, writer, back=True))
            self._writers.remove(here)
        except ConnectionError:
            writer.transport.abort()
        finally:
            self._writers.remove(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool = False) -> None:
        try:
            while data := await reader.read(65_536):
                if back and self.deaf:
                    if data.startswith(b"HTTP/1.1 202 "):
                        self.accepted.set()
                else:
                    writer.write(data)
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


async def modelled(serve: Serve, upstream: Upstream, **settings: str) -> Service:
    """A service whose model is the scripted upstream."""
    model = {"BASE_URL": upstream.base_url, "MODEL_NAME": "scripted", "OPENAI_API_KEY": "a-key-for-tests"}
    return await serve(**model | settings)


def held(gate: asyncio.Event, before: str, after: str) -> Reply:
    """An answer that stops in the middle until the gate is opened."""
    return reply(chunk(before), gate, chunk(after), finish(), done())


async def send(page: Page, text: str) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


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
