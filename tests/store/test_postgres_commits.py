"""How the store on PostgreSQL commits: in one trip where it can, once whatever happens to the connection."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import pytest

from chat.commits import Append
from chat.errors import StoreUnavailableError
from chat.events import Event, RunCancelled, TextDelta
from chat.runs import Run
from store import journal, postgres_database
from store import postgres as store_on_postgres
from store.postgres import PostgresStore
from store.postgres_errors import doubtful
from store.postgres_rows import _JOURNAL, PostgresRows
from tests import postgres
from tests.patience import PATIENCE, soon
from tests.postgres import opened_store, rows
from tests.scripted import message
from tests.store.sites import logged, read_along, said

T = TypeVar("T")

HI, THERE, STOPPED = TextDelta("Hi "), TextDelta("there"), RunCancelled("requested")

Lose = Callable[[Any, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Does a commit on a connection, or does not, and may raise what asyncpg would."""


@pytest.fixture
async def second(url: str, postgresql: PostgresStore) -> AsyncIterator[PostgresStore]:
    async with opened_store(url) as store:
        yield store


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Callable[[Lose], None]:
    """Puts something in the place of every commit, be it one statement or a transaction's end."""
    append, commit = PostgresRows.append, postgres_database._commit

    def replace(lose: Lose) -> None:
        async def in_one(self: PostgresRows, *values: Any) -> bool:
            return bool(await lose(self._connection, lambda: append(self, *values)))

        async def at_the_end(connection: Any, result: object) -> None:
            with doubtful(result):
                await lose(connection, lambda: commit(connection, result))

        monkeypatch.setattr(PostgresRows, "append", in_one)
        monkeypatch.setattr(postgres_database, "_commit", at_the_end)

    return replace


@asynccontextmanager
async def turn_taken(url: str) -> AsyncIterator[None]:
    """Nobody can add to the journal while inside."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _JOURNAL)
        yield
    finally:
        await connection.close()


async def until_waiting(url: str, count: int) -> None:
    """Until so many wait for the journal's turn."""
    waiting = """SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
                 WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"""
    async with asyncio.timeout(PATIENCE):
        while (await rows(url, waiting))[0][0] < count:
            pass


async def begun(store: PostgresStore, count: int) -> list[Run]:
    started = await asyncio.gather(*(store.start_run(message(session_id=f"ses_{n}")) for n in range(count)))
    return [start.run for start in started]


