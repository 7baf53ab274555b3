"""The clients of the page on clients and of the README, driven by the lines that stand there."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.live.service import PATIENCE, ROOT
from tests.programs import node_with

PACKAGES = {
    "fetch": "",
    "eventsource-client": "eventsource-client",
    "fetch-event-stream": "fetch-event-stream",
    "@microsoft/fetch-event-source": "@microsoft/fetch-event-source",
}
"""Clients of JavaScript, and where npm puts them."""

CLIENTS = (*PACKAGES, "httpx", "httpx-sse", "requests")

_WINDOW = """
globalThis.window = globalThis
globalThis.document = Object.assign(new EventTarget(), { hidden: false })
"""
"""What @microsoft/fetch-event-source needs of a browser."""


def recipe(client: str) -> str:
    """The client's lines, as they stand on their page."""
    if client == "fetch":
        [found] = blocks("README.md", "js")
        return found
    if client in PACKAGES:
        [found] = [block for block in blocks("docs/clients.md", "js") if f'from "{client}"' in block]
        return found
    if client == "httpx-sse":
        return next(block for block in blocks("docs/clients.md", "python") if "httpx_sse" in block)
    if client == "httpx":
        return next(block for block in blocks("docs/clients.md", "python") if "iter_text" in block)
    found, ask = [block for block in blocks("docs/clients.md", "python") if "requests" in block]
    return f"{found}\n\n{ask}"


def blocks(page: str, language: str) -> list[str]:
    """The page's blocks of code in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


class Following:
    """What a process that follows a recipe has told so far: a list of events for each URL."""

    def __init__(self, process: asyncio.subprocess.Process, count: int) -> None:
        self.told: list[list[dict[str, Any]]] = [[] for _ in range(count)]
        self._process = process
        self._changed = asyncio.Condition()

    async def listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            place, event = json.loads(line)
            async with self._changed:
                self.told[place].append(event)
                self._changed.notify_all()

    async def until(self, holds: Callable[[list[list[dict[str, Any]]]], bool]) -> None:
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: holds(self.told))

    async def end(self) -> list[list[dict[str, Any]]]:
        """Wait until the process has ended by itself; what it has told."""
        async with asyncio.timeout(PATIENCE * 3):
            assert await self._process.wait() == 0
        return self.told


@asynccontextmanager
async def following(
    client: str, *urls: str, message: str = "Hi", stop: bool = False, lines: str | None = None
) -> AsyncIterator[Following]:
    """A process in which the recipe's ``chat`` (or these lines') talks to each of the URLs at once."""
    given = json.dumps({"urls": urls, "message": message, "stop": stop})
    process = await asyncio.create_subprocess_exec(
        *_command(client, lines or recipe(client)), given, cwd=ROOT, stdout=asyncio.subprocess.PIPE, limit=2**22
    )
    followed = Following(process, len(urls))
    listening = asyncio.create_task(followed.listen())
    try:
        yield followed
        await listening
    finally:
        listening.cancel()
        if process.returncode is None:
            process.kill()
        await process.wait()
        await asyncio.gather(listening, return_exceptions=True)


def _command(client: str, lines: str) -> list[str]:
    if client not in PACKAGES:
        return [sys.executable, "-c", lines + Path(__file__).with_name("follow.py").read_text()]
    node = node_with(PACKAGES[client])
    follow = Path(__file__).with_name("follow.mjs").read_text()
    return [node, "--input-type=module", "-e", _WINDOW * ("fetchEventSource" in lines) + lines + follow, "--"]
