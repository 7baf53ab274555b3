"""The journal: what the models say is committed here, many runs at a time, before anybody sees it."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import cast

from chat.commits import Append, Settlement
from chat.errors import ChatError, StoreCorruptError, StoreUnavailableError
from chat.events import (
    SPEECH,
    Delta,
    Event,
    ReasoningDelta,
    Terminal,
    TextDelta,
    ToolApproval,
    ToolCalled,
    ToolDecided,
    ToolFinished,
)
from chat.live import LiveRun
from chat.meter import NO_METER, Meter
from chat.ports import Store
from chat.runs import RunKind
from chat.steps import steps_of

WINDOW = 0.005
"""Seconds that the committer waits for company: an idle service adds this to a token, a busy one commits more."""

CAPACITY = 20_000
"""Events of all runs that may wait for the committer; beyond, the models' streams are not read any further."""

MERGE_ABOVE = 8
"""Waiting deltas of one run beyond which they are merged: a stalled disk must not grow the log, and a reader who is
only a word behind keeps the grain of the model's own stream."""

LONGEST_DELTA = 16_384
"""Characters of one stored delta. A longer one is cut: it goes out as one frame, and a slow reader has to hold it."""

_REBASE_EVENTS = 512

logger = logging.getLogger(__name__)


class Journal:
    """Commits the events of all live runs in groups, and only then shows them.

    One committer takes all that waits, of all runs, and writes it in one transaction. A commit that fails puts the
    run into trouble: its events stay where they are, its followers are told, and :meth:`settle` has to be called
    until it succeeds.
    """

    def __init__(
        self, store: Store, *, window: float = WINDOW, capacity: int = CAPACITY, meter: Meter = NO_METER
    ) -> None:
        self._store = store
        self._meter = meter
        self._window = window
        self._capacity = capacity
        self._dirty: dict[str, LiveRun] = {}
        self._taken: dict[str, LiveRun] = {}
        self._landings: list[asyncio.Future[None]] = []
        self._waiting = 0
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.queue_moved = asyncio.Event()
        """Set when there is a run to claim: one has ended for which it waited, or another process has given it away."""

    def append(self, live: LiveRun, event: Event) -> None:
        """Queue one event of a run.

        Raises:
            ChatError: the run's log cannot be written, or the run was given to another process.
        """
        if live.trouble is not None:
            raise live.trouble
        live.queue(event)
        self._enqueue(live, 1)

    @property
    def full(self) -> bool:
        """Whether a producer has to wait for :meth:`room` before it reads on."""
        return self._waiting >= self._capacity

    async def room(self) -> None:
        await self._room.wait()

    async def landed(self, live: LiveRun) -> None:
        """Wait until all that the run has said so far is committed.

        Raises:
            ChatError: the run's log cannot be written, or the run was given to another process.
        """
        while live.trouble is None and (live.pending or live.run.id in self._taken):
            await self._landing()
        if live.trouble is not None:
            raise live.trouble

    async def recover(self, live: LiveRun) -> None:
        """End a run's trouble: return when all that it has said so far is committed, and it may say more.

        Raises:
            ChatError: as :meth:`landed`, after which this may be tried again; the store's, while it is out of reach.
        """
        while live.run.id in self._dirty or live.run.id in self._taken:
            await self._landing()
        if live.trouble is not None and live.owned:
            await self._rebase(live)
            if live.pending:
                self._enqueue(live, len(live.pending))
        await self.landed(live)

    async def settle(self, live: LiveRun, terminal: Terminal) -> bool:
        """End the run with everything that waits before; False if it was not ours any more.

        A run in trouble is first compared with what the store holds: a commit that seemed to fail may be there.

        Raises:
            StoreUnavailableError: not now; the terminal event waits, and the next call only tries again.
        """
        if not live.owned:
            return False
        if live.trouble is not None:
            await self._rebase(live)
            if live.events and isinstance(live.events[-1], Terminal):
                return True
        if not (live.pending and isinstance(live.pending[-1], Terminal)):
            live.queue(terminal)
        live.ended = asyncio.get_running_loop().create_future()
        self._enqueue(live, len(live.pending))
        return await live.ended

    async def flush(self) -> None:
        """Wait until nothing waits."""
        await self._idle.wait()

    async def run(self) -> None:
        """Commit for ever; cancel it after :meth:`flush`."""
        while True:
            await self._work.wait()
            await asyncio.sleep(self._window)
            self._work.clear()
            taken = self._taken = self._dirty
            self._dirty, self._waiting = {}, 0
            self._room.set()
            await self._commit([self._take(live) for live in taken.values()], taken)
            self._taken = {}
            self._land()
            if not self._dirty:
                self._idle.set()

    def _enqueue(self, live: LiveRun, count: int) -> None:
        if not self._dirty:  # else both are so already
            self._idle.clear()
            self._work.set()
        self._dirty[live.run.id] = live
        self._waiting += count
        if self._waiting >= self._capacity:
            self._room.clear()

    async def _landing(self) -> None:
        landing = asyncio.get_running_loop().create_future()
        self._landings.append(landing)
        await landing

    def _land(self) -> None:
        landings, self._landings = self._landings, []
        for landing in landings:
            if not landing.done():
                landing.set_result(None)

    @staticmethod
    def _take(live: LiveRun) -> Append:
        events = merged(live.pending)
        live.pending = []
        append = Append(live.run, len(live.events) + 1, events)
        last = events[-1]
        if isinstance(last, TextDelta):  # nearly always
            return append
        if isinstance(last, Terminal):
            log = [*live.events, *events]
            steps = steps_of(log)[0] if any(isinstance(event, ToolCalled) for event in log) else ()
            append.settlement = Settlement(last, live.answer, log, steps, live.shares, live.sources)
        append.durable = isinstance(last, ToolCalled | ToolApproval | ToolDecided | ToolFinished)
        return append

    async def _commit(self, batch: Sequence[Append], taken: dict[str, LiveRun]) -> None:
        began = time.monotonic()
        try:
            committed = await self._store.commit(batch)
        except (StoreUnavailableError, StoreCorruptError) as error:
            for append in batch:
                self._fail(taken[append.run.id], append, error)
        except Exception:
            # Not the store's state but our mistake, or a value it cannot hold: it must not take other runs along.
            if len(batch) > 1:
                for append in batch:
                    await self._commit([append], taken)
                return
            logger.exception("an event could not be stored", extra={"run_id": batch[0].run.id})
            self._fail(taken[batch[0].run.id], batch[0], StoreUnavailableError())
        else:
            now = time.monotonic()
            self._meter.committed(sum([len(append.events) for append in batch]), now - began)
            for append in batch:
                live = taken[append.run.id]
                first = append.first_seq == 1 and live.run.kind is RunKind.ANSWER  # nobody waits for any other
                if first and any(isinstance(event, SPEECH) for event in append.events):
                    self._meter.first_token(now - live.began)
                self._show(live, append, lost=append.run.id in committed.lost)
            if committed.waiting:
                self.queue_moved.set()

    @staticmethod
    def _show(live: LiveRun, append: Append, *, lost: bool) -> None:
        if lost:
            live.lose()
        else:
            live.publish(append.events)
        if live.ended is not None and (lost or append.settlement is not None) and not live.ended.done():
            live.ended.set_result(not lost)

    @staticmethod
    def _fail(live: LiveRun, append: Append, error: ChatError) -> None:
        live.pending[:0] = append.events
        live.fail(error)
        if append.settlement is not None and live.ended is not None and not live.ended.done():
            live.ended.set_exception(error)

    async def _rebase(self, live: LiveRun) -> None:
        while stored := (await self._store.events(live.run.id, len(live.events), _REBASE_EVENTS)).events:
            del live.pending[: len(stored)]
            live.publish(stored)
        live.trouble = None


def merged(events: Sequence[Event]) -> list[Event]:
    """The events with neighbouring deltas of a kind joined, if they are many, and long ones cut."""
    if len(events) == 1 and isinstance(events[0], TextDelta) and len(events[0].text) <= LONGEST_DELTA:
        return [events[0]]  # nearly always, and that is quickly seen
    return list(_cut(_joined(events) if len(events) > MERGE_ABOVE else events))


def _joined(events: Sequence[Event]) -> Iterator[Event]:
    for kind, group in groupby(events, type):
        if kind is TextDelta or kind is ReasoningDelta:
            yield kind("".join([delta.text for delta in cast("Iterator[Delta]", group)]))
        else:
            yield from group


def _cut(events: Iterable[Event]) -> Iterator[Event]:
    for event in events:
        if isinstance(event, TextDelta | ReasoningDelta) and len(event.text) > LONGEST_DELTA:
            for start in range(0, len(event.text), LONGEST_DELTA):
                yield type(event)(event.text[start : start + LONGEST_DELTA])
        else:
            yield event
