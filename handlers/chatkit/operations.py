"""What ChatKit's widget asks for: the operations that are answered at once, and the way to those that stream."""

from chatkit.types import (
    AttachmentsCreateReq,
    AttachmentsDeleteReq,
    ChatKitReq,
    InputTranscribeReq,
    ItemsFeedbackReq,
    ItemsListReq,
    NonStreamingReq,
    Page,
    Thread,
    ThreadItem,
    ThreadMetadata,
    ThreadsDeleteReq,
    ThreadsGetByIdReq,
    ThreadsListReq,
    ThreadsUpdateReq,
    is_streaming_req,
)
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from chat.errors import ChatError
from chat.ids import new_id
from chat.records import Record
from handlers.bodies import invalid, json_of
from handlers.chatkit.answering import stream
from handlers.chatkit.bodies import ChatKitBody, ChatKitQuery
from handlers.chatkit.threads import Threads, no_attachments
from handlers.context import engine_of

PAGE_SIZE = 20
"""As the library's own server has it."""

_REQUESTS: TypeAdapter[ChatKitReq] = TypeAdapter(ChatKitReq)


async def operate(request: Request, query: ChatKitQuery, body: ChatKitBody) -> Response:
    """Raises ChatError ``invalid_request``, and whatever the operation raises."""
    try:
        asked = _REQUESTS.validate_python(await json_of(request))
    except ValidationError as error:
        raise invalid(error) from None
    if is_streaming_req(asked):
        return await stream(request, query, body, asked)
    threads = Threads(engine_of(request))
    said = await _answered(request, threads, asked, query.user_id)
    return Response(said, media_type="application/json", headers={"Cache-Control": "no-store"})


async def _answered(request: Request, threads: Threads, asked: NonStreamingReq, user_id: str | None) -> bytes:
    match asked:
        case ThreadsGetByIdReq(params=params):
            thread = await threads.load_thread(params.thread_id, user_id)
            return _json(_whole(thread, await threads.load_thread_items(thread.id, None, PAGE_SIZE, "asc", user_id)))
        case ThreadsListReq(params=params):
            page = await threads.load_threads(params.limit or PAGE_SIZE, params.after, params.order, user_id)
            listed = [_whole(thread, Page()) for thread in page.data]
            return _json(Page(data=listed, has_more=page.has_more, after=page.after))
        case ItemsListReq(params=params):
            size = params.limit or PAGE_SIZE
            return _json(await threads.load_thread_items(params.thread_id, params.after, size, params.order, user_id))
        case ThreadsUpdateReq(params=params):
            thread = await threads.load_thread(params.thread_id, user_id)
            thread.title = params.title
            await threads.save_thread(thread, user_id)
            return _json(_whole(thread, Page()))
        case ThreadsDeleteReq(params=params):
            await threads.delete_thread(params.thread_id, user_id)
            return b"{}"
        case ItemsFeedbackReq():
            await _note(request, threads, asked)
            return b"{}"
        case AttachmentsCreateReq() | AttachmentsDeleteReq():
            no_attachments()
        case InputTranscribeReq():
            raise ChatError("invalid_request", "input.transcribe: this service takes no sound.")
    raise ChatError("invalid_request", f"{asked.type}: this service shows no widgets that could act.")


async def _note(request: Request, threads: Threads, asked: ItemsFeedbackReq) -> None:
    """Feedback is a record of the kind ``chatkit.feedback``, of the run that has said the first of the items.

    Raises:
        ChatError: ``not_found``.
    """
    session, store = await threads.session(asked.params.thread_id), engine_of(request).store
    owner = (asked.params.item_ids or [""])[0].partition(".")[0]
    message = await store.message(owner)
    run_id = message.run_id if message is not None and message.session_id == session.id else None
    data = {"feedback": asked.params.kind, "item_ids": asked.params.item_ids}
    record = Record(new_id("rec"), "chatkit.feedback", session.id, session.user_id, run_id or "", data, 0)
    await store.save_record(record)


def _whole(thread: ThreadMetadata, items: Page[ThreadItem]) -> Thread:
    return Thread(id=thread.id, title=thread.title, created_at=thread.created_at, items=items)


def _json(answer: BaseModel) -> bytes:
    """As the library's own server writes it."""
    return answer.model_dump_json(by_alias=True, exclude_none=True).encode()
