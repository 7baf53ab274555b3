"""MCP servers in processes of their own, and those who talk to them."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from chat.steps import Call
from chat.tools import Toolbox
from mcp_tools.config import load_servers
from mcp_tools.servers import Servers
from tests.ledger import running
from tests.patience import PATIENCE
from tests.scripted import UnsteadyStore

ROOT = Path(__file__).parents[2]

MCP_PATIENCE = 2 * PATIENCE
"""A server has to import the package, and these tests share their machine."""

Condition: TypeAlias = Callable[[], bool | Awaitable[bool]]


def on_stdio(folder: Path, **more: object) -> dict[str, object]:
    """The entry of a server that is made with the official package."""
    return {"command": sys.executable, "args": ["-m", "tests.mcp_tools.server", str(folder)], "cwd": str(ROOT)} | more


def raw(folder: Path, kind: str, **more: object) -> dict[str, object]:
    """The entry of one that misbehaves."""
    arguments = ["-m", "tests.mcp_tools.raw_server", str(folder), kind]
    return {"command": sys.executable, "args": arguments, "cwd": str(ROOT)} | more


class HttpServer:
    """The same server by streamable HTTP; it keeps its port over restarts."""

    def __init__(self, folder: Path, port: int) -> None:
        self._command = [sys.executable, "-m", "tests.mcp_tools.server", str(folder), str(port)]
        self.entry: dict[str, object] = {"url": f"http://127.0.0.1:{port}/mcp"}
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        null = asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(*self._command, cwd=ROOT, stdout=null, stderr=null)

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def connected(folder: Path, *, taken: tuple[str, ...] = (), **entries: object) -> AsyncIterator[Toolbox]:
    """The tools of these servers while they are connected."""
    file = folder / "mcp.json"
    file.write_text(json.dumps({"mcpServers": entries}))
    servers = Servers(load_servers(file, {}), taken=taken, version="test")
    async with servers.running():
        yield Toolbox(source=servers)


async def called(box: Toolbox, name: str, arguments: str = "{}") -> Call:
    async with asyncio.timeout(MCP_PATIENCE):
        return await box.answer(Call("call_1", name, arguments), running(), UnsteadyStore(Path("nowhere")))


async def until(condition: Condition) -> None:
    """Looks again and again: another process can set no event here."""
    async with asyncio.timeout(MCP_PATIENCE):
        while not (await met if isinstance(met := condition(), Awaitable) else met):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def offers(box: Toolbox, name: str) -> Callable[[], bool]:
    return lambda: name in [spec.name for spec in box.specs]


def answers(box: Toolbox, name: str) -> Callable[[], Awaitable[bool]]:
    async def answered() -> bool:
        return (await called(box, name)).result is not None

    return answered


def notes(folder: Path) -> list[str]:
    """What the server has written down."""
    file = folder / "notes"
    return file.read_text().splitlines() if file.exists() else []


def noted(folder: Path, text: str) -> Callable[[], bool]:
    return lambda: text in notes(folder)


def pids(folder: Path) -> list[int]:
    """Of all servers that were started, in their order."""
    return [int(note.removeprefix("pid ")) for note in notes(folder) if note.startswith("pid ")]


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
