"""Chats of the AI SDK, each as a page would have it, in a process of Node's."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from tests.live.conftest import Serve
from tests.live.service import PATIENCE, ROOT, Service
from tests.programs import unavailable
from tests.upstream import Reply, Upstream

VERSIONS = ("6", "7")

SCRIPT = Path(__file__).with_suffix(".mjs")
NODE = ROOT / "node_modules/.bin/node"
"""From npm: version 7 of the SDK needs a newer one than the machine may have."""


class Chat:
    """A chat as its page sees it."""

    def __init__(self, browser: "Browser", name: str) -> None:
        self.messages: list[Any] = []
        self.status = "ready"
        self.error: str | None = None
        self.finished: list[Any] = []
        self.changes = 0
        """How often it has told of itself unasked."""
        self._browser = browser
        self._name = name
        self._changed = asyncio.Condition()

    async def __call__(self, command: str, **arguments: object) -> None:
        """Do it, and wait until the SDK says that it is done."""
        async with asyncio.timeout(PATIENCE * 2):
            await self._browser.do(command, self._name, **arguments)

    async def send(self, text: str, **arguments: object) -> None:
        await self("send", text=text, **arguments)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(holds)

    async def take(self, told: dict[str, Any]) -> None:
        async with self._changed:
            self.messages = told.get("messages", self.messages)
            self.status, self.error = told.get("status", self.status), told.get("error", self.error)
            self.changes += "number" not in told
            self.finished += [told["finished"]] if "finished" in told else []
            self._changed.notify_all()

    @property
    def parts(self) -> list[Any]:
        """Those of the last message, if it is an answer."""
        last = self.messages[-1] if self.messages else {"role": "user"}
        return list(last["parts"]) if last["role"] == "assistant" else []

    @property
    def text(self) -> str:
        return "".join([part["text"] for part in self.parts if part["type"] == "text"])

    @property
    def kinds(self) -> list[str]:
        return [part["type"] for part in self.parts]

    def part(self, kind: str) -> Any:
        [part] = [part for part in self.parts if part["type"] == kind]
        return part


class Browser:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._chats: dict[str, Chat] = {}
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._number = 0

    async def chat(self, api: str, session_id: str, **options: object) -> Chat:
        """Open a chat. ``last``: it sends its last message alone; ``outputs``: what its own tools answer at once;
        ``query``: what all of its URLs end with.
        """
        name = str(len(self._chats))
        self._chats[name] = Chat(self, name)
        await self.do("open", name, api=f"{api}/api/chat", id=session_id, **options)
        return self._chats[name]

    async def do(self, command: str, chat: str, **arguments: object) -> None:
        self._number += 1
        done = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        line = json.dumps({"number": self._number, "command": command, "chat": chat, **arguments})
        self._process.stdin.write(line.encode() + b"\n")
        await done

    async def listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            told = json.loads(line)
            await self._chats[told["chat"]].take(told)
            if "number" in told:
                self._waiting.pop(told["number"]).set_result(None)
        for waiting in self._waiting.values():
            waiting.set_exception(RuntimeError("Node has ended"))


@asynccontextmanager
async def browsing(version: str) -> AsyncIterator[Browser]:
    """A process with the SDK of this version."""
    if not NODE.exists() or not (ROOT / f"node_modules/ai{version}").exists():
        unavailable(f"Node and the AI SDK are not installed from npm: npm ci (ai{version})")
    process = await asyncio.create_subprocess_exec(
        NODE, SCRIPT, f"ai{version}", cwd=ROOT, limit=2**24,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    browser = Browser(process)
    listening = asyncio.create_task(browser.listen())
    try:
        yield browser
    finally:
        listening.cancel()
        process.kill()
        await process.wait()
        await asyncio.gather(listening, return_exceptions=True)


LOOK = {"look": {"description": "Looks at a city's sky.", "inputSchema": {"type": "object", "properties": {}}}}

Talk: TypeAlias = tuple[Browser, Service, Upstream]


@asynccontextmanager
async def talking(version: str, serve: Serve, *replies: Reply, **settings: str) -> AsyncIterator[Talk]:
    async with Upstream(*replies) as upstream, browsing(version) as browser:
        service = await serve(BASE_URL=upstream.base_url, MODEL_NAME="scripted", MODEL_RETRIES="0", **settings)
        yield browser, service, upstream


def said(*turns: str) -> list[Any]:
    """User and assistant in turn, as the model is asked."""
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]


async def tree(service: Service, session_id: str) -> list[tuple[str, str | None]]:
    """What was said, and to what."""
    messages = (await service.client.get(f"/sessions/{session_id}/messages")).json()["messages"]
    content = {message["message_id"]: message["content"] for message in messages}
    return [(message["content"], content.get(message["parent_id"])) for message in messages]
