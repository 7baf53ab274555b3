"""What other processes commit is heard of by LISTEN, and looked for where that is not possible."""

import asyncio
import logging
import time
from contextlib import suppress

from chat.errors import StoreCorruptError, StoreUnavailableError
from store.postgres_database import Connection, Database
from store.postgres_errors import translated
from store.postgres_rows import BELL

POLL = 0.1
"""Seconds between two looks while nothing rings."""

TRUST = 2.0
"""Seconds after which somebody looks although nothing has rung: a ring may get lost with the connection it came by."""

PAUSE = 1.0
"""Seconds between two tries to listen."""

PROBE_SECONDS = 5.0
"""Of silence, after which the connection has to show that it is there, and for its answer."""

logger = logging.getLogger(__name__)


class Doorbell:
    """Rings when another process has committed something.

    It has a connection to itself. A pooler in transaction mode takes the LISTEN and hands no ring on: so each
    connection first has to hear one of its own.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rung = asyncio.Event()
        self._lost = asyncio.Event()
        self._echo: asyncio.Future[bool] | None = None
        self._listening = False
        self._looked = 0.0
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._listen_for_ever())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def wait(self, within: float) -> None:
        """Return when it has rung, at the latest after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._rung.wait()

    def answered(self) -> bool:
        """Whether somebody should look now; until the next ring, or the next time that it is due, nobody has to."""
        now = time.monotonic()
        due = self._looked + (TRUST if self._listening else POLL)
        if not self._rung.is_set() and now < due:
            return False
        self._rung.clear()
        self._looked = now
        return True

    async def _listen_for_ever(self) -> None:
        said = False
        while True:
            try:
                await self._listen()
            except (StoreUnavailableError, StoreCorruptError):
                if not said:
                    logger.warning("postgres: nothing rings when others commit; looking ten times a second instead")
                said = True
            else:
                said = False
            await asyncio.sleep(PAUSE)

    async def _listen(self) -> None:
        """Until the connection is lost.

        Raises:
            StoreUnavailableError, StoreCorruptError: there is none, or it hears nothing.
        """
        connection = await self._database.connect()
        self._lost = asyncio.Event()
        connection.add_termination_listener(self._hang_up)
        try:
            with translated():
                await connection.add_listener(BELL, self._ring)
            while not self._lost.is_set():
                await self._probe(connection)
                if not self._listening:
                    self._listening = True
                    self._rung.set()  # whatever was committed before is to be looked for
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_SECONDS):
                        await self._lost.wait()
        finally:
            self._listening = False
            self._rung.set()
            connection.terminate()

    async def _probe(self, connection: Connection) -> None:
        """Ring as the others do, and hear that."""
        self._echo = asyncio.get_running_loop().create_future()
        limit = asyncio.get_running_loop().call_later(PROBE_SECONDS, connection.terminate)
        try:
            await self._database.write(lambda db: db.ring(), durable=False, urgent=True)
            if not await self._echo:
                raise StoreUnavailableError
        finally:
            limit.cancel()

    def _hang_up(self, _: Connection) -> None:
        self._lost.set()
        self._hear(heard=False)

    def _ring(self, *told: object) -> None:
        if told[-1] == self._database.name:  # the connection, its process, the channel, and who
            self._hear(heard=True)
        else:
            self._rung.set()

    def _hear(self, *, heard: bool) -> None:
        if self._echo is not None and not self._echo.done():
            self._echo.set_result(heard)
