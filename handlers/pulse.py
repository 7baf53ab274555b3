"""One clock for all open streams: it keeps the quiet ones open and drops the readers that stall."""

import asyncio
from typing import Protocol

LONGEST_BEAT = 1.0
"""Seconds between two looks at all streams, at most."""

GRACE = 1.0
"""Seconds that a stream gets when the server stops: a reader that stalls does not hold it."""


class Stream(Protocol):
    """``since``, of the loop's clock: when its last send began. ``sending``: it has not ended yet."""

    since: float
    sending: bool

    def ping(self) -> None:
        """Send something that no client sees."""
        ...

    def drop(self) -> None:
        """Give the reader up."""
        ...


class Pulse:
    """Pings streams that were quiet for ``ping`` seconds; drops those that are stuck in a send for ``patience``.

    A timer for each stream, as sse-starlette has it, costs 10,000 waiting streams five times as much, and a cancel
    scope around each send as much as the send itself.
    """

    def __init__(self, ping: float, patience: float) -> None:
        self._ping = ping
        self.patience = patience
        self._pause = min(ping / 4, patience / 4, LONGEST_BEAT)
        self._streams: set[Stream] = set()
        self._next: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def add(self, stream: Stream) -> None:
        self._streams.add(stream)
        if self._next is None:
            self._next = asyncio.get_running_loop().call_later(self._pause, self._beat)

    def remove(self, stream: Stream) -> None:
        self._streams.discard(stream)
        if not self._streams and self._next is not None:
            self._next.cancel()
            self._next = None

    def stop(self) -> None:
        """The server stops, and the engine has ended all streams: drop those that do not come to their end."""
        asyncio.get_running_loop().call_later(GRACE, self._drop_all)

    def _drop_all(self) -> None:
        for stream in self._streams:
            stream.drop()

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        self._next = loop.call_later(self._pause, self._beat)  # first: one stream's mistake does not stop the clock
        now = loop.time()
        for stream in self._streams:
            past = now - stream.since
            if stream.sending:
                if past >= self.patience:
                    stream.drop()
            elif past >= self._ping:
                stream.ping()
