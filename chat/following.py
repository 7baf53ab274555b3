"""Following a run: what is committed behind a cursor, then what follows, up to the end."""

import asyncio

from chat.events import Terminal
from chat.live import FOLLOW_EVENTS, LiveRun, LiveRuns
from chat.ports import Batch, Store


class Follower:
    """One reader of a run's log: it keeps a cursor, and no queue. To be closed.

    ``live`` is None when the run has ended and is read from the store.
    """

    def __init__(self, store: Store, runs: LiveRuns, live: LiveRun | None, run_id: str, after: int) -> None:
        self._store = store
        self._runs = runs
        self._live = live
        self._run_id = run_id
        self._after = after
        self._behind = False  # there was more than one page
        self._ended = False
        self._nudged = False
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def next(self) -> Batch | None:
        """The next events, when there are some; an empty batch after a nudge; None when no more come from here.

        An end without a terminal event means that the run goes on elsewhere: reconnect with the same cursor.

        Raises:
            ChatError: ``cursor_expired``; ``store_unavailable`` while the log cannot be written.
        """
        if self._ended:
            return None
        batch = await (self._stored() if self._live is None else self._visible(self._live))
        if batch is not None and batch.events:
            self._after = batch.first_seq + len(batch.events) - 1
            self._ended = isinstance(batch.events[-1], Terminal)
        return batch

    def nudge(self) -> None:
        """Let :meth:`next` return, if it waits."""
        if self._waiter is not None and not self._waiter.done():
            self._nudged = True
            self._waiter.set_result(None)

    def close(self) -> None:
        if self._live is not None:
            self._runs.leave(self._live)
            self._live = None
        self._ended = True

    async def _stored(self) -> Batch | None:
        batch = await self._store.events(self._run_id, self._after, FOLLOW_EVENTS)
        return batch if batch.events else None

    async def _visible(self, live: LiveRun) -> Batch | None:
        if self._behind:
            await asyncio.sleep(0)
        while len(live.events) <= self._after:
            if live.closed:
                return None
            if live.trouble is not None:
                raise live.trouble
            if self._nudged:
                self._nudged = False
                return Batch(self._after + 1, ())
            waiter = self._waiter = self._loop.create_future()
            live.look_out(waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                live.overlook(waiter)
        batch = live.page(self._after)
        self._behind = self._after + len(batch.events) < len(live.events)
        return batch
