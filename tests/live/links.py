"""The network between two processes, as far as it can fail: a TCP proxy that cuts, or falls silent."""

import asyncio
from contextlib import suppress

from tests.listener import Listener

THERE, BACK = "to the target", "from the target"


class Link(Listener):
    """A port of its own in front of another one on loopback."""

    def __init__(self, target: int) -> None:
        super().__init__()
        self._target = target
        self._flowing = {THERE: asyncio.Event(), BACK: asyncio.Event()}
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self.heal()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def cut(self) -> None:
        """Reset every connection, and each new one, until it is healed."""
        self._refusing = True
        for writer in self._writers:
            writer.transport.abort()

    def silence(self, *directions: str) -> None:
        """Take everything and deliver nothing, in both directions if none is named, until it is healed.

        Neither side is told. Then it arrives, as with TCP, late and whole.
        """
        for direction in directions or self._flowing:
            self._flowing[direction].clear()

    def heal(self) -> None:
        self._refusing = False
        for flowing in self._flowing.values():
            flowing.set()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            await self._flowing[THERE].wait()
            with suppress(OSError):
                there, back = await asyncio.open_connection("127.0.0.1", self._target)
                self._writers.add(back)
                try:
                    await asyncio.gather(self._pump(reader, back, THERE), self._pump(there, writer, BACK))
                finally:
                    self._writers.discard(back)
                    back.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        """Until one side closes; then the other is closed, and with it the other direction."""
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._flowing[direction].wait()
                writer.write(data)
                await writer.drain()
            await self._flowing[direction].wait()
        writer.close()
