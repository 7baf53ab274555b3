"""``openai-chatkit``'s ``Store`` over ours: a session is a thread, its branch that is spoken to are the items."""

from datetime import UTC, datetime
from typing import NoReturn

from chatkit.store import Store as ThreadStore
from chatkit.types import Attachment, Page, ThreadItem, ThreadMetadata
from pydantic import TypeAdapter

from chat.errors import ChatError
from chat.ownership import UserEngine
from chat.sessions import Session
from handlers.chatkit.branches import items_of, links, page_of

LONGEST_PAGE = 200

TITLE_CHARS = 200
"""As ``PATCH /sessions/{session_id}`` has it."""

_ITEMS: TypeAdapter[list[ThreadItem]] = TypeAdapter(list[ThreadItem])


class Threads(ThreadStore[str | None]):
    """The context is the user whose threads are listed; None lists all.

    What is said gets here through runs alone, which store it before they show it: so the methods that write items
    raise ChatError ``invalid_request``, and those for attachments too.
    """

    def __init__(self, engine: UserEngine) -> None:
        self._engine = engine
        self._store = engine.store

    async def load_thread(self, thread_id: str, context: str | None) -> ThreadMetadata:
        """Raises ChatError ``not_found``."""
        return _metadata(await self.session(thread_id))

    async def save_thread(self, thread: ThreadMetadata, context: str | None) -> None:
        """Only the title: the rest is not the client's.

        Raises:
            ChatError: ``not_found``; ``invalid_request`` for a title that is too long.
        """
        if len(thread.title or "") > TITLE_CHARS:
            raise ChatError("invalid_request", f"title: at most {TITLE_CHARS} characters.")
        if await self._store.update_session(thread.id, {"title": thread.title}) is None:
            _not_found()

    async def load_threads(
        self, limit: int, after: str | None, order: str, context: str | None
    ) -> Page[ThreadMetadata]:
        """Latest activity first.

        Raises:
            ChatError: ``invalid_request`` for another order, or an ``after`` that no page has named.
        """
        if order != "desc":
            raise ChatError("invalid_request", "order: threads are listed with the latest first, as desc says.")
        page = await self._store.sessions(context, within(limit), after)
        return Page(
            data=[_metadata(session) for session in page.items], has_more=page.next is not None, after=page.next
        )

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: str | None
    ) -> Page[ThreadItem]:
        """Raises ChatError ``not_found``, or ``invalid_request`` for an ``after`` that is no item of the thread."""
        session, newest_first = await self.session(thread_id), order == "desc"
        items, more = await page_of(self._store, session, after, within(limit), newest_first=newest_first)
        return Page(data=_ITEMS.validate_python(items), has_more=more, after=items[-1]["id"] if more else None)

    async def load_item(self, thread_id: str, item_id: str, context: str | None) -> ThreadItem:
        """Raises ChatError ``not_found``."""
        session, owner = await self.session(thread_id), item_id.partition(".")[0]
        async for link in links(self._store, session.id):
            if owner in (link.message_id, link.run_id):
                found = [item for item in await items_of(self._store, session, link) if item["id"] == item_id]
                if found:
                    return _ITEMS.validate_python(found)[0]
        raise ChatError("not_found", "There is no such item in this thread.")

    async def delete_thread(self, thread_id: str, context: str | None) -> None:
        """With all that belongs to it; an active run is cancelled first. Raises ChatError ``not_found``."""
        if not await self._engine.delete_session(thread_id):
            _not_found()

    async def session(self, thread_id: str) -> Session:
        """The session that the thread is. Raises ChatError ``not_found``."""
        return await self._store.session(thread_id) or _not_found()

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: str | None) -> None:
        _written_by_runs()

    async def save_item(self, thread_id: str, item: ThreadItem, context: str | None) -> None:
        _written_by_runs()

    async def delete_thread_item(self, thread_id: str, item_id: str, context: str | None) -> None:
        _written_by_runs()

    async def save_attachment(self, attachment: Attachment, context: str | None) -> None:
        no_attachments()

    async def load_attachment(self, attachment_id: str, context: str | None) -> Attachment:
        no_attachments()

    async def delete_attachment(self, attachment_id: str, context: str | None) -> None:
        no_attachments()


def within(limit: int) -> int:
    """The widget may ask for thousands, and takes what there is."""
    return min(max(limit, 1), LONGEST_PAGE)


def no_attachments() -> NoReturn:
    raise ChatError("invalid_request", "attachments: this service takes no files.")


def _metadata(session: Session) -> ThreadMetadata:
    created_at = datetime.fromtimestamp(session.created_at / 1000, UTC)
    return ThreadMetadata(id=session.id, title=session.title, created_at=created_at)


def _not_found() -> NoReturn:
    raise ChatError("not_found", "There is no such thread.")


def _written_by_runs() -> NoReturn:
    raise ChatError("invalid_request", "The items of a thread are written by its runs.")
