"""What the store's contract tests stand on: a database that several processes share, and entries for its logs."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

from chat.commits import Append, Settlement, Tail
from chat.events import Event, Source, Terminal, answer_text
from chat.ports import Store
from chat.runs import Run
from chat.steps import steps_of
from chat.usage import Share
from store.postgres import PostgresStore
from store.sql import SqlStore
from store.sqlite import SqliteStore
from tests.postgres import rows


class Site(Protocol):
    """One database. A store stands for a process that has it open."""

    async def process(self) -> Store: ...

    async def kill(self, store: Store) -> None:
        """Let the others see this process as dead, although it goes on writing: its kernel is not its clock."""
        ...


class SqliteSite:
    def __init__(self, path: Path, stack: AsyncExitStack) -> None:
        self._path = path
        self._stack = stack

    async def process(self) -> Store:
        store = SqliteStore(self._path)
        self._stack.push_async_callback(store.close)
        await store.open()
        return store

    async def kill(self, store: Store) -> None:
        assert isinstance(store, SqliteStore)
        store._owners.close()


class PostgresSite:
    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack

    async def process(self) -> Store:
        store = PostgresStore(self._url)
        self._stack.push_async_callback(store.close)
        await store.open()
        return store

    async def kill(self, store: Store) -> None:
        assert isinstance(store, PostgresStore)
        await rows(self._url, "DELETE FROM owners WHERE id = $1", store._owners.id)


def said(run: Run, *events: Event, before: Sequence[Event] = ()) -> Append:
    """These events behind ``before``, which are committed already; the end of the run if the last one is."""
    log, settlement = [*before, *events], None
    if isinstance(events[-1], Terminal):
        usage = events[-1].usage
        sources = [event for event in log if isinstance(event, Source)]
        shares = [] if usage is None else [Share(run.model, usage)]
        settlement = Settlement(events[-1], answer_text(log), log, steps_of(log)[0], shares, sources)
    return Append(run, len(before) + 1, events, settlement)


async def logged(store: Store, run_id: str, after: int = 0, limit: int = 100) -> list[Event]:
    """All that the store has of the run's log, page by page; checks that the pages are neighbours."""
    events: list[Event] = []
    while (batch := await store.events(run_id, after, limit)).events:
        assert batch.first_seq == after + 1
        assert len(batch.events) <= limit
        events += batch.events
        after += len(batch.events)
    return events


async def read_along(store: Store, after: int) -> Tail:
    """What anybody has said behind the position."""
    assert isinstance(store, SqlStore)
    everybody = await store._database.read(lambda db: db.rows("SELECT DISTINCT run_id FROM journal"))
    return await store.tail(after, [run_id for (run_id,) in everybody])
