"""What only the store on PostgreSQL does: its locks, its clock, its connections."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from chat.commands import Claim
from chat.commits import Append
from chat.errors import ChatError, StoreNewerError, StoreUnavailableError
from chat.events import Event, RunCancelled, TextDelta
from store import postgres_database, postgres_errors
from store.postgres import PostgresStore
from store.postgres_rows import PostgresRows, hidden, numbered, shown
from store.rows import Rows
from tests import postgres
from tests.patience import PATIENCE, soon
from tests.postgres import opened_store, rows
from tests.scripted import message
from tests.store.sites import logged, read_along, said

MIGRATIONS = Path(postgres_database.__file__).parent / "migrations/postgres"

HI, THERE, STOPPED = TextDelta("Hi "), TextDelta("there"), RunCancelled("requested")


@pytest.fixture
async def second(url: str, postgresql: PostgresStore) -> AsyncIterator[PostgresStore]:
    async with opened_store(url) as store:
        yield store


# --- the schema


async def test_processes_that_start_together_make_the_tables_once() -> None:
    async with postgres.database() as url, AsyncExitStack() as stack:
        stores = [PostgresStore(url) for _ in range(3)]
        for store in stores:
            stack.push_async_callback(store.close)
        await asyncio.gather(*(store.open() for store in stores))
        run = (await stores[0].start_run(message())).run
        assert await stores[2].run(run.id) == run
        assert await rows(url, "SELECT max(version) FROM parley_schema") == [
            (max(int(file.name[:4]) for file in MIGRATIONS.iterdir()),)
        ]
        await rows(url, "INSERT INTO parley_schema VALUES (999)")
        late = PostgresStore(url)
        with pytest.raises(StoreNewerError):
            await late.open()
        await late.close()
        assert await rows(url, "SELECT count(*) FROM owners") == [(3,)]


async def test_database_in_another_encoding_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    server = await postgres.connect()
    try:
        await server.execute("CREATE DATABASE parley_latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        try:
            store = PostgresStore(postgres.on_server("parley_latin"))
            with pytest.raises(StoreUnavailableError):
                await store.open()
            await store.close()
            assert "LATIN1, and has to be UTF8" in caplog.text
        finally:
            await postgres.drop(server, "parley_latin")
    finally:
        await server.close()


async def test_server_that_is_not_there_is_unavailable() -> None:
    store = PostgresStore("postgresql://127.0.0.1:9/parley")
    with pytest.raises(StoreUnavailableError):
        await store.open()
    with pytest.raises(StoreUnavailableError):
        await store.check()
    await store.close()


# --- statements


def test_values_have_their_places_and_texts_and_casts_are_left_alone() -> None:
    assert numbered("SELECT ?, ':no', '?', x::text WHERE a = ?") == (
        "SELECT $1, ':no', '?', x::text WHERE a = $2",
        [],
    )
    assert numbered("a = :b AND c = :d AND e = :b") == ("a = $1 AND c = $2 AND e = $1", ["b", "d"])


@pytest.mark.parametrize("text", ["", "a", "\0", "\uffff", "\uffff0", "\uffff1\0", "\0\uffff\0", "1\uffff\uffff0"])
def test_nul_is_hidden_and_comes_back(text: str) -> None:
    assert "\0" not in hidden(text)
    assert shown(hidden(text)) == text


# --- two writers


async def test_position_is_never_seen_before_a_smaller_one(
    postgresql: PostgresStore, second: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has its positions and has not committed; the second must not be readable behind them."""
    entered, gate = asyncio.Event(), asyncio.Event()
    enter = PostgresRows.enter

    async def slow(self: PostgresRows, entries: Any) -> None:
        await enter(self, entries)
        if entries[0][0] == first.id:
            entered.set()
            await gate.wait()

    monkeypatch.setattr(PostgresRows, "enter", slow)
    first = (await postgresql.start_run(message())).run
    other = (await second.start_run(message(session_id="ses_2"))).run
    start = await second.position()
    writing = asyncio.create_task(postgresql.commit([said(first, HI, STOPPED)]))
    await soon(entered.wait())
    behind = asyncio.create_task(second.commit([said(other, THERE)]))
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with asyncio.timeout(PATIENCE):
        while (await second._database.read(lambda db: db.rows(waiting)))[0][0] < 1:
            assert not behind.done()
    seen = await read_along(second, start)
    assert list(seen.entries) == []
    gate.set()
    await soon(asyncio.gather(writing, behind))
    assert list((await read_along(second, seen.pos)).entries) == [
        (first.id, 1, HI),
        (first.id, 2, STOPPED),
        (other.id, 1, THERE),
    ]


