from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from chat.ports import Store
from store import sqlite_database
from store.postgres import PostgresStore
from store.sqlite import SqliteStore
from tests import postgres
from tests.store.files import opened_store
from tests.store.sites import PostgresSite, Site, SqliteSite


@pytest.fixture(params=["sqlite", "postgres"])
def shared(request: pytest.FixtureRequest) -> str | None:
    """The URL of a PostgreSQL database with nothing in it; None for SQLite."""
    return request.getfixturevalue("url") if request.param == "postgres" else None


@pytest.fixture
async def site(shared: str | None, tmp_path: Path) -> AsyncIterator[Site]:
    """A database of every kind that there is a store for, with nothing in it."""
    async with AsyncExitStack() as stack:
        if shared is None:
            yield SqliteSite(tmp_path / "chat.db", stack)
        else:
            yield PostgresSite(shared, stack)


@pytest.fixture
async def postgresql(url: str) -> AsyncIterator[PostgresStore]:
    async with postgres.opened_store(url) as store:
        yield store


@pytest.fixture
async def store(site: Site) -> Store:
    return await site.process()


@pytest.fixture
async def other(site: Site, store: Store) -> Store:
    """Another process on the same database."""
    return await site.process()


@pytest.fixture
async def sqlite(file: Path) -> AsyncIterator[SqliteStore]:
    async with opened_store(file) as store:
        yield store


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's locks are not waited for."""
    monkeypatch.setattr(sqlite_database, "BUSY_TIMEOUT_MS", 0)
