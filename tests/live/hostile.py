"""Texts that want whoever shows them to run code or to fetch something, and an eye on whether that happens.

``RUN`` in a text stands for code, ``NET`` for the address of another origin. Texts that leave something open come last
where several are put together, since they may hide what is behind them.
"""

import asyncio
import json
import re
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from playwright.async_api import Frame, Page, Request

from tests.listener import Listener
from tests.upstream import Reply, chunk, done, finish, reply, sse, thought

_FILE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "hostile_texts.json").read_text())

MARKUP = r"""(places) => {
    const tags = new Set(('A ARTICLE B BLOCKQUOTE BR BUTTON CODE DEL DETAILS DIV EM H2 H3 H4 H5 H6 HR LI OL P PRE ' +
        'SECTION SPAN STRONG SUMMARY svg TABLE TBODY TD TH THEAD TR UL use').split(' '));
    const members = new RegExp('^(aria-[a-z]+|class|data-(action|call|id|level|said|status|to)|dir|disabled|hidden|' +
        'href|open|rel|role|start|tabindex|target|title|type)$');
    const links = new Set(['http:', 'https:', 'mailto:']);
    const wrong = [];
    for (const place of document.querySelectorAll(places)) {
        for (const part of place.querySelectorAll('*')) {
            let right = tags.has(part.tagName) && [...part.attributes].every(({ name }) => members.test(name));
            if (part.tagName === 'A' && !part.closest('#sessions')) {
                right &&= links.has(part.protocol) && part.target === '_blank';
                right &&= part.rel === 'noopener noreferrer nofollow';
            }
            if (!right) wrong.push(part.outerHTML);
        }
    }
    return wrong;
}"""
"""All that is in these places of the page and should not be there, be it harmless or not."""


def hostile(net: str) -> list[str]:
    """The texts that are whole, as strangers write them. ``net``: an origin that nobody should ask."""
    return [_aimed(text, net) for texts in _FILE["whole"].values() for text in texts]


def unclosed(net: str) -> list[str]:
    """Those that leave something open."""
    return [_aimed(text, net) for text in _FILE["unclosed"]]


def _aimed(text: str, net: str) -> str:
    return text.replace("RUN", "owned(1)").replace("NET", net)


def spoken(texts: list[str]) -> Reply:
    """An answer of them, with reasoning that says so, and with calls and sources that are called so.

    The tools are those of ``tests.live.parrot_tool``, and some that are not there.
    """
    everything = "\n\n".join(texts)
    pieces = [chunk(everything[at : at + 50]) for at in range(0, len(everything), 50)]
    pages = [{"url": f"https://a.example/{at}", "title": text, "snippet": text} for at, text in enumerate(texts)]
    pages += [{"url": text, "title": text} for text in texts]
    sources = [sse({"search_results": pages[at : at + 20], "choices": []}) for at in range(0, len(pages), 20)]
    calling = parrot_calls(everything, texts[::20])
    return reply(thought(everything), *sources, *pieces, calling, finish("tool_calls"), done())


def parrot_calls(text: str, names: Sequence[str]) -> bytes:
    """The event that calls both tools of ``tests.live.parrot_tool`` with a text, and some of these names."""
    calls: list[tuple[str, object]] = [(name, {"text": text}) for name in ("parrot", "complain")]
    calls += [(name, name) for name in names]
    called = [
        {"index": number, "id": f"{name} {number}", "function": {"name": name, "arguments": json.dumps(given)}}
        for number, (name, given) in enumerate(calls)
    ]
    return sse({"choices": [{"index": 0, "delta": {"tool_calls": called}}]})


class Elsewhere(Listener):
    """Another origin. Every request for something is kept, and answered with this page."""

    def __init__(self, page: str = "") -> None:
        super().__init__()
        self.page = page
        self.asked: list[str] = []

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = b"Content-Type: text/html; charset=utf-8\r\nConnection: close\r\n\r\n"
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):  # browsers connect to be prepared
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head.split(b" ")[1].decode())
            writer.write(b"HTTP/1.1 200 OK\r\n" + kind + self.page.encode())
            await writer.drain()


class Eye:
    """Sees what is run, asked for, opened and gone to. ``ours``: the addresses that may be asked."""

    def __init__(self, ours: str) -> None:
        self.seen: list[str] = []
        self._ours = re.compile(rf"{ours}|data:image/svg\+xml,%3Csvg xmlns=.*")  # the page's icon

    async def on(self, page: Page) -> None:
        """Before the page is opened."""
        await page.expose_function("owned", lambda *_: self.seen.append("run"))
        page.on("dialog", lambda dialog: self.seen.append(f"dialog: {dialog.message}"))
        page.on("popup", lambda popup: self.seen.append(f"opened: {popup.url}"))
        page.on("download", lambda download: self.seen.append(f"download: {download.url}"))
        page.on("frameattached", lambda frame: self.seen.append("frame"))
        page.on("framenavigated", self._gone)
        page.context.on("request", self._asked)

    def _asked(self, request: Request) -> None:
        if not self._ours.fullmatch(request.url):
            self.seen.append(f"request: {request.url}")

    def _gone(self, frame: Frame) -> None:
        if not self._ours.fullmatch(frame.url):
            self.seen.append(f"gone to: {frame.url}")


LATER = "(url) => { requestAnimationFrame(() => setTimeout(() => fetch(url).catch(() => {}), 100)); }"


async def looked(page: Page, ours: str) -> None:
    """Return when the browser has asked for what it had to until now: this request stands behind all others."""
    async with page.expect_request(ours):
        await page.evaluate(LATER, ours)
