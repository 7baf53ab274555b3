"""Programs of other people: where they are, and servers among them while they run."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn, TypeAlias

import httpx
import pytest

ROOT = Path(__file__).parents[1]

START = 60.0
"""Seconds that a server may take to answer for the first time: one is built first, one imports for a while."""

Ready: TypeAlias = Callable[[], Awaitable[bool]]


def unavailable(what: str) -> NoReturn:
    """CI has every program, so there a missing one is a failure; elsewhere it is a skip that says what to do."""
    if os.environ.get("PARLEY_REQUIRE_SERVICES") == "1":
        pytest.fail(what)
    pytest.skip(what)


def program(name: str) -> str:
    """Where it is; Debian keeps some where only administrators look."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    return found if found is not None else unavailable(f"{name} is not installed")


def node_with(*packages: str) -> str:
    """Node, where these packages of npm's are at hand."""
    for package in packages:
        if not (ROOT / "node_modules" / package).exists():
            unavailable(f"the npm package {package} is not installed: npm ci")
    return program("node")


@asynccontextmanager
async def running(
    command: Sequence[str | Path], folder: Path, ready: Ready, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A server that lives in ``folder``, from when it is ready to the end of the block; what it says is kept there."""
    log = folder / f"{Path(command[0]).name}.log"
    inherited = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env={**inherited, **environment},
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        async with asyncio.timeout(START):
            while not await ready():
                if process.returncode is not None:
                    pytest.fail(f"{command[0]} ended:\n{log.read_text(errors='replace')[-4000:]}")
                await asyncio.sleep(0.02)
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # a proxy that is asked to end waits for its streams
        await process.wait()


def accepting(*ports: int) -> Ready:
    """Ready when each of them takes connections."""

    async def ready() -> bool:
        for port in ports:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.close()
            await writer.wait_closed()
        return True

    return ready


def answering(url: str) -> Ready:
    """Ready when this can be got."""

    async def ready() -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False, verify=False) as client:  # certificates take long to load
                return (await client.get(url)).is_success
        except httpx.TransportError:
            return False

    return ready
