"""The branch of a session that is spoken to, as a thread's items, from its end or from its beginning."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from chat.errors import ChatError
from chat.events import Event
from chat.live import FOLLOW_EVENTS
from chat.ownership import UserStore
from chat.runs import Run
from chat.sessions import Message, Session
from chat.steps import log_of
from handlers.formats.chatkit_items import AnswerItems, Members
from handlers.ui.replies import told_of
from handlers.views import timestamp

PAGE = 200
"""Messages that are read at once."""


@dataclass(frozen=True, slots=True)
class Link:
    """A message of the branch, or the answer that is being written. ``run_id`` is an answer's, where it has one."""

    message_id: str
    run_id: str | None
    message: Message | None


class _Messages:
    """A session's messages, read from its end as far as they are asked for; each can be taken once."""

    def __init__(self, store: UserStore, session_id: str) -> None:
        self._store = store
        self._session_id = session_id
        self._before: str | None = None
        self._more = True
        self._there: dict[str, Message] = {}

    async def take(self, message_id: str) -> Message | None:
        """None if it is not written yet."""
        if message_id not in self._there and await self._store.message(message_id) is None:
            return None
        while message_id not in self._there and self._more:
            await self._read()
        return self._there.pop(message_id, None)

    async def take_question(self) -> Message | None:
        """The latest that was not taken."""
        while True:
            for message in self._there.values():
                if message.role == "user":
                    return self._there.pop(message.id)
            if not self._more:
                return None
            await self._read()

    async def _read(self) -> None:
        page = await self._store.messages(self._session_id, PAGE, self._before)
        self._there |= {message.id: message for message in reversed(page.items)}
        self._before, self._more = page.next, page.next is not None


async def links(store: UserStore, session_id: str) -> AsyncIterator[Link]:
    """The branch's messages, the latest first."""
    active = await store.active_run(session_id)  # before the leaf, or an answer that ends in between is in neither
    session, messages = await store.session(session_id), _Messages(store, session_id)
    wanted = None if session is None else session.leaf_id
    if active is not None and active.message_id == wanted:
        yield Link(active.answer_id, active.id, None)
    while wanted is not None:
        # What is not written yet is an answer that waits for its turn: the question before it waits too.
        message = await messages.take(wanted) or await messages.take_question()
        if message is None:
            return  # the session has just been deleted
        yield Link(message.id, message.run_id, message)
        wanted = message.parent_id
        if active is not None and wanted == active.answer_id:
            yield Link(active.answer_id, active.id, None)
            wanted = active.message_id


async def items_of(store: UserStore, session: Session, link: Link) -> list[Members]:
    """The items of one message, oldest first. Those of an answer that is being written are as far as it has come."""
    message = link.message
    if message is not None and message.role != "assistant":
        return [user_item(message)] if message.role == "user" else []
    run = await store.run(link.run_id) if link.run_id is not None else None
    if run is None:
        if message is None:
            return []  # the session has just been deleted
        answer = AnswerItems(session.id, message.id, message.id, message.created_at)
        return _told(answer, log_of(message.content, message.steps, message.sources))
    log = await logged(store, run) if message is None else [*(await told_of(store, message)).events, run.terminal]
    answer = AnswerItems(session.id, run.id, run.answer_id, run.created_at)
    return _told(answer, [event for event in log if event is not None])


async def logged(store: UserStore, run: Run) -> list[Event]:
    """All that is committed of the run by now."""
    events: list[Event] = []
    after = 0
    while (page := await store.events(run.id, after, FOLLOW_EVENTS)).events:
        events += page.events
        after = page.first_seq + len(page.events) - 1
    return events


def user_item(message: Message) -> Members:
    return {
        "id": message.id,
        "thread_id": message.session_id,
        "created_at": timestamp(message.created_at),
        "type": "user_message",
        "content": [{"type": "input_text", "text": message.content}],
        "attachments": list[Members](),
        "inference_options": Members(),
    }


async def page_of(
    store: UserStore, session: Session, after: str | None, limit: int, *, newest_first: bool
) -> tuple[list[Members], bool]:
    """So many items behind ``after``, and whether there are more.

    Raises:
        ChatError: ``invalid_request`` for an ``after`` that is no item of the thread.
    """
    found: list[Members] = []
    skipping = after is not None
    owner = (after or "").partition(".")[0]
    async for link in _ordered(store, session, newest_first=newest_first):
        if skipping and owner not in (link.message_id, link.run_id):
            continue
        items = await items_of(store, session, link)
        if newest_first:
            items.reverse()
        for item in items:
            if not skipping:
                found.append(item)
            elif item["id"] == after:
                skipping = False
        if len(found) > limit:
            break
    if skipping:
        raise ChatError("invalid_request", "after: there is no such item in this thread.")
    return found[:limit], len(found) > limit


async def _ordered(store: UserStore, session: Session, *, newest_first: bool) -> AsyncIterator[Link]:
    """The branch can only be walked from its end: for the other direction ids are kept, and no texts."""
    if newest_first:
        async for link in links(store, session.id):
            yield link
        return
    branch = [(link.message_id, link.run_id, link.message is None) async for link in links(store, session.id)]
    for message_id, run_id, active in reversed(branch):
        message = await store.message(message_id)
        if message is not None or active:
            yield Link(message_id, run_id, message)


def _told(answer: AnswerItems, log: list[Event]) -> list[Members]:
    for event in log:
        for _ in answer.say(event):
            pass
    return list(answer.items)
