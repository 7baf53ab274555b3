"""Following a run: what is committed behind a cursor, then what follows, up to the end."""

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from chat.commits import Batch
from chat.events import ends
from chat.live import FOLLOW_EVENTS, LiveRun, LiveRuns
from chat.ports import Store

Push: TypeAlias = Callable[[Batch], bool]
"""Takes a batch at once, without waiting. False: the follower's task is needed before it can take another."""


class Follower:
    """One reader of a run's log: it keeps a cursor, and no queue. To be closed.

    ``live`` is None when the run has ended and is read from the store. What becomes visible while :meth:`next` waits
    goes to ``push``, if there is one, from the loop: to wake a task for each token costs as much as the token.
    """

    def __init__(
        self,
        store: Store,
        runs: LiveRuns,
        live: LiveRun | None,
        run_id: str,
        after: int,
        push: Push | None = None,
    ) -> None:
        self._store = store
        self._runs = runs
        self._live = live
        self._run_id = run_id
        self._after = after
        self._push = push
        self._ended = False
        self._nudged = False
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        if live is not None:
            live.look_out(self._woken)

    @property
    def ended(self) -> bool:
        """Whether it has handed out the run's terminal event."""
        return self._ended

    @property
    def behind(self) -> bool:
        """Whether :meth:`next` has more to hand out without waiting for it."""
        return not self._ended if self._live is None else self._after < len(self._live.events)

    @property
    def waiting(self) -> bool:
        """Whether :meth:`next` waits: all that is visible was handed out."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def certain(self) -> bool:
        """Whether nothing is committed but what is visible here. Another process is a moment ahead with its own runs,
        and what earlier owners committed may still have to be read.
        """
        return self._live is None or (self._live.owned and self._live.whole)

    async def next(self) -> Batch | None:
        """The next events, when there are some; an empty batch after a nudge; None when no more come from here.

        An end without a terminal event means that the run goes on elsewhere: reconnect with the same cursor.

        Raises:
            ChatError: ``cursor_expired``; ``store_unavailable`` while the log cannot be written.
        """
        if self._ended:
            return None
        if self._live is None:
            batch = await self._store.events(self._run_id, self._after, FOLLOW_EVENTS)
            return self._handed(batch) if batch.events else None
        return await self._visible(self._live)

    def nudge(self) -> None:
        """Let :meth:`next` return, if it waits."""
        if self._waiter is not None and not self._waiter.done():
            self._nudged = True
            self._waiter.set_result(None)

    def close(self) -> None:
        if self._live is not None:
            self._live.overlook(self._woken)
            self._runs.leave(self._live)
            self._live = None

    async def _visible(self, live: LiveRun) -> Batch | None:
        if self._after < len(live.events):
            await asyncio.sleep(0)  # there was more than one page, or it reads what was said before it came
        while self._after >= len(live.events):
            if live.closed or self._ended:
                return None
            if live.trouble is not None:
                raise live.trouble
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
            if self._nudged:
                self._nudged = False
                return Batch(self._after + 1, ())
        return self._handed(live.page(self._after))

    def _handed(self, batch: Batch) -> Batch:
        self._after = batch.first_seq + len(batch.events) - 1
        self._ended = ends(batch.events[-1])
        return batch

    def _woken(self) -> None:
        # Not now: the committer, which calls, has its next transaction to begin.
        if self._waiter is not None:
            self._runs.call_soon(self._look)

    def _look(self) -> None:
        live, waiter = self._live, self._waiter
        if live is None or waiter is None or waiter.done():
            return
        if self._push is None or self._after >= len(live.events):
            waiter.set_result(None)
            return
        try:
            taken = self._push(self._handed(live.page(self._after)))
        except Exception as error:
            waiter.set_exception(error)
            return
        if not taken:
            self.nudge()
        elif self._ended or self._after < len(live.events):
            waiter.set_result(None)