async def test_reader_misses_nothing_of_two_who_write_as_fast_as_they_can(
    postgresql: PostgresStore, second: PostgresStore
) -> None:
    runs = [
        (store, (await store.start_run(message(session_id=store._database.name))).run) for store in (postgresql, second)
    ]

    async def write(store: PostgresStore, run: Any) -> None:
        for number in range(100):
            await store.commit([Append(run, number + 1, [TextDelta(f"{number}")])])

    writing = asyncio.gather(*(write(store, run) for store, run in runs))
    seen: dict[str, list[int]] = {run.id: [] for _, run in runs}
    position, over = 0, False
    while True:
        over = writing.done()
        tail = await second.tail(position, list(seen))
        for run_id, seq, _ in tail.entries:
            seen[run_id].append(seq)
        position = tail.pos
        if over and not tail.entries:
            break
    await writing
    assert list(seen.values()) == [list(range(1, 101))] * 2


async def test_one_key_and_one_session_are_one_run_however_many_ask_at_once(
    postgresql: PostgresStore, second: PostgresStore
) -> None:
    claim = Claim("key", "print")
    started = await asyncio.gather(
        *(store.start_run(message(claim=claim)) for store in (postgresql, second) for _ in range(4))
    )
    assert len({start.run.id for start in started}) == 1
    assert sorted(start.created for start in started) == [False] * 7 + [True]
    answers = await asyncio.gather(
        *(store.start_run(message(session_id="ses_2")) for store in (postgresql, second) for _ in range(4)),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if isinstance(answer, ChatError)]
    assert {error.code for error in refused} == {"run_in_progress"}
    assert len(refused) == 7


async def test_runs_of_the_dead_are_taken_once_however_many_claim_at_once(
    url: str, postgresql: PostgresStore, second: PostgresStore
) -> None:
    async with opened_store(url) as dead:
        runs = [(await dead.start_run(message(session_id=f"ses_{number}"))).run.id for number in range(8)]
        await rows(url, "DELETE FROM owners WHERE id = $1", dead._owners.id)
        taken = await asyncio.gather(*(store.claim() for store in (postgresql, second) for _ in range(3)))
        assert sorted(run.id for claimed in taken for run in claimed) == runs


# --- who lives


async def test_lease_runs_out_by_the_databases_clock(url: str, postgresql: PostgresStore) -> None:
    async with opened_store(url, lease=0.3) as observer:
        run = (await postgresql.start_run(message())).run
        await rows(url, "UPDATE owners SET beat = beat + interval '1 day'")  # the clock was turned back
        assert list(await observer.claim()) == []
        assert await rows(url, "SELECT count(*) FROM owners WHERE beat > now() + interval '1 minute'") == [(0,)]
        await rows(url, "UPDATE owners SET beat = now() - interval '1 day' WHERE id = $1", postgresql._owners.id)
        [taken] = await observer.claim()
        assert (taken.id, taken.epoch) == (run.id, 2)
        assert (await postgresql.commit([said(run, HI)])).lost == {run.id}
        await postgresql.beat()
        assert postgresql._owners.id not in (run.owner, taken.owner)


