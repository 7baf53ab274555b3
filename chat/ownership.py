"""The engine and its store as one user may use them: what belongs to another is not there.

The handlers see nothing else, so that none of them can forget to ask whose something is. Where nobody in particular
asks, because there is no authentication or the operator does, everything is there.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from chat.commands import Claim, NewRetry, NewRun, Started
from chat.commits import Batch
from chat.documents import Document, NewDocument
from chat.engine import Engine
from chat.errors import ChatError
from chat.following import Follower, Push
from chat.imports import NewImport
from chat.ports import Store
from chat.records import Record
from chat.runs import Run
from chat.search import Hit, Search
from chat.sessions import Message, NewSession, Page, Session, Summary, Turn
from chat.terms import NO_TERMS, Terms
from chat.tools import Toolbox
from chat.tracing import Tracer
from chat.usage import UsageQuery, UsageSum

New = TypeVar("New", NewRun, NewRetry, NewImport)


class UserStore:
    """:class:`chat.ports.Store`, as far as requests need it. ``user`` is None for everybody's."""

    def __init__(self, store: Store, user: str | None) -> None:
        self._store = store
        self._user = user

    def owns(self, user: str) -> bool:
        return self._user in (None, user)

    # runs

    async def claimed(self, claim: Claim) -> Started | None:
        return await self._store.claimed(self.own_claim(claim))

    async def run_of_key(self, key: str) -> str | None:
        return await self._store.run_of_key(self._own_key(key))

    def own_claim(self, claim: Claim) -> Claim:
        return replace(claim, key=self._own_key(claim.key))

    def _own_key(self, key: str) -> str:
        """Two users may choose the same key. There is a space in none that a client can send, and in no user's id."""
        return key if self._user is None else f"{self._user} {key}"

    async def run(self, run_id: str) -> Run | None:
        run = await self._store.run(run_id)
        return run if run is not None and self.owns(run.user_id) else None

    async def active_run(self, session_id: str) -> Run | None:
        run = await self._store.active_run(session_id)
        return run if run is not None and self.owns(run.user_id) else None

    async def events(self, run_id: str, after: int, limit: int) -> Batch:
        """Raises ChatError ``not_found``, and as :meth:`chat.ports.Store.events`."""
        if self._user is not None and await self.run(run_id) is None:
            raise no_such_run()
        return await self._store.events(run_id, after, limit)

    async def terms(self, run_id: str) -> Terms:
        if self._user is not None and await self.run(run_id) is None:
            return NO_TERMS
        return await self._store.terms(run_id)

    # sessions

    async def create_session(self, new: NewSession) -> Session:
        """Raises ChatError ``session_exists``, or ``not_found`` if it is another's."""
        try:
            return await self._store.create_session(self.own_session(new))
        except ChatError as error:
            if error.code == "session_exists" and await self.session(new.id) is None:
                raise no_such_session() from None
            raise

    def own_session(self, new: NewSession) -> NewSession:
        return new if self._user is None else replace(new, user_id=self._user)

    async def session(self, session_id: str) -> Session | None:
        session = await self._store.session(session_id)
        return session if session is not None and self.owns(session.user_id) else None

    async def sessions(self, user_id: str | None, limit: int, after: str | None) -> Page[Session]:
        return await self._store.sessions(self._whose(user_id), limit, after)

    async def update_session(self, session_id: str, changes: Mapping[str, object]) -> Session | None:
        return await self._store.update_session(session_id, changes) if await self._may(session_id) else None

    async def messages(self, session_id: str, limit: int, before: str | None) -> Page[Message]:
        return await self._store.messages(session_id, limit, before) if await self._may(session_id) else Page([])

    async def message(self, message_id: str) -> Message | None:
        message = await self._store.message(message_id)
        return message if message is not None and await self._may(message.session_id) else None

    async def turn(self, message_id: str) -> Turn | None:
        return await self._store.turn(message_id) if await self._may_read(message_id) else None

    async def summary(self, message_id: str) -> Summary | None:
        return await self._store.summary(message_id) if await self._may_read(message_id) else None

    async def search(self, wanted: Search) -> Page[Hit]:
        return await self._store.search(replace(wanted, user_id=self._whose(wanted.user_id)))

    # records and usage

    async def save_record(self, record: Record) -> None:
        """Raises ChatError ``not_found``: its session is none of this user's."""
        if not await self._may(record.session_id):
            raise no_such_session()
        await self._store.save_record(record)

    async def records(
        self, kind: str | None, session_id: str | None, user_id: str | None, limit: int, after: str | None
    ) -> Page[Record]:
        return await self._store.records(kind, session_id, self._whose(user_id), limit, after)

    async def usage(self, query: UsageQuery) -> Page[UsageSum]:
        return await self._store.usage(replace(query, user_id=self._whose(query.user_id)))

    # users

    async def export_user(self, user_id: str, version: str) -> AsyncIterator[Sequence[bytes]]:
        """Raises ChatError ``not_found``."""
        if not (self.owns(user_id) and await self._store.knows_user(user_id)):
            raise no_such_user()
        return self._store.export_user(user_id, version)

    # documents

    async def add_document(self, new: NewDocument, most: int, claim: Claim | None = None) -> Document:
        """It belongs to the user. Raises as :meth:`chat.documents.Documents.add_document`."""
        own = None if claim is None else self.own_claim(claim)
        return await self._store.add_document(replace(new, user_id=self._whose(new.user_id)), most, own)

    async def claimed_document(self, claim: Claim) -> Document | None:
        return await self._store.claimed_document(self.own_claim(claim))

    async def document(self, document_id: str) -> Document | None:
        """One of the user's own, or one that is shared."""
        document = await self._store.document(document_id)
        if document is not None and (document.user_id is None or self.owns(document.user_id)):
            return document
        return None

    async def documents(
        self, user_id: str | None, collection: str | None, limit: int, after: str | None
    ) -> Page[Document]:
        return await self._store.documents(self._whose(user_id), collection, limit, after)

    async def delete_document(self, document_id: str) -> bool:
        """False if there is none.

        Raises:
            ChatError: ``forbidden``: it is shared, and so the operator's.
        """
        document = await self.document(document_id)
        if document is None:
            return False
        if document.user_id is None and self._user is not None:
            raise ChatError("forbidden", "This document is shared: only the operator may delete it.")
        return await self._store.delete_document(document_id)

    # the service

    async def check(self) -> None:
        await self._store.check()

    async def _may(self, session_id: str) -> bool:
        return self._user is None or await self.session(session_id) is not None

    async def _may_read(self, message_id: str) -> bool:
        return self._user is None or await self.message(message_id) is not None

    def _whose(self, named: str | None) -> str | None:
        return named if self._user is None else self._user