# --- trips


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the server was asked for what."""
    counted: Counter[str] = Counter()
    for name in ("execute", "executemany", "fetch", "fetchmany"):
        original = getattr(asyncpg.Connection, name)

        async def asked(self: Any, query: str, *values: Any, _original: Any = original, **options: Any) -> Any:
            counted[" ".join(query.split()[:2])] += 1
            return await _original(self, query, *values, **options)

        monkeypatch.setattr(asyncpg.Connection, name, asked)
    return counted


async def test_commit_of_deltas_is_one_trip(trips: Counter[str], postgresql: PostgresStore) -> None:
    runs = await begun(postgresql, 20)
    trips.clear()
    await postgresql.commit([said(run, HI, THERE) for run in runs])
    assert trips == {"WITH turn": 1}
    assert len((await read_along(postgresql, 0)).entries) == 40


async def test_ends_take_no_more_trips_when_they_are_many(trips: Counter[str], postgresql: PostgresStore) -> None:
    runs = await begun(postgresql, 301)
    asked = []
    for ending in (runs[:1], runs[1:]):
        trips.clear()
        assert not (await postgresql.commit([said(run, HI, STOPPED) for run in ending])).lost
        asked.append(dict(trips))
    assert asked[0] == asked[1]
    for run in (runs[0], runs[300]):
        assert await logged(postgresql, run.id) == [HI, STOPPED]


# --- turns


async def test_crowd_that_starts_does_not_hold_up_what_goes_on(postgresql: PostgresStore, gate: asyncio.Event) -> None:
    """A token, a sign of life and a follower need a connection at once; each request can wait for its turn."""

    async def hold(db: Any) -> None:
        await gate.wait()

    run = (await postgresql.start_run(message())).run
    ordinary = postgres_database.CONNECTIONS - postgres_database.URGENT
    held = [asyncio.create_task(postgresql._database.read(hold)) for _ in range(ordinary)]
    crowd = [asyncio.create_task(postgresql.start_run(message(session_id=f"ses_{n}x"))) for n in range(250)]
    await asyncio.sleep(0)
    assert not (await soon(postgresql.commit([said(run, HI)]))).lost
    await soon(postgresql.beat())
    assert list(await soon(postgresql.claim())) == []
    assert list(await soon(postgresql.cancel_requests())) == []
    assert [entry[2] for entry in (await soon(postgresql.tail(0, [run.id]))).entries] == [HI]
    assert not (await soon(postgresql.commit([said(run, STOPPED, before=[HI])]))).lost
    assert not any(start.done() for start in crowd)
    gate.set()
    await asyncio.gather(*held)
    assert len({start.run.id for start in await asyncio.gather(*crowd)}) == 250


async def test_request_that_waits_too_long_for_its_turn_is_refused(
    postgresql: PostgresStore, monkeypatch: pytest.MonkeyPatch, gate: asyncio.Event
) -> None:
    async def hold(db: Any) -> None:
        await gate.wait()

    held = [asyncio.create_task(postgresql._database.read(hold)) for _ in range(postgres_database.CONNECTIONS)]
    await asyncio.sleep(0)
    monkeypatch.setattr(postgres_database, "QUEUE_SECONDS", 0.01)
    with pytest.raises(StoreUnavailableError):
        await soon(postgresql.start_run(message()))
    gate.set()
    await asyncio.gather(*held, return_exceptions=True)
    monkeypatch.undo()
    await postgresql.start_run(message())


# --- fences


async def test_owner_that_dies_while_it_waits_for_its_turn_is_refused(
    url: str, postgresql: PostgresStore, second: PostgresStore
) -> None:
    """The statement had begun when the owner lived; what counts is when its turn comes."""
    run = (await postgresql.start_run(message())).run
    async with turn_taken(url):
        writing = asyncio.create_task(postgresql.commit([said(run, HI)]))
        await until_waiting(url, 1)
        await rows(url, "DELETE FROM owners WHERE id = $1", run.owner)
        [taken] = await second.claim()
    assert (await soon(writing)).lost == {run.id}
    assert not (await second.commit([said(taken, THERE)])).lost
    assert await logged(second, run.id) == [THERE]


async def test_commit_that_is_still_on_its_way_is_refused(
    url: str, postgresql: PostgresStore, commits: Callable[[Lose], None]
) -> None:
    """Its connection was lost before the server had it, and it was done again: what arrives later comes to nothing."""
    late: list[object] = []

    async def delay(connection: Any, commit: Callable[[], Awaitable[Any]]) -> Any:
        if late:
            return await commit()
        late.append(connection)
        connection.terminate()
        raise ConnectionResetError

    run = (await postgresql.start_run(message())).run
    owner, fence = postgresql._owners.id, postgresql._owners.fence
    commits(delay)
    assert not (await soon(postgresql.commit([said(run, HI)]))).lost
    entries = list(journal.entries([said(run, HI)]))
    connection = await asyncpg.connect(url)
    try:
        assert not await PostgresRows(connection, "late").append(owner, fence, entries, "on")
    finally:
        await connection.close()
    assert await logged(postgresql, run.id) == [HI]
    assert not (await postgresql.commit([said(run, THERE, before=[HI])])).lost


async def test_commit_whose_connection_was_lost_while_it_waited_is_done_once(
    url: str, postgresql: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes on waiting for the turn, and then it is too late."""
    connections: list[Any] = []
    append = PostgresRows.append

    async def watched(self: PostgresRows, *values: Any) -> bool:
        connections.append(self._connection)
        return await append(self, *values)

    monkeypatch.setattr(PostgresRows, "append", watched)
    run = (await postgresql.start_run(message())).run
    async with turn_taken(url):
        writing = asyncio.create_task(postgresql.commit([said(run, HI)]))
        await until_waiting(url, 1)
        connections[0].terminate()
        await until_waiting(url, 2)  # the first one is still there
    assert not (await soon(writing)).lost
    assert await logged(postgresql, run.id) == [HI]
    assert await rows(url, "SELECT seq FROM journal") == [(1,)]


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("end", [[THERE], [THERE, STOPPED]], ids=["delta", "end"])
async def test_commit_in_doubt_is_looked_up_and_done_once(
    postgresql: PostgresStore, commits: Callable[[Lose], None], end: list[Event], *, committed: bool
) -> None:
    lost: list[object] = []

    async def lose(connection: Any, commit: Callable[[], Awaitable[Any]]) -> Any:
        found = await commit() if committed or len(lost) > 2 else None
        if len(lost) < 3:
            lost.append(found)
            connection.terminate()
            raise ConnectionResetError
        return found

    run = (await postgresql.start_run(message())).run
    await postgresql.commit([said(run, HI)])
    commits(lose)
    assert not (await soon(postgresql.commit([said(run, *end, before=[HI])]))).lost
    assert len(lost) == 3
    assert await logged(postgresql, run.id) == [HI, *end]
    assert len((await read_along(postgresql, 0)).entries) == 1 + len(end)


