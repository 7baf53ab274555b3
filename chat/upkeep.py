"""What happens without a request: other processes' commits are noticed, dead owners' runs taken, the old goes away."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from chat.approvals import Approvals
from chat.embedding import Embedding
from chat.errors import StoreCorruptError, StoreUnavailableError
from chat.journal import Journal
from chat.live import LiveRuns
from chat.ports import PULSE, SILENCE, Store
from chat.runner import Runner

FOLLOWING_POLL = 0.01
"""Seconds between two looks at the store while other processes' runs are followed here: it is their doorbell."""

IDLE_POLL = 0.2
"""The same while none is: how late a stop from another process may arrive, or a run that it has given away."""

SWEEP_PAUSE = 10.0
"""Seconds between two clean-ups of the journal."""

EXPIRE_SESSIONS = 500
"""Old conversations that one sweep deletes: with the pause between two sweeps, 180,000 in an hour."""

FAILING_PAUSE = 1.0
"""Seconds that a loop waits longer after a turn that failed."""

logger = logging.getLogger(__name__)


class Upkeep:
    """The loops of the process. ``lease``, ``retention`` and ``history`` are in seconds.

    ``expire`` deletes a session that was idle for so long. ``embedding`` is there where chunks are to have embeddings.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        live: LiveRuns,
        runner: Runner,
        approvals: Approvals,
        *,
        lease: float,
        retention: float,
        history: float | None,
        expire: Callable[[str, float], Awaitable[None]],
        embedding: Embedding | None = None,
    ) -> None:
        self._store = store
        self._journal = journal
        self._live = live
        self._runner = runner
        self._approvals = approvals
        self._lease = lease
        self._retention = retention
        self._history = history
        self._expire = expire
        self._embedding = embedding
        self._unread = False
        self._unasked = False
        self._asked = 0.0
        self._moved = False
        self._checked = 0.0
        self._reached = time.monotonic()
        self.claiming = True
        """Off while the process drains: it still says that it lives, and takes nothing new."""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._claim, self._until_claim_is_due))
            group.create_task(self._repeat(self._look, self._until_look_is_due))
            group.create_task(self._repeat(self._sweep, self._until_sweep_is_due))
            if self._embedding is not None:
                group.create_task(self._embed(self._embedding))

    async def _repeat(self, work: Callable[[], Awaitable[None]], pause: Callable[[], Awaitable[None]]) -> None:
        failing = ""
        while True:
            try:
                await work()
                failing = ""
            except (StoreUnavailableError, StoreCorruptError) as error:
                if failing != error.code:
                    logger.warning("the store cannot be reached: %s", error.code)
                failing = error.code
                await asyncio.sleep(FAILING_PAUSE)
            except Exception:
                # The loop is the process's pulse: a mistake in one turn must not end it.
                logger.exception("upkeep failed")
                await asyncio.sleep(FAILING_PAUSE)
            await pause()

    async def _claim(self) -> None:
        if not self.claiming:
            await self._store.beat()
            self._live.lose_all_but(self._store.owner)
            return
        taken = await self._store.claim()
        self._live.lose_all_but(self._store.owner)
        for run in taken:
            logger.info("took a run over", extra={"run_id": run.id, "epoch": run.epoch})
            self._runner.launch(run)
            self._unread = True  # a stop may have been asked of it while it was nobody's

    async def _until_claim_is_due(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._lease * PULSE):
                await self._journal.queue_moved.wait()
        self._journal.queue_moved.clear()

    async def _look(self) -> None:
        changed = await self._store.changed()  # in any case: a doorbell that nobody answers goes on ringing
        now = time.monotonic()
        if changed and not self._unread:
            self._reached = now
        self._unread = self._unread or changed or (self._unasked and now - self._asked >= IDLE_POLL)
        self._moved = self._moved or changed
        if self._unread:
            await self._read(now)
        if self._moved and self.claiming and now - self._checked >= IDLE_POLL:
            self._checked = now
            if await self._store.abandoned():
                self._journal.queue_moved.set()
            self._moved = False

    async def _read(self, now: float) -> None:
        self._unread = False
        try:
            # What others say is read whenever they say it. What they ask of this process is not, or all would ask the
            # store hundreds of times a second about requests that come once in a while.
            self._unasked = True
            if now - self._asked >= IDLE_POLL or not self._live.foreign:
                await self._hear_requests()
                self._unasked, self._asked = False, now
            if await self._live.tail():
                self._unread = True
        except BaseException:
            self._unread = True  # the next look reads what this one could not
            if time.monotonic() - self._reached > self._lease * SILENCE:
                self._live.send_away()  # to where the store can be reached
            raise
        self._reached = now

    async def _hear_requests(self) -> None:
        await self._approvals.look()
        for run_id, reason in await self._store.cancel_requests():
            self._runner.stop(run_id, reason)

    async def _until_look_is_due(self) -> None:
        if self._live.foreign:
            await self._store.doorbell(FOLLOWING_POLL)
        else:  # whatever others write, and they write all the time
            await asyncio.sleep(IDLE_POLL)

    async def _sweep(self) -> None:
        if self._history is not None:
            for session_id in await self._store.idle_sessions(self._history, EXPIRE_SESSIONS):
                await self._expire(session_id, self._history)
        await self._store.sweep(self._retention)

    async def _until_sweep_is_due(self) -> None:
        await asyncio.sleep(SWEEP_PAUSE)

    async def _embed(self, embedding: Embedding) -> None:
        async def turn() -> None:
            if self.claiming:
                await embedding.turn()

        await self._repeat(turn, lambda: asyncio.sleep(embedding.pause if self.claiming else IDLE_POLL))
