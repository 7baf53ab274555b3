"""The -wal file is moved into the database beside the commits, and does not grow for ever."""

import asyncio
import logging
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from chat.errors import StoreUnavailableError
from store import sqlite_database
from store.rows import Rows
from store.sqlite_database import Database, Job
from tests.patience import PATIENCE, soon
from tests.store.files import opened_database


async def note(database: Database, text: str = "") -> None:
    async def insert(db: Rows) -> None:
        await db.rows("INSERT INTO notes VALUES (?)", (text,))

    await database.write(insert, durable=False)


async def table(database: Database) -> None:
    async def create(db: Rows) -> None:
        await db.rows("CREATE TABLE notes (text TEXT)")

    await database.write(create, durable=False)


def in_file_alone(file: Path) -> list[str]:
    """What is there without the -wal file."""
    alone = file.with_name("alone.db")
    shutil.copy(file, alone)
    db = sqlite3.connect(alone)
    try:
        return [text for (text,) in db.execute("SELECT text FROM notes")]
    except sqlite3.OperationalError:
        return []
    finally:
        db.close()


async def test_what_was_committed_is_moved_after_some_commits(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_database, "CHECKPOINT_EVERY", 3)
    async with opened_database(file) as database:
        await table(database)
        await note(database, "one")
        assert database._keeping is None
        assert in_file_alone(file) == []
        await note(database, "two")
        assert database._keeping is not None
        await soon(database._keeping)
        assert in_file_alone(file) == ["one", "two"]


async def test_commits_do_not_wait_while_it_is_moved(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_database, "CHECKPOINT_EVERY", 1)
    gate = threading.Event()
    async with opened_database(file) as database:
        keeper = database._keeper
        assert keeper is not None
        held = asyncio.create_task(database._do(keeper, lambda db: gate.wait(PATIENCE)))
        await soon(table(database))
        moving = database._keeping
        for number in range(10):
            await soon(note(database, str(number)))
        assert moving is database._keeping  # still that one, and no second one behind it
        assert in_file_alone(file) == []
        gate.set()
        assert await soon(held)
        assert moving is not None
        await soon(moving)
        assert in_file_alone(file) == [str(number) for number in range(10)]


async def test_file_begins_anew_though_somebody_always_commits(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_database, "CHECKPOINT_EVERY", 20)
    monkeypatch.setattr(sqlite_database, "LOG_PAGES", 50)
    async with opened_database(file) as database:
        await table(database)
        for number in range(1_000):
            await note(database, "x" * sqlite_database.PAGE_BYTES)
            if number % 50 == 0 and database._keeping is not None:  # on a slow disk all thousand come while it is moved
                await soon(database._keeping)
        assert file.with_name("chat.db-wal").stat().st_size < 500 * sqlite_database.PAGE_BYTES


async def test_move_that_fails_is_told_and_tried_again(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite_database, "CHECKPOINT_EVERY", 1)
    do = Database._do

    async def failing(self: Database, connection: aiosqlite.Connection, job: Job[Any]) -> Any:
        if connection is self._keeper:
            raise StoreUnavailableError
        return await do(self, connection, job)

    async with opened_database(file) as database:
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(Database, "_do", failing)
            await table(database)
            assert database._keeping is not None
            await soon(database._keeping)
        assert "a later commit tries again" in caplog.text
        await note(database, "told")
        assert database._keeping is not None
        await soon(database._keeping)
        assert in_file_alone(file) == ["told"]