@pytest.mark.parametrize("end", [[THERE], [STOPPED]], ids=["delta", "end"])
async def test_commit_in_doubt_is_lost_where_another_process_went_on(
    url: str,
    postgresql: PostgresStore,
    second: PostgresStore,
    monkeypatch: pytest.MonkeyPatch,
    commits: Callable[[Lose], None],
    end: list[Event],
) -> None:
    """A process that freezes in its commit finds another one's event in the place of its own."""

    async def freeze(connection: Any, _: Callable[[], Awaitable[Any]]) -> None:
        monkeypatch.undo()
        connection.terminate()
        await rows(url, "DELETE FROM owners WHERE id = $1", run.owner)
        [taken] = await second.claim()
        await second.commit([said(taken, TextDelta("else"), before=[HI])])
        raise ConnectionResetError

    run = (await postgresql.start_run(message())).run
    await postgresql.commit([said(run, HI)])
    commits(freeze)
    assert (await soon(postgresql.commit([said(run, *end, before=[HI])]))).lost == {run.id}
    assert await logged(second, run.id) == [HI, TextDelta("else")]


async def test_commit_gives_up_after_a_while(
    postgresql: PostgresStore, monkeypatch: pytest.MonkeyPatch, commits: Callable[[Lose], None]
) -> None:
    async def lose(connection: Any, _: Callable[[], Awaitable[Any]]) -> None:
        connection.terminate()
        raise ConnectionResetError

    run = (await postgresql.start_run(message())).run
    commits(lose)
    monkeypatch.setattr(store_on_postgres, "COMMIT_SECONDS", 0)
    with pytest.raises(StoreUnavailableError):
        await soon(postgresql.commit([said(run, HI)]))


# --- what is on the disk


async def test_every_commit_is_flushed(postgresql: PostgresStore) -> None:
    """Else the server could not be killed without a loss, neither of what was seen nor of who owns what."""
    level = "SELECT current_setting('synchronous_commit')"
    for durable in (True, False):
        [(found,)] = await postgresql._database.write(lambda db: db.rows(level), durable=durable)
        assert found == "on"


@pytest.mark.parametrize("pooled", [False, True])
async def test_commit_in_one_statement_is_flushed_where_the_database_would_not(*, pooled: bool) -> None:
    async with postgres.database() as url:
        await rows(
            url,
            "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET synchronous_commit = off'; END $$",
        )
        async with opened_store(f"{url}&statement_cache_size=0" if pooled else url) as store:
            await rows(url, "CREATE TABLE seen (level TEXT)")
            await rows(
                url,
                """CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                       INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$""",
            )
            await rows(
                url,
                """CREATE CONSTRAINT TRIGGER see AFTER INSERT ON journal DEFERRABLE INITIALLY DEFERRED
                   FOR EACH ROW EXECUTE FUNCTION see()""",
            )
            run = (await store.start_run(message())).run
            commit: list[Append] = [said(run, HI)]
            assert not (await store.commit(commit)).lost
            assert await rows(url, "SHOW synchronous_commit") == [("off",)]
            assert await rows(url, "SELECT level FROM seen") == [("on",)]  # when all else is done, at the commit itself
