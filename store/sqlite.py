"""The store on one SQLite file, for one machine: :class:`chat.ports.Store`."""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from chat.commands import Claim, NewRetry, NewRun, NewSideRun, Started
from chat.commits import Append, Batch, Committed, Recollection, Tail
from chat.errors import StoreCorruptError, StoreUnavailableError
from chat.records import Record
from chat.runs import Run, RunKind
from chat.search import Hit, Search
from chat.sessions import Branch, Message, NewSession, Page, Session, Summary, Turn
from chat.terms import Terms
from chat.usage import UsageQuery, UsageSum
from store import (
    sqlite_journal,
    sqlite_memory,
    sqlite_runs,
    sqlite_search,
    sqlite_sessions,
    sqlite_tools,
    sqlite_usage,
)
from store.sqlite_database import Database
from store.sqlite_owners import Owners


class SqliteStore:
    """Starts and ends of runs survive power loss; deltas survive a killed process.

    ``lease`` is in seconds: how long an owner may stand still before others take its runs.
    """

    def __init__(self, path: Path, *, lease: float = 10.0) -> None:
        self._database = Database(path)
        self._owners = Owners(path, lease=lease)
        self._prunable = 0

    async def open(self) -> None:
        """Open the file and become an owner of runs; raises as :meth:`Database.open` does."""
        await self._database.open()
        try:
            await self._database.write(self._owners.register, durable=False)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        try:
            await self._database.write(self._owners.resign, durable=False)
        except (StoreUnavailableError, StoreCorruptError):
            pass  # never opened, damaged, or out of reach: the kernel's lock says the same
        finally:
            self._owners.close()
            await self._database.close()

    # runs

    async def start_run(self, new: NewRun) -> Started:
        def work(db: sqlite3.Connection) -> Started:
            self._owners.beat(db)
            return sqlite_runs.start_run(db, new, self._owners.id)

        return await self._database.write(work, durable=True)

    async def claimed(self, claim: Claim) -> Started | None:
        return await self._database.read(lambda db: sqlite_runs.claimed(db, claim))

    async def retry_run(self, new: NewRetry) -> Started:
        def work(db: sqlite3.Connection) -> Started:
            self._owners.beat(db)
            return sqlite_runs.retry_run(db, new, self._owners.id)

        return await self._database.write(work, durable=True)

    async def start_side_run(self, new: NewSideRun) -> Run | None:
        def work(db: sqlite3.Connection) -> Run | None:
            self._owners.beat(db)
            return sqlite_memory.start_side_run(db, new, self._owners.id)

        return await self._database.write(work, durable=False)

    async def commit(self, batch: Sequence[Append]) -> Committed:
        durable = any(append.settlement is not None or append.durable for append in batch)
        return await self._database.write(lambda db: sqlite_journal.commit(db, batch), durable=durable)

    async def run(self, run_id: str) -> Run | None:
        return await self._database.read(lambda db: sqlite_runs.find_run(db, run_id))

    async def active_run(self, session_id: str, *, beside: bool = False) -> Run | None:
        return await self._database.read(lambda db: sqlite_runs.active_run(db, session_id, beside=beside))

    async def events(self, run_id: str, after: int, limit: int) -> Batch:
        return await self._database.read(lambda db: sqlite_journal.read_events(db, run_id, after, limit))

    async def terms(self, run_id: str) -> Terms:
        return await self._database.read(lambda db: sqlite_runs.find_terms(db, run_id))

    async def run_of_key(self, key: str) -> str | None:
        return await self._database.read(lambda db: sqlite_runs.run_of_key(db, key))

    async def request_cancel(self, run_id: str, reason: str) -> None:
        await self._database.write(lambda db: sqlite_runs.request_cancel(db, run_id, reason), durable=True)

    # ownership

    async def claim(self) -> Sequence[Run]:
        def work(db: sqlite3.Connection) -> Sequence[Run]:
            self._owners.beat(db)
            self._owners.bury(db)
            return sqlite_runs.claim(db, self._owners.id)

        try:
            return await self._database.write(work, durable=False)
        except StoreUnavailableError:
            self._owners.forget()
            raise

    async def beat(self) -> None:
        await self._database.write(self._owners.beat, durable=False)

    async def adopt(self, run_id: str) -> Run | None:
        def work(db: sqlite3.Connection) -> Run | None:
            self._owners.beat(db)
            return sqlite_runs.adopt(db, run_id, self._owners.id)

        return await self._database.write(work, durable=False)

    async def hand_back(self) -> None:
        # The next beat makes this process a new owner: what it may still write to these runs is refused.
        await self._database.write(self._owners.resign, durable=False)

    async def release(self, run_id: str) -> None:
        await self._database.write(lambda db: sqlite_runs.release(db, run_id, self._owners.id), durable=False)

    async def cancel_requests(self) -> Sequence[tuple[str, str]]:
        return await self._database.read(lambda db: sqlite_runs.cancel_requests(db, self._owners.id))

    # following other processes

    async def changed(self) -> bool:
        return await self._database.changed()

    async def tail(self, after: int) -> Tail:
        return await self._database.read(lambda db: sqlite_journal.tail(db, after))

    async def position(self) -> int:
        return await self._database.read(sqlite_journal.position)

    # sessions

    async def create_session(self, new: NewSession) -> Session:
        return await self._database.write(lambda db: sqlite_sessions.create_session(db, new), durable=True)

    async def session(self, session_id: str) -> Session | None:
        return await self._database.read(lambda db: sqlite_sessions.find_session(db, session_id))

    async def sessions(self, user_id: str | None, limit: int, after: str | None) -> Page[Session]:
        return await self._database.read(lambda db: sqlite_sessions.list_sessions(db, user_id, limit, after))

    async def update_session(self, session_id: str, changes: Mapping[str, object]) -> Session | None:
        return await self._database.write(
            lambda db: sqlite_sessions.update_session(db, session_id, changes), durable=True
        )

    async def delete_session(self, session_id: str) -> bool:
        return await self._database.write(lambda db: sqlite_sessions.delete_session(db, session_id), durable=True)

    async def messages(self, session_id: str, limit: int, before: str | None) -> Page[Message]:
        return await self._database.read(lambda db: sqlite_sessions.list_messages(db, session_id, limit, before))

    async def message(self, message_id: str) -> Message | None:
        return await self._database.read(lambda db: sqlite_sessions.find_message(db, message_id))

    async def history(self, message_id: str, budget: int) -> Sequence[Turn]:
        return await self._database.read(lambda db: sqlite_sessions.history(db, message_id, budget))

    async def turn(self, message_id: str) -> Turn | None:
        return await self._database.read(lambda db: sqlite_sessions.find_turn(db, message_id))

    # memory

    async def branch(self, message_id: str, budget: int) -> Branch:
        return await self._database.read(lambda db: sqlite_memory.branch(db, message_id, budget))

    async def summary(self, message_id: str) -> Summary | None:
        return await self._database.read(lambda db: sqlite_memory.summary(db, message_id))

    async def recollection(self, answer: Run, kinds: Collection[RunKind], reach: int) -> Recollection | None:
        return await self._database.read(lambda db: sqlite_memory.recollection(db, answer, kinds, reach))

    # approvals

    async def decision(self, run_id: str, call_id: str) -> bool | None:
        return await self._database.read(lambda db: sqlite_tools.decision(db, run_id, call_id))

    async def decisions(self) -> Sequence[tuple[str, str, bool]]:
        return await self._database.read(lambda db: sqlite_tools.decisions(db, self._owners.id))

    async def decide(self, run_id: str, call_id: str, *, approved: bool) -> None:
        await self._database.write(lambda db: sqlite_tools.decide(db, run_id, call_id, approved=approved), durable=True)

    # records

    async def save_record(self, record: Record) -> None:
        await self._database.write(lambda db: sqlite_tools.save_record(db, record), durable=True)

    async def records(
        self, kind: str | None, session_id: str | None, user_id: str | None, limit: int, after: str | None
    ) -> Page[Record]:
        return await self._database.read(
            lambda db: sqlite_tools.list_records(db, kind, session_id, user_id, limit, after)
        )

    # usage

    async def usage(self, query: UsageQuery) -> Page[UsageSum]:
        return await self._database.read(lambda db: sqlite_usage.sums(db, query))

    async def search(self, wanted: Search) -> Page[Hit]:
        if await self._database.read(sqlite_search.behind):
            await self._index()
        return await self._database.read(lambda db: sqlite_search.search(db, wanted))

    async def _index(self) -> None:
        while await self._database.write(sqlite_search.index, durable=False):
            pass

    # upkeep

    async def sweep(self, retention: float) -> None:
        await self._database.write(sqlite_journal.put_aside, durable=False)
        # What was prunable at the last sweep: whoever tails the journal has had the time between to read it.
        before, self._prunable = self._prunable, await self._database.read(sqlite_journal.prunable)
        while await self._database.write(lambda db: sqlite_journal.prune(db, before), durable=False):
            pass
        while await self._database.write(lambda db: sqlite_journal.fold(db, retention), durable=False):
            pass
        await self._index()

    async def check(self) -> None:
        await self._database.read(sqlite_journal.position)
