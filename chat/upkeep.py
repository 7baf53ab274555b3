"""What happens without a request: other processes' commits are noticed, dead owners' runs taken, old logs folded."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from chat.approvals import Approvals
from chat.errors import StoreCorruptError, StoreUnavailableError
from chat.journal import Journal
from chat.live import LiveRuns
from chat.ports import Store
from chat.runner import Runner

FOLLOWING_POLL = 0.01
"""Seconds between two looks at the store while other processes' runs are followed here: it is their doorbell."""

IDLE_POLL = 0.2
"""The same while none is: how late a stop from another process may arrive."""

SWEEP_PAUSE = 10.0
"""Seconds between two clean-ups of the journal."""

FAILING_PAUSE = 1.0
"""Seconds that a loop waits longer after a turn that failed."""

logger = logging.getLogger(__name__)


class Upkeep:
    """The loops of the process. ``lease`` and ``retention`` are in seconds."""

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
    ) -> None:
        self._store = store
        self._journal = journal
        self._live = live
        self._runner = runner
        self._approvals = approvals
        self._lease = lease
        self._retention = retention
        self._unread = False
        self.claiming = True
        """Off while the process drains: it still says that it lives, and takes nothing new."""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._claim, self._until_claim_is_due))
            group.create_task(self._repeat(self._look, self._until_look_is_due))
            group.create_task(self._repeat(self._sweep, self._until_sweep_is_due))

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
            return
        for run in await self._store.claim():
            logger.info("took a run over", extra={"run_id": run.id, "epoch": run.epoch})
            self._runner.launch(run)
            self._unread = True  # a stop may have been asked of it while it was nobody's

    async def _until_claim_is_due(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._lease / 3):
                await self._journal.queue_moved.wait()
        self._journal.queue_moved.clear()

    async def _look(self) -> None:
        if not (self._unread or await self._store.changed()):
            return
        self._unread = False
        try:
            await self._approvals.look()
            for run_id, reason in await self._store.cancel_requests():
                self._runner.stop(run_id, reason)
            if await self._live.tail():
                self._unread = True
        except BaseException:
            self._unread = True  # the next look reads what this one could not
            raise

    async def _until_look_is_due(self) -> None:
        await asyncio.sleep(FOLLOWING_POLL if self._live.foreign else IDLE_POLL)

    async def _sweep(self) -> None:
        await self._store.sweep(self._retention)

    async def _until_sweep_is_due(self) -> None:
        await asyncio.sleep(SWEEP_PAUSE)
