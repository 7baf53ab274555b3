"""Faults to order, ``?chaos=drop@17,stall@5:3s``: who writes a client sees within a minute how it recovers.

In development only, with the setting ``CHAOS``. A stream for which none is ordered is what it always is.
"""

import asyncio
import logging
import os
import re
import signal
import time
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from chat.errors import ChatError
from chat.runs import Run
from handlers.errors import problem
from handlers.wire import Way, Wire, begun

PARAMETER = "chaos"

REMEMBERED = 1_000
"""Faults that have struck, the latest: far more runs than anybody tries out at once."""

FLUSH_PAUSE = 0.002
"""Seconds between two looks whether the kernel has taken everything: nobody tells us."""

_CHAOS = "parley.chaos"

_ORDER = re.compile(
    r"(?P<kind>drop|kill)@(?P<place>[1-9][0-9]{0,8})"
    r"|stall@(?P<behind>[1-9][0-9]{0,8}):(?P<time>[1-9][0-9]{0,8})(?P<unit>ms|s)"
)
_FORMS = "drop@17, kill@40, stall@5:3s, stall@5:500ms and dup, by commas"
_SECONDS: Mapping[str, float] = {"s": 1.0, "ms": 0.001}
_ID = re.compile(rb"^id: \S+\.([0-9]+)$", re.MULTILINE)

logger = logging.getLogger(__name__)


class Fault(NamedTuple):
    """What happens behind the frame whose id ends with ``place``. ``seconds`` are those of a ``stall``."""

    place: int
    kind: str
    seconds: float = 0


@dataclass(frozen=True, slots=True)
class Struck:
    """What this process remembers: which faults have struck which run, and since when it lives."""

    since: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    faults: deque[tuple[str, Fault]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def due(self, run: Run, fault: Fault) -> bool:
        """Each once in a run: who comes back to the same URL gets on, also one that has the run from its start again.

        A process that was killed has forgotten that; so none is killed for a run that is older than the process.
        """
        return (run.id, fault) not in self.faults and (fault.kind != "kill" or run.created_at >= self.since)


@dataclass(frozen=True, slots=True)
class Chaos:
    """What one request has ordered. ``twice``: every frame is sent again at once."""

    faults: Sequence[Fault]
    twice: bool
    struck: Struck

    def upon(self, wire: Wire, run: Run, after: int) -> Way:
        """The way to a client that has the frames up to ``after``."""
        due = sorted(fault for fault in self.faults if fault.place > after and self.struck.due(run, fault))
        return _RoughWay(wire, run.id, due, self)


class ChaosMiddleware:
    """Reads ``?chaos=`` of any request, and refuses it where it is not ``allowed`` or not understood.

    Before anything is stored or started. ``longest``: seconds that streams may stall.
    """

    def __init__(self, app: ASGIApp, *, allowed: bool, longest: float) -> None:
        self._app = app
        self._allowed = allowed
        self._longest = longest
        self._struck = Struck()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if b"chaos=" in scope.get("query_string", b""):
            try:
                scope[_CHAOS] = self._ordered(QueryParams(scope["query_string"]).getlist(PARAMETER))
            except ChatError as error:
                await problem(error, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _ordered(self, texts: Sequence[str]) -> Chaos | None:
        if not texts:
            return None
        if not self._allowed:
            raise _refused("This service breaks nothing to order. Start it with CHAOS=true, for development only.")
        faults, twice = parse_chaos(",".join(texts))
        if sum(fault.seconds for fault in faults) >= self._longest:
            raise _refused(f"A stream stalls for less than SEND_TIMEOUT, {self._longest:g} s, in all.")
        return Chaos(faults, twice, self._struck)


def chaos_of(scope: Scope) -> Chaos | None:
    """What the request has ordered."""
    chaos: Chaos | None = scope.get(_CHAOS)
    return chaos


def parse_chaos(text: str) -> tuple[list[Fault], bool]:
    """The faults, and whether every frame is to come twice.

    Raises:
        ChatError: ``invalid_request``.
    """
    orders = text.split(",")
    return [_fault(order) for order in orders if order != "dup"], "dup" in orders


def _fault(order: str) -> Fault:
    match = _ORDER.fullmatch(order)
    if match is None:
        raise _refused(f"What can be ordered is {_FORMS}.")
    if match["kind"]:
        return Fault(int(match["place"]), match["kind"])
    return Fault(int(match["behind"]), "stall", int(match["time"]) * _SECONDS[match["unit"]])


def _refused(message: str) -> ChatError:
    errors = [{"field": PARAMETER, "message": message}]
    return ChatError("invalid_request", f"{PARAMETER}: {message}", details={"errors": errors})


class _RoughWay:
    """A wire on which the ``due`` faults wait, the next one first."""

    def __init__(self, wire: Wire, run_id: str, due: list[Fault], chaos: Chaos) -> None:
        self._wire = wire
        self._run_id = run_id
        self._due = due
        self._chaos = chaos

    def write(self, body: bytes) -> Awaitable[None] | None:
        return begun(self._write(body))

    async def end(self) -> None:
        await self._wire.end()

    async def _write(self, body: bytes) -> None:
        """Frame by frame. While a fault is at work, the stream waits as for a reader that stalls: it has no pings."""
        for frame in body.split(b"\n\n")[:-1]:
            record = frame + b"\n\n"
            if (blocked := self._wire.write(record * 2 if self._chaos.twice else record)) is not None:
                await blocked
            place = _ID.search(frame)
            while self._due and place is not None and int(place[1]) >= self._due[0].place:
                await self._strike(self._due.pop(0))

    async def _strike(self, fault: Fault) -> None:
        logger.warning("chaos: %s@%d", fault.kind, fault.place, extra={"run_id": self._run_id})
        self._chaos.struck.faults.append((self._run_id, fault))
        if fault.kind == "stall":
            await asyncio.sleep(fault.seconds)
            return
        transport = self._wire.transport
        if fault.kind == "kill":
            while transport.get_write_buffer_size():  # noqa: ASYNC110
                await asyncio.sleep(FLUSH_PAUSE)
            os.kill(os.getpid(), signal.SIGKILL)
        # What was written goes out, and then a FIN in the middle of the body: an RST could overtake the frame.
        transport.close()
        await asyncio.get_running_loop().create_future()  # until the stream is told that its client has gone
