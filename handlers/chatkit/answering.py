"""The operations of ChatKit's widget that stream: a message answered, answered once more, or gone on with."""

from collections.abc import Sequence
from dataclasses import replace

from chatkit.types import (
    StreamingReq,
    ThreadsAddStructuredInputReq,
    ThreadsAddUserMessageReq,
    ThreadsCreateReq,
    ThreadsRetryAfterItemReq,
    UserMessageInput,
)
from starlette.requests import Request
from starlette.responses import Response

from chat.commands import NewRetry, NewRun
from chat.errors import ChatError
from chat.events import ToolDecided
from chat.ids import anonymous_user, new_id
from chat.runs import Run
from chat.sessions import NewSession, Turn
from chat.terms import Terms
from handlers.answers import answer, begun_once, claim_of, replayed
from handlers.bodies import Reply
from handlers.chat import within_limit
from handlers.chatkit.bodies import ChatKitBody, ChatKitQuery
from handlers.chatkit.branches import PAGE, logged, user_item
from handlers.chatkit.threads import Threads
from handlers.context import engine_of, router_of
from handlers.documents import check_collection, meant_by
from handlers.formats.chatkit import ChatKitEvents
from handlers.formats.chatkit_items import YES, Members
from handlers.models import chosen_model
from handlers.streams import cursor_of, follow
from handlers.templates import prompt_for
from handlers.views import timestamp


async def stream(request: Request, query: ChatKitQuery, body: ChatKitBody, asked: StreamingReq) -> Response:
    """Raises ChatError: ``invalid_request``, ``not_found``, and whatever starting or following a run raises."""
    if isinstance(asked, ThreadsAddStructuredInputReq):
        return await _decide(request, query, asked)
    claim = claim_of(request, body.metadata.request_id, *_meaning(asked), *meant_by(query.collection))
    started = await replayed(request, claim)
    if started is None:
        started = await begun_once(request, replace(await _new(request, query, asked), claim=claim))
    begin = await _begin(request, query, started.run, asked)
    return await answer(request, started, _reply(query), encoder=ChatKitEvents(begin))


def _meaning(asked: StreamingReq) -> Sequence[str | None]:
    """What tells a request from another one. Raises ChatError ``invalid_request``, as :func:`_text_of` does."""
    match asked:
        case ThreadsCreateReq(params=params):
            return asked.type, _text_of(params.input), params.input.inference_options.model
        case ThreadsAddUserMessageReq(params=params):
            said = params.input
            return asked.type, params.thread_id, _text_of(said), said.inference_options.model
        case ThreadsRetryAfterItemReq(params=params):
            return asked.type, params.thread_id, params.item_id
    raise ChatError("invalid_request", f"{asked.type}: this service asks the page for nothing, and shows no widgets.")


async def _new(request: Request, query: ChatKitQuery, asked: StreamingReq) -> NewRun | NewRetry:
    match asked:
        case ThreadsCreateReq(params=params):
            session = NewSession(new_id("ses"), query.user_id or anonymous_user())
            return await _new_run(request, query, session, params.input)
        case ThreadsAddUserMessageReq(params=params):
            thread = await Threads(engine_of(request)).session(params.thread_id)
            return await _new_run(request, query, NewSession(thread.id, thread.user_id), params.input)
        case _:
            assert isinstance(asked, ThreadsRetryAfterItemReq)  # or it has no meaning
            return await _new_retry(request, query, asked.params.thread_id, asked.params.item_id)


async def _new_run(request: Request, query: ChatKitQuery, session: NewSession, said: UserMessageInput) -> NewRun:
    await check_collection(request, query.collection, session.id, query.user_id)
    return NewRun(
        id=new_id("run"),
        session=replace(session, collection=query.collection),
        user_id=query.user_id,
        turns=within_limit(request, [Turn("user", _text_of(said))]),
        model=chosen_model(request, said.inference_options.model),
        terms=Terms(await prompt_for(request, query.template, {}, session.id) or None),
        on_busy=query.on_busy,
        attach_same=True,  # the widget lets nobody say more while it is answered: this is a repetition
    )


