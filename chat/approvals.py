"""Calls that wait for somebody's yes, and how they learn of it."""

import asyncio
import logging

from chat.errors import StoreCorruptError, StoreUnavailableError
from chat.ports import Store

RETRY_PAUSE = 1.0
"""Seconds before the store is asked again when it could not be: the call only waits longer."""

logger = logging.getLogger(__name__)


class Approvals:
    """The decisions lie in the store, where any process can leave them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[tuple[str, str], asyncio.Future[bool | None]] = {}
        self._over = False

    async def decided(self, run_id: str, call_id: str) -> bool | None:
        """Wait for the decision, however long that takes: whether the call may be made.

        None if it is put off: the process ends, and the next one waits on.
        """
        waiting = self._waiting[run_id, call_id] = asyncio.get_running_loop().create_future()
        if self._over:
            waiting.set_result(None)
        try:
            decision = await self._ask(run_id, call_id)  # behind the future: what is decided from now on is heard
            return await waiting if decision is None else decision
        finally:
            del self._waiting[run_id, call_id]

    def tell(self, run_id: str, call_id: str, *, approved: bool) -> None:
        """It was decided, in this process."""
        waiting = self._waiting.get((run_id, call_id))
        if waiting is not None and not waiting.done():
            waiting.set_result(approved)

    def put_off(self) -> None:
        """Let nobody wait here any longer: the decisions are the next process's to hear."""
        self._over = True
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)

    async def look(self) -> None:
        """Another process has changed something: read what was decided, once for all who wait.

        Raises:
            StoreUnavailableError: not now; the next look finds it.
        """
        if self._waiting:
            for run_id, call_id, approved in await self._store.decisions():
                self.tell(run_id, call_id, approved=approved)

    async def _ask(self, run_id: str, call_id: str) -> bool | None:
        while True:
            try:
                return await self._store.decision(run_id, call_id)
            except (StoreUnavailableError, StoreCorruptError) as error:
                logger.warning("an approval waits for the store: %s", error.code, extra={"run_id": run_id})
                await asyncio.sleep(RETRY_PAUSE)