async def test_owner_is_not_buried_while_it_commits(
    url: str, postgresql: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its events would follow those of the new owner."""
    entered, gate = asyncio.Event(), asyncio.Event()
    enter = PostgresRows.enter

    async def slow(self: PostgresRows, entries: Any) -> None:
        entered.set()
        await gate.wait()
        await enter(self, entries)

    async with opened_store(url, lease=0.3) as observer:
        run = (await postgresql.start_run(message())).run
        await rows(url, "UPDATE owners SET beat = now() - interval '1 day' WHERE id = $1", run.owner)
        monkeypatch.setattr(PostgresRows, "enter", slow)
        writing = asyncio.create_task(postgresql.commit([said(run, HI, STOPPED)]))
        await soon(entered.wait())
        assert list(await soon(observer.claim())) == []
        assert await rows(url, "SELECT count(*) FROM owners WHERE id = $1", run.owner) == [(1,)]
        gate.set()
        assert not (await soon(writing)).lost
        assert await logged(observer, run.id) == [HI, STOPPED]


# --- lost connections


async def test_store_finds_its_database_again(url: str, postgresql: PostgresStore) -> None:
    run = (await postgresql.start_run(message())).run
    for _ in range(3):
        await cut_off(url)
        await until_back(postgresql)
    assert not (await postgresql.commit([said(run, HI)])).lost


async def test_run_whose_start_may_be_committed_is_nobodys_until_it_is_claimed(
    url: str, postgresql: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(connection: Any, result: object) -> None:
        await commit(connection, result)
        raise postgres_errors.DoubtfulError(result)

    commit = postgres_database._commit
    monkeypatch.setattr(postgres_database, "_commit", lost)
    with pytest.raises(StoreUnavailableError):
        await postgresql.start_run(message())
    monkeypatch.undo()
    [(run_id,)] = await rows(url, "SELECT id FROM runs")
    [run] = await postgresql.claim()
    assert (run.id, run.epoch) == (run_id, 2)
    assert list(await postgresql.claim()) == []


async def test_connection_that_is_lost_in_a_commit_leaves_it_in_doubt(url: str, postgresql: PostgresStore) -> None:
    async def cut(db: Rows) -> int:
        await cut_off(url)
        return 7

    with pytest.raises(StoreUnavailableError) as caught:
        await postgresql._database.write(cut, durable=True)
    assert isinstance(caught.value, postgres_errors.DoubtfulError)
    assert caught.value.result == 7


async def test_transaction_whose_caller_has_gone_fails_in_silence(
    url: str, postgresql: PostgresStore, caplog: pytest.LogCaptureFixture
) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def cut(db: Rows) -> None:
        begun.set()
        await gate.wait()
        await cut_off(url)

    caller = asyncio.create_task(postgresql._database.write(cut, durable=False))
    await soon(begun.wait())
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    gate.set()
    await soon(asyncio.wait(postgresql._database._jobs))
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_transaction_that_takes_too_long_loses_its_connection(
    postgresql: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_database, "TRANSACTION_SECONDS", 0.1)
    with pytest.raises(StoreUnavailableError):
        await soon(postgresql._database.read(lambda db: db.rows("SELECT pg_sleep(60)")))
    monkeypatch.undo()
    await postgresql.check()


async def test_process_that_stands_still_in_a_transaction_holds_nobody_up(url: str, postgresql: PostgresStore) -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def stand_still(db: Rows) -> None:
        await db.enter([("run_1", 1, "text.delta", "never")])
        entered.set()
        await gate.wait()

    run = (await postgresql.start_run(message())).run
    async with opened_store(url, lease=1) as frozen:
        holding = asyncio.create_task(frozen._database.write(stand_still, durable=False))
        await soon(entered.wait())
        assert not (await soon(postgresql.commit([said(run, HI)]))).lost
        gate.set()
        with pytest.raises(StoreUnavailableError):
            await soon(holding)
    assert [entry[0] for entry in (await read_along(postgresql, 0)).entries] == [run.id]


async def test_write_whose_caller_has_gone_is_done_all_the_same(postgresql: PostgresStore) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def work(db: Rows) -> None:
        begun.set()
        await gate.wait()
        await db.rows("INSERT INTO owners DEFAULT VALUES")

    writing = asyncio.create_task(postgresql._database.write(work, durable=True))
    await soon(begun.wait())
    writing.cancel()
    await asyncio.wait({writing})
    assert writing.cancelled()
    gate.set()
    async with asyncio.timeout(PATIENCE):
        while len(await postgresql._database.read(lambda db: db.rows("SELECT 1 FROM owners"))) < 2:
            pass


async def test_reader_cannot_write(postgresql: PostgresStore) -> None:
    with pytest.raises(StoreUnavailableError):
        await postgresql._database.read(lambda db: db.rows("DELETE FROM sessions"))


async def test_event_that_no_column_can_hold_is_our_own_mistake(postgresql: PostgresStore) -> None:
    run = (await postgresql.start_run(message())).run
    with pytest.raises((UnicodeEncodeError, asyncpg.DataError)):
        await postgresql.commit([said(run, TextDelta("\ud83d"))])
    assert not (await postgresql.commit([said(run, HI)])).lost


# --- the doorbell


async def test_doorbell_rings_for_what_others_commit_and_again_when_its_connection_was_lost(
    url: str, postgresql: PostgresStore, second: PostgresStore
) -> None:
    run = (await postgresql.start_run(message())).run
    log: list[Event] = []
    for _ in range(2):
        await soon(listening(second))
        while await second.changed():
            pass
        await postgresql.commit([said(run, HI, before=log)])
        log.append(HI)
        await soon(second.doorbell(PATIENCE))
        assert await second.changed()
        await cut_off(url)
        async with asyncio.timeout(PATIENCE):
            while second._doorbell._listening:
                await second.doorbell(0.01)
                await second.changed()
        await until_back(postgresql)


async def test_who_cannot_listen_looks_every_moment(url: str, caplog: pytest.LogCaptureFixture) -> None:
    class Deaf(postgres_database.Database):
        async def connect(self) -> Any:
            raise StoreUnavailableError

    store = PostgresStore(url)
    store._doorbell._database = Deaf(url)
    try:
        await store.open()
        assert await store.changed()
        async with asyncio.timeout(PATIENCE):
            while not await store.changed():
                await store.doorbell(0.01)
        assert "looking ten times a second instead" in caplog.text
    finally:
        await store.close()


# --- poolers


@pytest.mark.parametrize(
    ("url", "rest", "options"),
    [
        ("postgresql://a/b", "postgresql://a/b", {}),
        (
            "postgresql://a/b?statement_cache_size=0&sslmode=require",
            "postgresql://a/b?sslmode=require",
            {"statement_cache_size": 0},
        ),
        ("postgresql://a:6543/b", "postgresql://a:6543/b", {"statement_cache_size": 0}),
        ("postgresql:///b?host=/var/run/x", "postgresql:///b?host=%2Fvar%2Frun%2Fx", {}),
    ],
)
def test_poolers_are_told_by_the_url(url: str, rest: str, options: dict[str, int]) -> None:
    assert postgres_database._split(url) == (rest, options)


async def test_pooler_that_mixes_connections_up_is_told_what_to_set(
    postgresql: PostgresStore, caplog: pytest.LogCaptureFixture
) -> None:
    async def mixed_up(db: Rows) -> None:
        await db.rows("SELECT 7")
        await db.rows("DEALLOCATE ALL")
        await db.rows("SELECT 7")

    with pytest.raises(StoreUnavailableError):
        await postgresql._database.write(mixed_up, durable=False)
    assert "DATABASE_URL has to say ?statement_cache_size=0" in caplog.text


async def test_store_works_without_prepared_statements(url: str) -> None:
    async with opened_store(f"{url}&statement_cache_size=0") as store:
        run = (await store.start_run(message())).run
        await store.commit([said(run, HI, STOPPED)])
        assert await logged(store, run.id) == [HI, STOPPED]


async def cut_off(url: str) -> None:
    """As if the server had lost all of its connections."""
    await rows(
        url,
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE datname = current_database() AND pid <> pg_backend_pid()""",
    )


async def until_back(store: PostgresStore) -> None:
    """Wait until the store can be written to; it need not be told."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await store.beat()
            except StoreUnavailableError:
                pass


async def listening(store: PostgresStore) -> None:
    while not store._doorbell._listening:
        await store.doorbell(0.01)
        await store.changed()
