"""The store on PostgreSQL, for several machines."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from chat.commands import Started
from chat.commits import Append, Committed, Tail
from chat.embeddings import Nearness, Unembedded
from chat.errors import StoreCorruptError, StoreUnavailableError
from chat.runs import Run
from chat.search import Hit, Search
from chat.sessions import Page
from chat.vectors import Vector
from store import journal, postgres_documents, postgres_nearest, postgres_search, runs, tools
from store.postgres_database import TRANSACTION_SECONDS, Database
from store.postgres_doorbell import Doorbell
from store.postgres_errors import DoubtfulError, FencedError, LostError
from store.postgres_owners import BuriedError, Owners
from store.postgres_rows import PostgresRows
from store.rows import Rows
from store.sql import Passages, SqlStore

T = TypeVar("T")

COMMIT_SECONDS = 10.0
"""How long events wait for a server that is gone, before their runs are in trouble; a restart takes a few seconds."""

COMMIT_PAUSE = 0.1
"""Seconds between two tries."""


class PostgresStore(SqlStore):
    """Starts and ends of runs survive power loss, as far as the server's disk does; deltas survive a killed process.

    ``lease`` is in seconds: how long an owner may be silent before others take its runs.
    """

    _database: Database
    _owners: Owners
    _passages: Passages = postgres_documents

    def __init__(self, url: str, *, lease: float = 10.0) -> None:
        super().__init__(Database(url, idle=min(TRANSACTION_SECONDS, lease / 2)), Owners(lease=lease))
        self._doorbell = Doorbell(self._database)
        self._registering = asyncio.Lock()
        self._near_indexed = False
        self._doubtful: set[str] = set()

    async def open(self) -> None:
        await self._database.open()
        try:
            await self._register(self._owners.id)
        except BaseException:
            await self._database.close()
            raise
        self._doorbell.open()

    async def close(self) -> None:
        await self._doorbell.close()
        try:
            await self._database.write(self._owners.resign, durable=False)
        except (StoreUnavailableError, StoreCorruptError):
            pass  # never opened, or out of reach: the lease runs out
        finally:
            await self._database.close()

    async def commit(self, batch: Sequence[Append]) -> Committed:
        """Append, and do it again where the connection was lost: a server that restarts costs no run its answer.

        Whether a commit that is in doubt was one is looked up when nobody can be within another.
        """
        doubt: DoubtfulError | None = None
        given_up = time.monotonic() + COMMIT_SECONDS
        while True:
            try:
                if doubt is None:
                    return await self._append(batch)
                await self._move_fence()
                assert isinstance(doubt.result, Committed)
                again = partial(_commit_again, batch, doubt.result)
                return await self._database.write(again, durable=True, urgent=True)
            except DoubtfulError as error:
                doubt = error if isinstance(error.result, Committed) else doubt
            except LostError:
                pass
            if time.monotonic() > given_up:
                raise StoreUnavailableError
            await asyncio.sleep(COMMIT_PAUSE)

    async def _append(self, batch: Sequence[Append]) -> Committed:
        """In one statement, where no run ends or waits; that is nearly always."""
        owner, fence = self._owners.id, self._owners.fence
        plain = all(append.settlement is None and not journal.waits(append) for append in batch)
        if plain and all(append.run.owner == owner for append in batch):
            try:
                return await self._database.append(owner, fence, list(journal.entries(batch)), Committed())
            except FencedError:
                pass  # dead, or the fence has just been moved: a transaction finds out
        return await self._database.write(lambda db: journal.commit(db, batch), durable=True, urgent=True)

    async def _move_fence(self) -> None:
        with suppress(BuriedError):  # then whatever it has sent is refused
            self._owners.fence = await self._database.write(self._owners.move_fence, durable=True, urgent=True)

    async def claim(self) -> Sequence[Run]:
        doubtful = set(self._doubtful)

        async def work(db: Rows, owner: int) -> Sequence[Run]:
            await self._owners.beat(db)
            await self._owners.bury(db)
            await runs.disown(db, doubtful, owner)
            return await runs.claim(db, owner)

        taken = await self._own(work, durable=False, urgent=True)
        self._doubtful -= doubtful
        return taken

    async def beat(self) -> None:
        await self._own(lambda db, _: self._owners.beat(db), durable=False, urgent=True)

    async def abandoned(self) -> bool:
        return await self._database.glance(runs.abandoned)

    async def cancel_requests(self) -> Sequence[tuple[str, str]]:
        return await self._database.glance(lambda db: runs.cancel_requests(db, self._owners.id))

    async def decisions(self) -> Sequence[tuple[str, str, bool]]:
        return await self._database.glance(lambda db: tools.decisions(db, self._owners.id))

    async def tail(self, after: int, run_ids: Collection[str]) -> Tail:
        return await self._database.glance(lambda db: journal.tail(db, after, run_ids))

    async def changed(self) -> bool:
        return self._doorbell.answered()

    async def doorbell(self, within: float) -> None:
        await self._doorbell.wait(within)

    async def search(self, wanted: Search) -> Page[Hit]:
        if await self._database.read(postgres_search.behind):
            await self._index()
        return await self._database.read(lambda db: postgres_search.search(db, wanted))

    async def _index(self) -> None:
        while await self._database.write(postgres_search.index, durable=False):
            pass

    async def embed(self, model: str, chunks: Sequence[tuple[Unembedded, Vector]]) -> None:
        await super().embed(model, chunks)
        if not self._near_indexed and chunks:
            bits = len(chunks[0][1]) // 4
            await self._database.write(lambda db: postgres_nearest.index(db, bits), durable=False)
            self._near_indexed = True

    async def _scanned(self, wanted: Nearness, chunks: int) -> Sequence[int] | None:
        """With pgvector's index, where there is one."""
        return await self._database.read(lambda db: postgres_nearest.scan(db, wanted, chunks))

    async def _own(
        self, work: Callable[[Rows, int], Coroutine[Any, Any, T]], *, durable: bool, urgent: bool = False
    ) -> T:
        async def owning(db: Rows) -> T:
            await self._owners.attend(db)
            return await work(db, self._owners.id)

        while True:
            owner = self._owners.id
            try:
                return await self._database.write(owning, durable=durable, urgent=urgent)
            except BuriedError:
                await self._register(owner)
            except DoubtfulError as doubt:
                # Nobody may generate these runs now: if they are there, they are given to the next who claims.
                self._doubtful |= _runs_in(doubt.result)
                raise

    async def _register(self, before: int) -> None:
        async with self._registering:
            if self._owners.id == before:  # nobody else did it meanwhile
                owner = await self._database.write(self._owners.register, durable=False, urgent=True)
                self._owners.id, self._owners.fence = owner, 0


async def _commit_again(batch: Sequence[Append], brought: Committed, db: PostgresRows) -> Committed:
    """What the commit brought that is in doubt, if it was one; else commit now.

    Only a run that is still ours tells: where another process has taken one over, that one's events are in its place.
    """
    await db.lock_journal()
    lost = brought.lost | await journal.lost_runs(db, batch)
    kept = [append for append in batch if append.run.id not in lost]
    if kept and (await journal.read_events(db, kept[0].run.id, kept[0].first_seq - 1, 1)).events:
        return brought  # all of the batch, which was one transaction
    return await journal.commit(db, batch)


def _runs_in(result: object) -> set[str]:
    """The ids of the runs that a transaction would have made this process's."""
    match result:
        case Started(run, created=True):
            return {run.id}
        case Run():
            return {result.id}
        case list():
            return {run.id for run in result}
        case _:
            return set()
