"""One SQLite file, and who else has it open."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

from chat.runs import Run
from store.sqlite import SqliteStore
from store.sqlite_database import Database
from tests.scripted import message


@asynccontextmanager
async def opened(store: SqliteStore) -> AsyncIterator[SqliteStore]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def opened_store(file: Path, *, lease: float = 10.0) -> AsyncIterator[SqliteStore]:
    async with opened(SqliteStore(file, lease=lease)) as store:
        yield store


@asynccontextmanager
async def opened_database(file: Path) -> AsyncIterator[Database]:
    database = Database(file)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@contextmanager
def locked(file: Path, how: str = "IMMEDIATE") -> Iterator[None]:
    """Another program writes, and does not come to an end."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(f"BEGIN {how}")
        yield


async def started(store: SqliteStore, session_id: str = "ses_1") -> Run:
    return (await store.start_run(message(session_id=session_id))).run
