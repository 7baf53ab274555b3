"""How long a request may take to arrive. uvicorn waits for its head and body without end.

``handlers.connections`` says who stands where; here is who is late.
"""

import asyncio
from typing import Protocol

MOST_WAITING = 1_000
"""Connections without a whole head. A client that means it has sent its own within a round trip."""

PLACE = "parley.door"
"""Where in the lifespan's state the connections find the :class:`Door`."""


class Waiting(Protocol):
    def late(self) -> None:
        """The time is over, or the place is taken."""
        ...


class Line:
    """Those who all have the same time: the first is always the next to be late, so that one timer serves all.

    ``most``: of them; one more takes the place of the first.
    """

    def __init__(self, seconds: float, most: int | None = None) -> None:
        self._seconds = seconds
        self._most = most
        self._since: dict[Waiting, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._since)

    def join(self, who: Waiting) -> None:
        loop = asyncio.get_running_loop()
        self._since[who] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)
        if self._most is not None and len(self._since) > self._most:
            self._send_away(next(iter(self._since)))

    def leave(self, who: Waiting) -> None:
        self._since.pop(who, None)

    def close(self) -> None:
        """Nobody is late any more."""
        self._since.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        due = loop.time() - self._seconds
        for who, since in list(self._since.items()):
            if since > due:
                self._timer = loop.call_at(since + self._seconds, self._look)
                return
            self._send_away(who)

    def _send_away(self, who: Waiting) -> None:
        del self._since[who]
        who.late()


class Door:
    """``head`` and ``body`` are seconds: for a request's head to arrive, and then for its body."""

    def __init__(self, head: float, body: float, most: int = MOST_WAITING) -> None:
        self.heads = Line(head, most)
        self.bodies = Line(body)

    def close(self) -> None:
        self.heads.close()
        self.bodies.close()
