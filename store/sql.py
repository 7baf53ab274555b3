"""The store on a SQL database, whichever it is: :class:`chat.ports.Store`."""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from chat.commands import Claim, NewRetry, NewRun, NewSideRun, Started
from chat.commits import Append, Batch, Committed, Recollection, Tail
from chat.documents import Document, KnownDocument, Lookup, NewDocument, Passage
from chat.embeddings import Nearness, Unembedded
from chat.errors import StoreUnavailableError
from chat.imports import ImportFile, NewImport, Refusal
from chat.keys import BYTES, Key
from chat.records import Record
from chat.runs import Run, RunKind
from chat.search import Hit, Search
from chat.sessions import Branch, Message, NewSession, Page, Session, Summary, Turn
from chat.terms import Terms
from chat.usage import UsageQuery, UsageSum
from chat.vectors import Vector, dimensions
from store import documents, embeddings, imports, journal, keys, memory, runs, sessions, tools, usage, users
from store.rows import Rows, Work

if TYPE_CHECKING:
    from store.nearest import Shelf, Shelves

T = TypeVar("T")

READ_DOCUMENTS = 100
"""Documents whose signs are read at once: of a thousand chunks each, some 20 MB."""


class Database(Protocol):
    async def write(self, work: Work[T], *, durable: bool) -> T:
        """Run ``work`` in one transaction and commit it. ``durable``: it survives power loss and not just a kill.

        A caller that is cancelled leaves the transaction to finish by itself.
        """
        ...

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` on one consistent snapshot."""
        ...


class Owners(Protocol):
    """This process as an owner of runs, and its judgement of the others. ``id`` is the token that commits check."""

    id: int

    async def attend(self, db: Rows) -> None:
        """Be an owner until the transaction ends."""
        ...

    async def beat(self, db: Rows) -> None:
        """Say that this process lives."""
        ...

    async def bury(self, db: Rows) -> None:
        """Delete the owners that are dead. Their runs are then anybody's."""
        ...

    async def resign(self, db: Rows) -> None:
        """Stop being an owner; this process's runs are then anybody's."""
        ...


class Passages(Protocol):
    """The index of passages' words, a module of each database. Every function works inside a given transaction."""

    async def index(self, db: Rows) -> bool:
        """Add some chunks to the index; False when there are no more."""
        ...

    async def find(self, db: Rows, wanted: Lookup) -> Sequence[Passage]: ...


class SqlStore:
    """What does not depend on the database. Starts and ends of runs are durable; deltas survive a killed process."""

    _passages: Passages

    def __init__(self, database: Database, owners: Owners) -> None:
        self._database = database
        self._owners = owners
        self._prunable = 0
        self._shelves: Shelves | None = None
        self._stocking = asyncio.Lock()

    @abstractmethod
    async def open(self) -> None:
        """Reach the database, bring its tables up to date, and become an owner of runs.

        Raises:
            StoreUnavailableError: not now; trying again can help.
            StoreNewerError: a later version of this service has been here; trying again cannot help.
            StoreCorruptError: it is damaged, or no database of ours. It is left as it is.
        """

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def changed(self) -> bool: ...

    @abstractmethod
    async def doorbell(self, within: float) -> None: ...

    @abstractmethod
    async def search(self, wanted: Search) -> Page[Hit]: ...

    @abstractmethod
    async def _index(self) -> None:
        """Bring the index for searches up to date."""

    async def _erase(self) -> None:
        """Leave nothing of what was deleted, as far as the database lets us."""

    async def passages(self, wanted: Lookup) -> Sequence[Passage]:
        if not wanted.words:
            return []
        if await self._database.read(documents.is_behind):
            await self._index_chunks()
        return await self._database.read(lambda db: self._passages.find(db, wanted))

    async def _index_chunks(self) -> None:
        """Bring the index of passages up to date."""
        while await self._database.write(self._passages.index, durable=False):
            pass

    async def _own(self, work: Callable[[Rows, int], Coroutine[Any, Any, T]], *, durable: bool) -> T:
        """Write as an owner of runs, whose id the work is given."""

        async def owning(db: Rows) -> T:
            await self._owners.attend(db)
            return await work(db, self._owners.id)

        return await self._database.write(owning, durable=durable)

    # runs

    async def start_run(self, new: NewRun) -> Started:
        return await self._own(lambda db, owner: runs.start_run(db, new, owner), durable=True)

    async def claimed(self, claim: Claim) -> Started | None:
        return await self._database.read(lambda db: runs.claimed(db, claim))

    async def retry_run(self, new: NewRetry) -> Started:
        return await self._own(lambda db, owner: runs.retry_run(db, new, owner), durable=True)

    async def start_import(self, new: NewImport) -> Started:
        return await self._own(lambda db, owner: imports.start_import(db, new, owner), durable=True)

    async def start_side_run(self, new: NewSideRun) -> Run | None:
        return await self._own(lambda db, owner: memory.start_side_run(db, new, owner), durable=False)

    async def commit(self, batch: Sequence[Append]) -> Committed:
        durable = any(append.settlement is not None or append.durable for append in batch)
        return await self._database.write(lambda db: journal.commit(db, batch), durable=durable)

    async def run(self, run_id: str) -> Run | None:
        return await self._database.read(lambda db: runs.find_run(db, run_id))

    async def active_run(self, session_id: str, *, beside: bool = False) -> Run | None:
        return await self._database.read(lambda db: runs.active_run(db, session_id, beside=beside))

    async def events(self, run_id: str, after: int, limit: int) -> Batch:
        return await self._database.read(lambda db: journal.read_events(db, run_id, after, limit))

    async def terms(self, run_id: str) -> Terms:
        return await self._database.read(lambda db: runs.find_terms(db, run_id))

    async def run_of_key(self, key: str) -> str | None:
        return await self._database.read(lambda db: runs.run_of_key(db, key))

    async def request_cancel(self, run_id: str, reason: str) -> None:
        await self._database.write(lambda db: runs.request_cancel(db, run_id, reason), durable=True)

    # ownership

    @property
    def owner(self) -> int:
        return self._owners.id

    async def claim(self) -> Sequence[Run]:
        async def work(db: Rows, owner: int) -> Sequence[Run]:
            await self._owners.beat(db)
            await self._owners.bury(db)
            return await runs.claim(db, owner)

        return await self._own(work, durable=False)

    async def beat(self) -> None:
        await self._own(lambda db, _: self._owners.beat(db), durable=False)

    async def abandoned(self) -> bool:
        return await self._database.read(runs.abandoned)

    async def adopt(self, run_id: str) -> Run | None:
        return await self._own(lambda db, owner: runs.adopt(db, run_id, owner), durable=False)

    async def hand_back(self) -> None:
        # The next beat makes this process a new owner: what it may still write to these runs is refused.
        async def work(db: Rows) -> None:
            await self._owners.resign(db)
            await db.ring()

        await self._database.write(work, durable=False)

    async def release(self, run_id: str) -> None:
        await self._database.write(lambda db: runs.release(db, run_id, self._owners.id), durable=False)

    async def cancel_requests(self) -> Sequence[tuple[str, str]]:
        return await self._database.read(lambda db: runs.cancel_requests(db, self._owners.id))

    # following other processes

    async def tail(self, after: int, run_ids: Collection[str]) -> Tail:
        return await self._database.read(lambda db: journal.tail(db, after, run_ids))

    async def position(self) -> int:
        return await self._database.read(journal.position)

    # sessions

    async def create_session(self, new: NewSession) -> Session:
        return await self._database.write(lambda db: sessions.create_session(db, new), durable=True)

    async def session(self, session_id: str) -> Session | None:
        return await self._database.read(lambda db: sessions.find_session(db, session_id))

    async def sessions(
        self, user_id: str | None, limit: int, after: str | None, *, beside: bool = False
    ) -> Page[Session]:
        return await self._database.read(lambda db: sessions.list_sessions(db, user_id, limit, after, beside=beside))

    async def update_session(self, session_id: str, changes: Mapping[str, object]) -> Session | None:
        return await self._database.write(lambda db: sessions.update_session(db, session_id, changes), durable=True)

    async def delete_session(self, session_id: str, *, idle: float | None = None) -> bool:
        known = await self._database.read(lambda db: sessions.journal_of(db, session_id))
        return await self._database.write(
            lambda db: sessions.delete_session(db, session_id, known, idle), durable=idle is None
        )

    async def idle_sessions(self, seconds: float, limit: int) -> Sequence[str]:
        return await self._database.read(lambda db: sessions.idle_sessions(db, seconds, limit))

    async def messages(self, session_id: str, limit: int, before: str | None) -> Page[Message]:
        return await self._database.read(lambda db: sessions.list_messages(db, session_id, limit, before))

    async def message(self, message_id: str) -> Message | None:
        return await self._database.read(lambda db: sessions.find_message(db, message_id))

    async def history(self, message_id: str, budget: int) -> Sequence[Turn]:
        return await self._database.read(lambda db: sessions.history(db, message_id, budget))

    async def turn(self, message_id: str) -> Turn | None:
        return await self._database.read(lambda db: sessions.find_turn(db, message_id))

    # memory

    async def branch(self, message_id: str, budget: int) -> Branch:
        return await self._database.read(lambda db: memory.branch(db, message_id, budget))

    async def summary(self, message_id: str) -> Summary | None:
        return await self._database.read(lambda db: memory.summary(db, message_id))

    async def recollection(self, answer: Run, kinds: Collection[RunKind], reach: int) -> Recollection | None:
        return await self._database.read(lambda db: memory.recollection(db, answer, kinds, reach))

    # approvals

    async def decision(self, run_id: str, call_id: str) -> bool | None:
        return await self._database.read(lambda db: tools.decision(db, run_id, call_id))

    async def decisions(self) -> Sequence[tuple[str, str, bool]]:
        return await self._database.read(lambda db: tools.decisions(db, self._owners.id))

    async def decide(self, run_id: str, call_id: str, *, approved: bool) -> None:
        await self._database.write(lambda db: tools.decide(db, run_id, call_id, approved=approved), durable=True)

    # records

    async def save_record(self, record: Record) -> None:
        await self._database.write(lambda db: tools.save_record(db, record), durable=True)

    async def records(
        self, kind: str | None, session_id: str | None, user_id: str | None, limit: int, after: str | None
    ) -> Page[Record]:
        return await self._database.read(lambda db: tools.list_records(db, kind, session_id, user_id, limit, after))

    # documents

    async def add_document(self, new: NewDocument, most: int, claim: Claim | None = None) -> Document:
        document = await self._database.write(lambda db: documents.add_once(db, new, most, claim), durable=True)
        with suppress(StoreUnavailableError):  # it is stored: whoever searches next brings the index up to date
            await self._index_chunks()
        return document

    async def claimed_document(self, claim: Claim) -> Document | None:
        return await self._database.read(lambda db: documents.find_claimed(db, claim))

    async def document(self, document_id: str) -> Document | None:
        return await self._database.read(lambda db: documents.find_document(db, document_id))

    async def documents(
        self, user_id: str | None, collection: str | None, limit: int, after: str | None
    ) -> Page[Document]:
        return await self._database.read(lambda db: documents.list_documents(db, user_id, collection, limit, after))

    async def known_documents(self, user_id: str | None, collection: str) -> Sequence[KnownDocument]:
        return await self._database.read(lambda db: documents.list_known(db, user_id, collection))

    async def delete_document(self, document_id: str) -> bool:
        return await self._database.write(lambda db: documents.delete_document(db, document_id), durable=True)

    # embeddings

    async def want_embeddings(self, model: str) -> None:
        await self._database.write(lambda db: embeddings.want(db, model), durable=True)

    async def unembedded(self, model: str, texts: int, chars: int, seconds: float) -> Sequence[Unembedded]:
        if not await self._database.read(lambda db: embeddings.is_waiting(db, model)):
            return []
        return await self._database.write(lambda db: embeddings.claim(db, model, texts, chars, seconds), durable=False)

    async def embed(self, model: str, chunks: Sequence[tuple[Unembedded, Vector]]) -> None:
        from store.nearest import signs  # here and below, because who embeds nothing needs no NumPy

        entries = [(chunk, vector, signs(vector)) for chunk, vector in chunks]
        await self._database.write(lambda db: embeddings.keep(db, model, entries), durable=True)  # it was paid for

    async def put_off(self, chunks: Sequence[Unembedded], seconds: float | None) -> None:
        await self._database.write(lambda db: embeddings.put_off(db, chunks, seconds), durable=False)

    async def nearest(self, wanted: Nearness) -> Sequence[Passage]:
        from store.nearest import best

        candidates = await self._candidates(wanted)

        async def compared(db: Rows) -> Sequence[Passage]:
            vectors = await embeddings.vectors_at(db, wanted, candidates)
            return await embeddings.passages_at(db, best(wanted.vector, vectors, wanted.limit))

        return await self._database.read(compared)

    async def _candidates(self, wanted: Nearness) -> Sequence[int]:
        """The positions of the chunks that may be near, of those that may be read: by their signs."""
        from store.nearest import Shelves

        if self._shelves is None:
            self._shelves = Shelves()
        whose = await self._database.read(lambda db: embeddings.readable(db, wanted))
        scanned = await self._scanned(wanted, sum(sum(those.values()) for those in whose.values()))
        if scanned is not None:
            return scanned
        found: list[int] = []
        for owner, those in whose.items():
            async with self._stocking:
                shelf = await self._stocked(self._shelves, wanted, owner, those)
            found += await asyncio.to_thread(shelf.nearest, wanted.vector)
        return found

    async def _scanned(self, wanted: Nearness, chunks: int) -> Sequence[int] | None:  # noqa: ARG002
        """The same by the database itself, where it can do that better; None where it cannot.

        ``chunks`` is how many may be read.
        """
        return None

    async def _stocked(
        self, shelves: "Shelves", wanted: Nearness, owner: str | None, those: Mapping[str, int]
    ) -> "Shelf":
        """What is in memory of these documents, when what has changed has been read."""
        scope, kind = (wanted.collection, owner), (wanted.model, -(-dimensions(wanted.vector) // 8))
        shelf = shelves.of(scope)
        missing = shelf.missing(kind, those)
        rows: list[tuple[str, int, bytes]] = []
        for start in range(0, len(missing), READ_DOCUMENTS):
            some = missing[start : start + READ_DOCUMENTS]
            rows += await self._database.read(lambda db, some=some: embeddings.signs_of(db, some))  # type: ignore[misc]
        shelf = await asyncio.to_thread(shelf.stocked, kind, those, rows)
        shelves.put(scope, shelf)
        return shelf

    # files of imports

    async def import_files(self, run_id: str) -> Sequence[ImportFile]:
        return await self._database.read(lambda db: imports.list_files(db, run_id))

    async def import_content(self, run_id: str, number: int) -> bytes:
        return await self._database.read(lambda db: imports.find_content(db, run_id, number))

    async def import_document(self, run: Run, number: int, new: NewDocument, most: int) -> ImportFile:
        file = await self._database.write(lambda db: imports.store_document(db, run, number, new, most), durable=True)
        with suppress(StoreUnavailableError):  # as above
            await self._index_chunks()
        return file

    async def import_refused(self, run: Run, number: int, refusal: Refusal) -> ImportFile:
        return await self._database.write(lambda db: imports.store_refusal(db, run, number, refusal), durable=True)

    # usage

    async def usage(self, query: UsageQuery) -> Page[UsageSum]:
        return await self._database.read(lambda db: usage.sums(db, query))

    # users

    async def knows_user(self, user_id: str) -> bool:
        return await self._database.read(lambda db: users.is_known(db, user_id))

    async def forget_user(self, user_id: str) -> bool:
        return await self._database.write(lambda db: users.forget(db, user_id), durable=True)

    async def export_user(self, user_id: str, version: str) -> AsyncIterator[Sequence[bytes]]:
        telling = users.Telling(user_id, version)
        while lines := await self._database.read(telling.more):
            yield lines

    # who is let in

    async def keys(self) -> Sequence[Key]:
        return await self._database.read(keys.list_keys)

    async def secret(self, name: str) -> str:
        found = await self._database.read(lambda db: keys.find_secret(db, name))
        if found is not None:
            return found
        value = token_urlsafe(BYTES)
        return await self._database.write(lambda db: keys.make_secret(db, name, value), durable=True)

    # upkeep

    async def sweep(self, retention: float) -> None:
        await self._database.write(journal.put_aside, durable=False)
        # What was prunable at the last sweep: whoever tails the journal has had the time between to read it.
        before, self._prunable = self._prunable, await self._database.read(journal.prunable)
        while await self._database.write(lambda db: journal.prune(db, before), durable=False):
            pass
        while await self._database.write(lambda db: journal.fold(db, retention), durable=False):
            pass
        await self._index()
        await self._index_chunks()
        await self._erase()

    async def check(self) -> None:
        await self._database.read(journal.position)
