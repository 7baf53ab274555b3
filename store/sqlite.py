"""The store on one SQLite file, for one machine."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from chat.embeddings import Nearness
from chat.errors import StoreCorruptError, StoreUnavailableError
from chat.runs import Run
from chat.search import Hit, Search
from chat.sessions import Page
from store import sqlite_documents, sqlite_search
from store.sql import Passages, SqlStore
from store.sqlite_database import Database
from store.sqlite_owners import Owners

ERASE_MERGES = 64
"""Steps of a merge of the index that one sweep makes: 16 MB of it. Behind a deletion all of the index is written anew,
and where people delete all the time that has no end."""


class SqliteStore(SqlStore):
    """Starts and ends of runs survive power loss; deltas survive a killed process.

    ``lease`` is in seconds: how long an owner may stand still before others take its runs. ``near``: vectors are to be
    compared in the database, where that can be done.
    """

    _database: Database
    _owners: Owners
    _passages: Passages = sqlite_documents

    def __init__(self, path: Path, *, lease: float = 10.0, near: bool = False) -> None:
        super().__init__(Database(path, extended=near), Owners(path, lease=lease))
        self._erasing: int | None = None

    async def open(self) -> None:
        await self._database.open()
        try:
            await self._database.write(self._owners.register, durable=False)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        try:
            await self._database.write(self._owners.resign, durable=False)
        except (StoreUnavailableError, StoreCorruptError):
            pass  # never opened, damaged, or out of reach: the kernel's lock says the same
        finally:
            self._owners.close()
            await self._database.close()

    async def claim(self) -> Sequence[Run]:
        try:
            return await super().claim()
        except StoreUnavailableError:
            self._owners.forget()
            raise

    async def changed(self) -> bool:
        return await self._database.changed()

    async def doorbell(self, within: float) -> None:
        await asyncio.sleep(within)  # nothing rings: who asks polls

    async def search(self, wanted: Search) -> Page[Hit]:
        if await self._database.read(sqlite_search.behind):
            await self._index()
        return await self._database.read(lambda db: sqlite_search.search(db, wanted))

    async def _index(self) -> None:
        while await self._database.write(sqlite_search.index, durable=False):
            pass

    async def _erase(self) -> None:
        """Take what was deleted out of both indexes, the room between rows, and the -wal file; its rows are gone.

        What is deleted while this goes on is for the next time.
        """
        if self._erasing is None:
            [(asked, done)] = await self._database.read(lambda db: db.rows("SELECT asked, done FROM erasures"))
            if asked == done:
                return
            await self._database.write(sqlite_search.begin_merging, durable=False)
            self._erasing = asked
        for _ in range(ERASE_MERGES):
            if not await self._database.write(sqlite_search.merge, durable=False):
                break
        else:
            return  # the next sweep goes on
        await self._database.rewrite()
        if await self._database.empty_log():
            erased = (self._erasing,)
            await self._database.write(lambda db: db.rows("UPDATE erasures SET done = ?", erased), durable=False)
            self._erasing = None

    async def _scanned(self, wanted: Nearness, chunks: int) -> Sequence[int] | None:
        """With sqlite-vec for what there is no room for in memory, which is seventeen times as fast."""
        from store.nearest import CANDIDATES, KEPT_BYTES, signs

        asked = signs(wanted.vector)
        if not self._database.extended or chunks * len(asked) <= KEPT_BYTES:
            return None
        return await self._database.read(lambda db: sqlite_documents.scan(db, wanted, asked, CANDIDATES))