class UserEngine:
    """:class:`chat.engine.Engine`, as far as requests need it."""

    def __init__(self, engine: Engine, user: str | None) -> None:
        self._engine = engine
        self._user = user
        self._known: set[str] = set()
        self.store = UserStore(engine.store, user)

    @property
    def draining(self) -> bool:
        return self._engine.draining

    @property
    def tools(self) -> Toolbox:
        return self._engine.tools

    @property
    def tracer(self) -> Tracer:
        return self._engine.tracer

    async def start(self, new: NewRun | NewRetry | NewImport) -> Started:
        """What is made belongs to the user. Raises as :meth:`chat.engine.Engine.start`."""
        if isinstance(new, NewRetry):
            await self._check(new.run_id)
            return await self._engine.start(self._claimed(new))
        session, user = self.store.own_session(new.session), self._user or new.user_id
        if isinstance(new, NewImport):
            return await self._engine.start(self._claimed(replace(new, session=session, user_id=user)))
        return await self._engine.start(self._claimed(replace(new, session=session, user_id=user)))

    def _claimed(self, new: New) -> New:
        return new if new.claim is None else replace(new, claim=self.store.own_claim(new.claim))

    async def follower(self, run_id: str, after: int, push: Push | None = None) -> Follower:
        """Raises ChatError ``not_found``."""
        await self._check(run_id)
        return await self._engine.follower(run_id, after, push)

    async def result(self, run_id: str) -> Run:
        """Raises as :meth:`chat.engine.Engine.result`."""
        await self._check(run_id)
        return await self._engine.result(run_id)

    async def cancel(self, run_id: str, reason: str) -> Run:
        """Raises as :meth:`chat.engine.Engine.cancel`."""
        await self._check(run_id)
        return await self._engine.cancel(run_id, reason)

    async def approve(self, run_id: str, call_id: str, *, approved: bool) -> Run:
        """Raises as :meth:`chat.engine.Engine.approve`."""
        await self._check(run_id)
        return await self._engine.approve(run_id, call_id, approved=approved)

    async def run(self, run_id: str) -> Run:
        """Raises ChatError ``not_found``."""
        run = await self._engine.run(run_id)
        if not self.store.owns(run.user_id):
            raise no_such_run()
        self._known.add(run_id)
        return run

    async def answer(self, run: Run) -> Turn:
        """The stored answer of a run that has ended."""
        await self._check(run.id)
        return await self._engine.answer(run)

    async def resumable(self, run_id: str, after: int) -> Run:
        """Raises as :meth:`chat.engine.Engine.resumable`."""
        await self._check(run_id)
        return await self._engine.resumable(run_id, after)

    async def delete_session(self, session_id: str) -> bool:
        """False if there is none."""
        if self._user is not None and await self.store.session(session_id) is None:
            return False
        return await self._engine.delete_session(session_id)

    async def delete_user(self, user_id: str) -> None:
        """Raises ChatError ``not_found``."""
        if not (self.store.owns(user_id) and await self._engine.delete_user(user_id)):
            raise no_such_user()

    async def _check(self, run_id: str) -> None:
        """Whose a run is never changes: it is looked up once, and in memory where it is being written.

        Raises:
            ChatError: ``not_found``.
        """
        if self._user is None or run_id in self._known:
            return
        run = self._engine.at_hand(run_id)
        if run is None:
            await self.run(run_id)
        elif not self.store.owns(run.user_id):
            raise no_such_run()
        self._known.add(run_id)


def no_such_run() -> ChatError:
    return ChatError("not_found", "There is no such run.")


def no_such_session() -> ChatError:
    return ChatError("not_found", "There is no such session.")


def no_such_user() -> ChatError:
    return ChatError("not_found", "There is no such user.")
