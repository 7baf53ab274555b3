"""A PostgreSQL server, and databases on it that nobody else uses."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from chat.ids import new_id
from store.postgres import PostgresStore
from tests.patience import PATIENCE
from tests.programs import unavailable

SERVER = os.environ.get("PARLEY_TEST_POSTGRES", "postgresql:///postgres?host=/var/run/postgresql")
"""A role that may create databases is enough. By default the local cluster, as the user who runs the tests."""

WANTED = "No PostgreSQL: start one (pg_ctlcluster), or name one in PARLEY_TEST_POSTGRES"


def on_server(database: str) -> str:
    """The URL of a database beside the one that the tests are given."""
    return re.sub(r"^(\w+://[^/]*/)[^?]*", rf"\g<1>{database}", SERVER)


async def connect(url: str = SERVER) -> Any:
    try:
        return await asyncpg.connect(url, timeout=10)
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        unavailable(f"{WANTED}: {error}")


@asynccontextmanager
async def database() -> AsyncIterator[str]:
    """The URL of a new database, which is dropped."""
    name = new_id("parley_test")
    server = await connect()
    try:
        await server.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        try:
            yield on_server(name)
        finally:
            await drop(server, name)
    finally:
        await server.close()


async def drop(server: Any, name: str) -> None:
    """FORCE ends the connections that there are, and gives up where they take 5 s for that, as on a busy machine."""
    await server.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
    async with asyncio.timeout(PATIENCE * 3):
        while True:
            with suppress(asyncpg.ObjectInUseError):
                await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
                return


@asynccontextmanager
async def opened_store(url: str, *, lease: float = 10.0) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, lease=lease)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def emptied(url: str) -> None:
    """As if it had just been made, which takes seconds: every table is emptied and every sequence begins anew."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            """SELECT relname, relkind FROM pg_class
               WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')"""
        )
        statements = [
            f"ALTER SEQUENCE {name} RESTART" if kind == b"S" else f"DELETE FROM {name}"
            for name, kind in tables
            if name != "parley_schema"
        ]
        await connection.execute(f"BEGIN; SET LOCAL synchronous_commit = off; {'; '.join(statements)}; COMMIT")
    finally:
        await connection.close()


async def rows(url: str, sql: str, *values: object) -> list[Any]:
    """What is in the database, seen from outside."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(sql, *values)]
    finally:
        await connection.close()
