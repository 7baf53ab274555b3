"""What is SQLite's own: one writer, some readers, and how durable what is."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from chat.commands import Claim, NewRetry, OnBusy
from chat.errors import ChatError, StoreUnavailableError
from chat.events import RunCancelled, TextDelta
from chat.sessions import NewSession
from store import sqlite_database
from store.rows import Rows, Work
from store.sqlite import SqliteStore
from tests.patience import PATIENCE, soon
from tests.scripted import message
from tests.store.files import opened_database, opened_store, started
from tests.store.sites import said

STOPPED = RunCancelled("requested")


async def test_cancelled_write_is_still_done_whole(sqlite: SqliteStore) -> None:
    new = message()
    writing = asyncio.create_task(sqlite.start_run(new))
    await asyncio.sleep(0)  # it has begun, and nothing of it is done
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    kept = await sqlite.start_run(message(session_id="ses_2"))  # waits for its turn behind the other
    assert await sqlite.run(new.id) is not None
    assert await sqlite.run(kept.run.id) is not None


async def test_cancelled_write_that_fails_stays_silent(sqlite: SqliteStore) -> None:
    await started(sqlite)
    writing = asyncio.create_task(sqlite.start_run(message("More")))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    with pytest.raises(ChatError, match="run_in_progress"):
        await started(sqlite)


@pytest.mark.parametrize("steps", range(8))
async def test_cancelled_read_leaves_its_connection_usable(sqlite: SqliteStore, steps: int) -> None:
    run = await started(sqlite)
    reading = asyncio.create_task(sqlite.run(run.id))
    for _ in range(steps):
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading})
    for _ in range(2 * sqlite_database.READERS):
        assert await sqlite.run(run.id) == run


async def test_reader_sees_one_moment_only(file: Path, sqlite: SqliteStore) -> None:
    await sqlite.create_session(NewSession("ses_1", "ann"))
    async with opened_database(file) as database:
        loop = asyncio.get_running_loop()

        async def twice(db: Rows) -> list[int]:
            counts = []
            for number in (2, 3):
                [(count,)] = await db.rows("SELECT count(*) FROM sessions")
                counts.append(count)
                creating = sqlite.create_session(NewSession(f"ses_{number}", "ann"))
                asyncio.run_coroutine_threadsafe(creating, loop).result(PATIENCE)
            return counts

        assert await database.read(twice) == [1, 1]


async def test_reader_cannot_write(file: Path) -> None:
    async with opened_database(file) as database:
        with pytest.raises(StoreUnavailableError):
            await database.read(lambda db: db.rows("DELETE FROM sessions"))


async def test_failed_write_is_undone(file: Path) -> None:
    async def work(db: Rows) -> None:
        await db.rows("INSERT INTO claims VALUES ('k', 'f', 'r', 0)")  # which is no run

    async with opened_database(file) as database:
        with pytest.raises(sqlite3.IntegrityError):  # our own mistake, and not the store's state
            await database.write(work, durable=True)
        assert await database.read(lambda db: db.rows("SELECT * FROM claims")) == []


@pytest.mark.parametrize("level", [(False, 1), (True, 2)], ids=["NORMAL", "FULL"])
async def test_transaction_is_as_durable_as_was_asked(file: Path, level: tuple[bool, int]) -> None:
    durable, synchronous = level
    async with opened_database(file) as database:
        for before in (True, False, durable):
            [(found,)] = await database.write(lambda db: db.rows("PRAGMA synchronous"), durable=before)
        assert found == synchronous


async def test_what_is_acknowledged_survives_power_loss_and_deltas_cost_no_sync(sqlite: SqliteStore) -> None:
    levels: dict[bool, list[str]] = {True: [], False: []}
    write = sqlite._database.write

    async def watched(work: Work[object], *, durable: bool) -> object:
        levels[durable].append(doing)
        return await write(work, durable=durable)

    sqlite._database.write = watched  # type: ignore[method-assign, assignment]
    doing = "start"
    run = await started(sqlite)
    doing = "delta"
    await sqlite.commit([said(run, TextDelta("Hi"))])
    doing = "end"
    await sqlite.commit([said(run, STOPPED, before=[TextDelta("Hi")])])
    doing = "retry"
    await sqlite.retry_run(NewRetry("run_2", run.id, "scripted", OnBusy.QUEUE, Claim("key", "print")))
    doing = "stop"
    await sqlite.request_cancel(run.id, "requested")
    doing = "session"
    await sqlite.create_session(NewSession("ses_2", "ann"))
    doing = "change"
    await sqlite.update_session("ses_2", {"title": "New"})
    doing = "delete"
    await sqlite.delete_session("ses_2")
    doing = "beat"
    await sqlite.beat()
    assert levels == {
        True: ["start", "end", "retry", "stop", "session", "change", "delete"],
        False: ["delta", "beat"],
    }


async def test_write_waits_for_its_turn_only_so_long(sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_database, "WRITER_TIMEOUT", 0.02)
    gate = threading.Event()

    async def hold(_: Rows) -> None:
        gate.wait(PATIENCE)

    holding = asyncio.create_task(sqlite._database.write(hold, durable=False))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError):
        await soon(sqlite.beat())
    gate.set()
    await soon(holding)
    await soon(sqlite.beat())


async def test_close_waits_for_what_is_being_written(file: Path) -> None:
    store = SqliteStore(file)
    await store.open()
    new = message()
    writing = asyncio.create_task(store.start_run(new))
    await asyncio.sleep(0)
    await soon(store.close())
    assert (await writing).run.id == new.id
    async with opened_store(file) as store:
        assert await store.run(new.id) is not None


async def test_database_that_closes_waits_for_its_writes(file: Path) -> None:
    gate = threading.Event()
    async with opened_database(file) as database:

        async def work(db: Rows) -> None:
            assert gate.wait(PATIENCE)
            await db.rows("INSERT INTO owners (lock) VALUES ('mine')")

        writing = asyncio.create_task(database.write(work, durable=True))
        await asyncio.sleep(0)
        closing = asyncio.create_task(database.close())
        await asyncio.sleep(0)
        gate.set()
        await soon(closing)
        await writing
    async with opened_database(file) as database:
        assert len(await database.read(lambda db: db.rows("SELECT * FROM owners"))) == 1


async def test_write_whose_caller_has_gone_does_not_mix_with_the_next(file: Path) -> None:
    begun, gate = threading.Event(), threading.Event()

    async def work(db: Rows) -> None:
        await db.rows("INSERT INTO owners (lock) VALUES ('first')")
        begun.set()
        assert gate.wait(PATIENCE)
        raise ValueError("undone")

    async with opened_database(file) as database:
        writing = asyncio.create_task(database.write(work, durable=True))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        writing.cancel()
        await asyncio.wait({writing})
        next_one = asyncio.create_task(
            database.write(lambda db: db.rows("INSERT INTO owners (lock) VALUES ('second')"), durable=True)
        )
        await asyncio.sleep(0)
        gate.set()
        await soon(next_one)
        assert await database.read(lambda db: db.rows("SELECT lock FROM owners")) == [("second",)]
