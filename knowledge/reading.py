"""Documents are taken apart in a process of their own, beside the one that streams answers."""

import asyncio
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from chat.documents import Chunk
from chat.errors import ChatError
from knowledge.chunks import MEDIA_TYPES

SECONDS = 60.0
"""For one document: its process has :data:`knowledge.worker.CPU_SECONDS`, and may have to wait for its processor."""

AT_ONCE = 2
"""Processes at a time: a document takes a processor for itself. Further ones wait."""

ANSWER_BYTES = 100_000_000
"""Of the passages of a document with their places: some twenty thousand, which is as many as there may be."""

LINE_BYTES = 1 << 16
"""A passage and its place have 10,000 at most."""

LINES = 100
"""Passages that are read before others have their turn: a millisecond."""

INHERITED = ("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "SYSTEMROOT")
"""All of our environment that it gets: what an interpreter may need to start. The service's keys are there, too."""

ENDED_FROM_OUTSIDE = [
    getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGKILL", "SIGTERM") if hasattr(signal, name)
]
"""Signals that say nothing of the document: the machine is short of memory, or shuts down."""

_ROOT = Path(__file__).resolve().parent.parent

logger = logging.getLogger(__name__)


class Reader:
    """:class:`chat.documents.DocumentReader`. ``seconds``: how long a document may take."""

    media_types: Sequence[str] = MEDIA_TYPES

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def chunks(self, data: bytes, media_type: str) -> Sequence[Chunk]:
        async with self._turns, _worker() as process:
            try:
                async with asyncio.timeout(self._seconds):
                    chunks = await _answer(process, f"{media_type}\n".encode(), data)
                    status = await process.wait()
            except TimeoutError:
                raise _too_long() from None
        if sys.platform != "win32" and status == -signal.SIGXCPU:
            raise _too_long()
        if -status in ENDED_FROM_OUTSIDE:
            logger.warning("what took a document apart was ended by signal %s", -status)
            raise _not_now()
        if status:
            logger.error("a document could not be taken apart: status %s", status)
            raise _not_taken_apart()
        return chunks


@asynccontextmanager
async def _worker() -> AsyncIterator[Process]:
    """Start one; on the way out nothing of it stays behind."""
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "knowledge.worker",
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,  # a traceback may show what the document says
            cwd=_ROOT,
            env={name: os.environ[name] for name in INHERITED if name in os.environ},
            start_new_session=True,  # Ctrl-C is for us; and the whole group can be ended
            limit=LINE_BYTES,
        )
    except OSError as error:  # no process, memory or descriptor is left
        logger.warning("no process for a document: %s", error)
        raise _not_now() from error
    try:
        yield process
    finally:
        if process.returncode is None:
            _kill(process)
            await process.wait()


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


async def _answer(process: Process, head: bytes, data: bytes) -> list[Chunk]:
    """What it says to this document.

    Raises:
        ChatError: it refuses it, has more to say than is listened to, or was ended in the middle of a line.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError, ConnectionResetError):  # it has ended: its status says why
        process.stdin.write(head)
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()
    chunks: list[Chunk] = []
    size = 0
    async for line in process.stdout:
        size += len(line)
        if size > ANSWER_BYTES:
            raise ChatError("document_too_large", f"The document's passages have more than {ANSWER_BYTES:,} bytes.")
        try:
            said = json.loads(line)
        except ValueError:  # it was ended while it wrote this
            logger.error("a document could not be taken apart: what was said of it is no JSON")
            raise _not_taken_apart() from None
        if isinstance(said, dict):
            raise ChatError(said["code"], said["message"])
        chunks.append(Chunk(*said))
        if not len(chunks) % LINES:
            await asyncio.sleep(0)  # what is there already is read without a pause
    return chunks


def _not_now() -> ChatError:
    return ChatError("service_full", "The document cannot be taken apart now; ask again in a moment.", retry_after=2.0)


def _not_taken_apart() -> ChatError:
    return ChatError("document_unreadable", "The document could not be taken apart.")


def _too_long() -> ChatError:
    return ChatError(
        "document_unreadable", "The document took too long to take apart: it is very large, damaged, or made to."
    )