def _text_of(said: UserMessageInput) -> str:
    """What a message says, its tags as they are read; what it quotes goes before it, as Markdown does that.

    Raises:
        ChatError: ``invalid_request`` for what this service does not do, or if it says nothing.
    """
    if said.attachments:
        raise ChatError("invalid_request", "attachments: this service takes no files.")
    if said.inference_options.tool_choice is not None:
        raise ChatError("invalid_request", "tool_choice: here the model chooses its tools.")
    text = "".join([part.text for part in said.content])
    if not text:
        raise ChatError("invalid_request", "content: the message says nothing.")
    quoted = "\n".join([f"> {line}" for line in (said.quoted_text or "").splitlines()])
    return f"{quoted}\n\n{text}" if quoted else text


async def _new_retry(request: Request, query: ChatKitQuery, thread_id: str, item_id: str) -> NewRetry:
    run = await _run_that_answers(request, thread_id, item_id)
    return NewRetry(
        id=new_id("run"),
        run_id=run.id,
        model=chosen_model(request, run.model if router_of(request).offers(run.model) else None),
        on_busy=query.on_busy,
        attach_same=True,  # the connection was lost, and not the answer
    )


async def _run_that_answers(request: Request, thread_id: str, item_id: str) -> Run:
    """The run that answers this message now, or did so last.

    Raises:
        ChatError: ``not_found``; ``invalid_request`` for an item that is no user's message.
    """
    engine = engine_of(request)
    session = await Threads(engine).session(thread_id)
    message = await engine.store.message(item_id)
    if message is None or message.session_id != session.id or message.role != "user":
        raise ChatError("invalid_request", "item_id: this is no user's message of the thread.")
    active = await engine.store.active_run(session.id)
    if active is not None and active.message_id == message.id:
        return active
    before, more = None, True
    while more:
        page = await engine.store.messages(session.id, PAGE, before)
        for answered in reversed(page.items):
            if answered.parent_id == message.id and answered.run_id is not None:
                return await engine.run(answered.run_id)
        before = page.next
        more = before is not None and all(known.id != message.id for known in page.items)
    raise ChatError("not_found", "This message was never answered here.")


async def _decide(request: Request, query: ChatKitQuery, asked: ThreadsAddStructuredInputReq) -> Response:
    """A call has waited for its user's yes; the run goes on from there.

    Raises:
        ChatError: ``not_found``, ``already_decided``.
    """
    engine, params = engine_of(request), asked.params
    run_id, _, call_id = params.item_id.partition(".")
    run = await engine.run(run_id)
    if run.session_id != params.thread_id:
        raise ChatError("not_found", "No such call waits for an approval in this thread.")
    said = params.input.answers.get(call_id)
    approved = params.input.status == "answered" and said is not None and said.values == [YES]
    log = await logged(engine.store, run)
    decided = [seq for seq, event in enumerate(log) if isinstance(event, ToolDecided) and event.call_id == call_id]
    await engine.approve(run.id, call_id, approved=approved)
    encoder = ChatKitEvents([_options(query)], decided=[call_id])
    after = decided[0] if decided else len(log)
    return await follow(request, run.id, after, encoder, cancel=query.on_disconnect == "cancel")


async def _begin(request: Request, query: ChatKitQuery, run: Run, asked: StreamingReq) -> Sequence[Members]:
    """What the stream has ahead of the run's events; nothing for a client that goes on behind its cursor."""
    if cursor_of(request) is not None:
        return []
    store = engine_of(request).store
    session, message = await store.session(run.session_id), await store.message(run.message_id)
    if session is None or message is None:
        raise ChatError("not_found", "There is no such thread.")
    begin: list[Members] = []
    if isinstance(asked, ThreadsCreateReq):
        thread = {"id": session.id, "created_at": timestamp(session.created_at), "status": {"type": "active"}}
        items = {"data": list[Members](), "has_more": False}
        begin.append({"type": "thread.created", "thread": {**thread, "metadata": Members(), "items": items}})
    if not isinstance(asked, ThreadsRetryAfterItemReq):
        begin.append({"type": "thread.item.done", "item": user_item(message)})
    return [*begin, _options(query)]


def _options(query: ChatKitQuery) -> Members:
    """To stop, the widget closes its connection: it may where that ends the run."""
    return {"type": "stream_options", "stream_options": {"allow_cancel": query.on_disconnect == "cancel"}}


def _reply(query: ChatKitQuery) -> Reply:
    return Reply(on_disconnect=query.on_disconnect)
