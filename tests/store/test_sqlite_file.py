"""What can be wrong with a SQLite file, and how it gets its tables."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from chat.errors import StoreCorruptError, StoreUnavailableError
from chat.events import RunCancelled, TextDelta
from store import sqlite_database
from store.sqlite import SqliteStore
from tests.store.files import locked, opened, opened_store, started
from tests.store.sites import logged, read_along, said

STOPPED = RunCancelled("requested")


@pytest.mark.usefixtures("impatient")
async def test_file_that_is_locked_can_be_tried_again(file: Path, sqlite: SqliteStore) -> None:
    run = await started(sqlite)
    with locked(file):
        with pytest.raises(StoreUnavailableError) as caught:
            await started(sqlite, "ses_2")
        assert "locked" not in caught.value.message  # that is for the log
        assert await sqlite.run(run.id) == run  # readers do not mind
    await started(sqlite, "ses_2")


@pytest.mark.usefixtures("impatient")
async def test_file_that_is_locked_cannot_be_opened_yet(file: Path) -> None:
    store = SqliteStore(file)
    with locked(file, "EXCLUSIVE"):
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                await store.open()
            with pytest.raises(StoreUnavailableError):
                await store.check()
    async with opened(store):
        await store.check()


async def test_full_disk_is_unavailable_and_costs_nothing_that_was_stored(file: Path, sqlite: SqliteStore) -> None:
    run = await started(sqlite)
    await sqlite.commit([said(run, TextDelta("Hi"))])
    writer = sqlite._database._usable()
    await writer.execute_fetchall("PRAGMA max_page_count=1")  # never below what is there
    with pytest.raises(StoreUnavailableError):
        await sqlite.commit([said(run, TextDelta("x" * 1_000_000), before=[TextDelta("Hi")])])
    assert await logged(sqlite, run.id) == [TextDelta("Hi")]
    await writer.execute_fetchall("PRAGMA max_page_count=1000000")
    await sqlite.commit([said(run, STOPPED, before=[TextDelta("Hi")])])
    assert await logged(sqlite, run.id) == [TextDelta("Hi"), STOPPED]


async def test_folder_that_is_not_there_can_be_tried_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "later" / "chat.db")
    with pytest.raises(StoreUnavailableError):
        await store.open()
    (tmp_path / "later").mkdir()
    async with opened(store):
        await store.check()


async def test_store_that_is_not_open_is_unavailable(file: Path) -> None:
    store = SqliteStore(file)
    for work in (store.check, store.beat, store.claim, store.changed):
        with pytest.raises(StoreUnavailableError):
            await work()
    await store.close()
    await store.open()
    await store.close()
    with pytest.raises(StoreUnavailableError):
        await store.check()
    assert not file.with_name("chat.db-wal").exists()


@pytest.mark.parametrize("content", [b"This is no database. " * 100, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_file_that_is_no_database_is_left_as_it_is(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    store = SqliteStore(file)
    with pytest.raises(StoreCorruptError):
        await store.open()
    with pytest.raises(StoreCorruptError):
        await store.check()
    await store.close()
    assert file.read_bytes() == content


async def damaged(file: Path) -> bytes:
    """A database in which a page in the middle is no page any more; its bytes."""
    async with opened_store(file) as store:
        run = await started(store)
        await store.commit([said(run, *[TextDelta("x" * 3_000)] * 50)])
    with file.open("r+b") as pages:
        pages.seek(-100_000, os.SEEK_END)  # among the deltas, behind the tables that are empty
        pages.write(b"\xa5" * 40_000)
    return file.read_bytes()


async def test_damage_is_found_before_the_file_is_used(file: Path) -> None:
    content = await damaged(file)
    store = SqliteStore(file)
    with pytest.raises(StoreCorruptError):
        await store.open()
    await store.close()
    assert file.read_bytes() == content


async def test_damage_that_is_found_later_ends_all_use_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await damaged(file)
    monkeypatch.setattr(sqlite_database, "CHECK_UP_TO", 0)  # as with a file too large to be checked first
    async with opened_store(file) as store:
        with pytest.raises(StoreCorruptError):
            await read_along(store, 0)
        for work in (store.check, store.beat, store.changed):
            with pytest.raises(StoreCorruptError):
                await work()


DIES_HALFWAY = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=1")  # so that pages reach the file before the commit
connection.execute("BEGIN")
connection.execute("CREATE TABLE half (made)")
connection.execute("INSERT INTO half VALUES (zeroblob(1000000))")
os._exit(0)
"""


async def test_file_whose_maker_died_halfway_is_rolled_back_and_used(file: Path) -> None:
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", DIES_HALFWAY, str(file)], check=True)
    assert file.stat().st_size > 0
    assert file.with_name("chat.db-journal").exists()
    async with opened_store(file) as store:
        await started(store)
    assert "half" not in dict(schema(file))


# --- migrations


def schema(file: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()


def version(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


@pytest.fixture
def migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The migrations in a folder where more can be added."""
    folder = tmp_path / "migrations"
    shutil.copytree(sqlite_database._MIGRATIONS, folder)
    monkeypatch.setattr(sqlite_database, "_MIGRATIONS", folder)
    return folder


@pytest.mark.parametrize("migration", sorted(sqlite_database._MIGRATIONS.iterdir()), ids=lambda file: file.name)
def test_migration_ends_with_a_whole_statement(migration: Path) -> None:
    assert sqlite3.complete_statement(migration.read_text())  # what is left over would not be executed


async def test_migrations_are_done_once_and_in_order(file: Path, migrations: Path) -> None:
    async with opened_store(file) as store:
        run = await started(store)
    newest = version(file)
    assert newest == max([int(migration.name[:4]) for migration in migrations.iterdir()])
    (migrations / f"{newest + 2:04}_second.sql").write_text("ALTER TABLE fruit ADD COLUMN ripe;")
    (migrations / f"{newest + 1:04}_first.sql").write_text("-- One; two\nCREATE TABLE fruit (\n  name TEXT -- ;\n);\n")
    for _ in range(2):
        async with opened_store(file) as store:
            assert await store.run(run.id) is not None
        assert version(file) == newest + 2
    assert dict(schema(file))["fruit"].endswith(", ripe)")


async def test_migration_that_fails_leaves_the_file_as_it_was(file: Path, migrations: Path) -> None:
    async with opened_store(file):
        before = version(file), schema(file)
    bad = migrations / "0999_bad.sql"
    bad.write_text("CREATE TABLE fruit (name);\nINSERT INTO nothing VALUES (1);\n")
    store = SqliteStore(file)
    with pytest.raises(sqlite3.OperationalError):
        await store.open()
    assert (version(file), schema(file)) == before
    bad.unlink()
    async with opened(store):
        await store.check()
