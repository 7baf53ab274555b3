"""A server that is a process of our own, and speaks JSON-RPC on its stdin and stdout.

Not the package's transport: that one keeps a line that never ends, and looks at all of it again with each piece of it.
"""

import asyncio
import logging
import os
import signal
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from mcp_tools.config import ServerConfig

LONGEST_MESSAGE = 4 * 1024 * 1024
"""Bytes of one message of a server. One that sends more is taken as broken."""

LONGEST_NOTE = 1000
"""Characters of a line on stderr that are logged."""

LAST_WORDS = 0.5
"""Seconds for what was sent to reach the server before its stdin is closed."""

EXIT_SECONDS = 2.0
"""What a server gets to end by itself when its stdin is closed, and again after SIGTERM."""

logger = logging.getLogger(__name__)


@asynccontextmanager
async def started(server: ServerConfig, lost: Callable[[], None]) -> AsyncIterator[TransportStreams]:
    """Start it, and talk to it; ``lost`` is called when that is over. On the way out nothing of it stays behind.

    Of our environment it gets what the package takes for safe, no key of ours, and what its config says.

    Raises:
        OSError: it cannot be started.
    """
    assert server.command is not None
    loop = asyncio.get_running_loop()
    # As asyncio.create_subprocess_exec() does, which keeps the transport to itself: pipes with something left to read
    # close only with it.
    transport, protocol = await loop.subprocess_exec(
        lambda: SubprocessStreamProtocol(LONGEST_MESSAGE, loop),
        server.command,
        *server.args,
        env={**get_default_environment(), **server.env},
        cwd=server.cwd,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,  # Ctrl-C is for us, who drain first; and the whole group can be ended
    )
    process = Process(transport, protocol, loop)
    heard, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, said = anyio.create_memory_object_stream[SessionMessage](0)
    trusted = asyncio.Event()
    writing = asyncio.create_task(_write(process, said, lost, trusted))
    reading = asyncio.create_task(_read(server.name, process, heard, lost))
    noting = asyncio.create_task(_note(server.name, process, trusted))
    try:
        yield read, write
    finally:
        write.close()
        await _to_the_end(_end(process, writing))
        transport.close()
        tasks = (writing, reading, noting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in (heard, read, said):
            stream.close()


async def _read(
    name: str,
    process: Process,
    heard: MemoryObjectSendStream[SessionMessage | Exception],
    lost: Callable[[], None],
) -> None:
    assert process.stdout is not None
    try:
        with suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, anyio.BrokenResourceError):
            while True:
                line = await process.stdout.readuntil()
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:  # many print a greeting
                    logger.debug("an MCP server wrote what is no message", extra={"server": name})
                    await asyncio.sleep(0)
                else:
                    await heard.send(SessionMessage(message))
    finally:
        lost()
        heard.close()


async def _write(
    process: Process, said: MemoryObjectReceiveStream[SessionMessage], lost: Callable[[], None], trusted: asyncio.Event
) -> None:
    assert process.stdin is not None
    try:
        with suppress(OSError), said:
            async for message in said:
                if getattr(message.message, "method", "") == "tools/call":
                    trusted.set()
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()
    finally:
        lost()


async def _note(name: str, process: Process, trusted: asyncio.Event) -> None:
    """Its stderr, for those who look closely why it does not start.

    From the first call on, with which it is ``trusted`` with what people say, it may repeat that: it is only counted.
    """
    assert process.stderr is not None
    while part := await process.stderr.read(LONGEST_MESSAGE):
        lines = part.decode(errors="replace").splitlines()
        if trusted.is_set():
            logger.debug("an MCP server's stderr", extra={"server": name, "lines": len(lines)})
            continue
        for line in lines:
            logger.debug("an MCP server's stderr", extra={"server": name, "line": line[:LONGEST_NOTE]})


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for it, whoever cancels meanwhile: a timeout may be followed by a shutdown."""
    task, cancelled = asyncio.create_task(work), False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


async def _end(process: Process, writing: asyncio.Task[None]) -> None:
    """Close its stdin, wait, SIGTERM, wait, SIGKILL; the last to its whole group, and always.

    https://modelcontextprotocol.io/specification/2025-11-25/basic/lifecycle#shutdown
    """
    assert process.stdin is not None
    await asyncio.wait({writing}, timeout=LAST_WORDS)
    process.stdin.close()
    if not await _gone(process):
        _signal(process, signal.SIGTERM)
        await _gone(process)
    _signal(process, signal.SIGKILL)
    await _gone(process)


async def _gone(process: Process) -> bool:
    """Whether it ends in time, looking again and again: ``wait()`` also waits for who else has its pipes."""
    with suppress(TimeoutError):
        async with asyncio.timeout(EXIT_SECONDS):
            while process.returncode is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    return process.returncode is not None


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of dead processes
        os.killpg(process.pid, number)
