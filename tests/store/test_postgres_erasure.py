"""What is deleted is in no row of PostgreSQL's tables and in no byte of its files once they are rewritten."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from chat.commits import Append
from chat.events import TextDelta
from chat.sessions import NewSession
from store.postgres import PostgresStore
from tests import postgres
from tests.programs import unavailable
from tests.scripted import message
from tests.store.test_store_contract_users import asks_for_a_yes, gone, live, talk

CANARY = "canaryzephyr"

RELATIONS = """
    SELECT relname, pg_relation_filepath(oid) AS file FROM pg_class
    WHERE relkind IN ('r', 'i', 't', 'm') AND pg_relation_filepath(oid) IS NOT NULL
        AND relnamespace IN ('public'::regnamespace, 'pg_toast'::regnamespace)
    UNION ALL SELECT relname, pg_relation_filepath(oid) FROM pg_class WHERE relname = 'pg_statistic'
"""


@pytest.fixture
async def apart() -> AsyncIterator[str]:
    """A database that nobody has used before."""
    async with postgres.database() as url:
        yield url


@pytest.fixture
async def store(apart: str) -> AsyncIterator[PostgresStore]:
    async with postgres.opened_store(apart) as store:
        for number in range(40):
            await talk(store, "bob", f"bobs_{number}", f"Number {number} of many words " * 20)
            if number == 20:
                await live(store, "ann", f"the {CANARY} of ann, {CANARY * 40} " + "".join(map(chr, range(256, 9000))))
                await talk(store, CANARY, CANARY, CANARY)
                await asks_for_a_yes(store, CANARY, f"{CANARY}-2", CANARY)
                await store.update_session(f"{CANARY}-2", {"title": CANARY, "metadata": {CANARY: [CANARY]}})
        await store.sweep(3600)
        await store.sweep(3600)
        run = (await store.start_run(message(CANARY, session=NewSession(f"{CANARY}-3", CANARY)))).run
        await store.commit([Append(run, 1, [TextDelta(f"{CANARY} "), TextDelta("and more")])])
        yield store


async def in_rows(url: str) -> set[str]:
    """The tables in whose rows the canary is."""
    names = await postgres.rows(
        url, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    found = set()
    for (name,) in names:
        rows = await postgres.rows(url, f"SELECT t::text FROM {name} AS t WHERE t::text ILIKE '%{CANARY}%'")
        found |= {name} if rows else set()
    return found


async def in_files(url: str) -> set[str]:
    """The relations in whose files it is."""
    connection = await asyncpg.connect(url)
    try:
        if not await connection.fetchval("SELECT usesuper FROM pg_user WHERE usename = current_user"):
            unavailable("PostgreSQL shows its files only to a superuser")
        await connection.execute("CHECKPOINT")  # or they would be in memory
        found = set()
        for name, file in await connection.fetch(RELATIONS):
            data = await connection.fetchval("SELECT pg_read_binary_file($1, 0, 1 << 29, TRUE)", file)
            found |= {name} if CANARY.encode() in (data or b"").lower() else set()
        return found
    finally:
        await connection.close()


async def test_deleted_users_are_in_no_row_and_then_in_no_file(store: PostgresStore, apart: str) -> None:
    assert {"sessions", "messages", "runs", "records", "claims", "journal", "usage"} <= await in_rows(apart)
    await postgres.rows(apart, "ANALYZE")
    await gone(store, "ann")
    await gone(store, CANARY)
    assert await in_rows(apart) == set()
    await store.sweep(3600)
    assert {"messages", "runs"} <= await in_files(apart)
    await postgres.rows(apart, "VACUUM")
    assert "messages" in await in_files(apart)  # which marks room as free, and leaves what is in it
    await postgres.rows(apart, "ANALYZE")
    await postgres.rows(apart, "VACUUM FULL")
    assert await in_files(apart) == set()
    await talk(store, "bob", "goes-on")
