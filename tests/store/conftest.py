from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from chat.ports import Store
from store import sqlite_database
from store.sqlite import SqliteStore
from tests.store.files import opened_store
from tests.store.sites import Site, SqliteSite


@pytest.fixture(params=["sqlite"])
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A database of every kind that there is a store for."""
    async with AsyncExitStack() as stack:
        yield SqliteSite(tmp_path / "chat.db", stack)


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
