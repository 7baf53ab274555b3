"""Documents are taken apart in a process of their own, beside the one that streams answers."""

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from chat.documents import Chunk
from chat.errors import ChatError
from knowledge.chunks import PARSERS

SECONDS = 20.0
"""For one document. A megabyte of HTML, the slowest kind, takes one or two."""

AT_ONCE = 2
"""Processes at a time: a document takes a processor for itself. Further ones wait."""

_ROOT = Path(__file__).resolve().parent.parent

logger = logging.getLogger(__name__)


class Reader:
    """:class:`chat.ports.DocumentReader`. ``seconds``: how long a document may take."""

    media_types: Sequence[str] = tuple(PARSERS)

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def chunks(self, data: bytes, media_type: str) -> Sequence[Chunk]:
        async with self._turns:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "knowledge.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # a traceback may show what the document says
                cwd=_ROOT,
            )
            try:
                async with asyncio.timeout(self._seconds):
                    said, _ = await process.communicate(f"{media_type}\n".encode() + data)
            except TimeoutError:
                message = "The document took too long to take apart: it is damaged, or made to."
                raise ChatError("document_unreadable", message) from None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode:
            logger.error("a document could not be taken apart: status %s", process.returncode)
            raise ChatError("document_unreadable", "The document could not be taken apart.")
        answer = json.loads(said)
        if "code" in answer:
            raise ChatError(answer["code"], answer["message"])
        return [Chunk(place, text) for place, text in answer["chunks"]]
