"""Sessions and their messages."""

import json

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from chat.errors import ChatError
from chat.ids import anonymous_user, new_id
from chat.sessions import NewSession, Session
from handlers.bodies import (
    METADATA_BYTES,
    METADATA_DEPTH,
    FollowQuery,
    HistoryQuery,
    ListQuery,
    SessionBody,
    SessionChanges,
    body_of,
    nested_within,
    query_of,
)
from handlers.context import engine_of
from handlers.documents import check_collection
from handlers.formats import FORMATS
from handlers.streams import cursor_of, follow, nothing_more
from handlers.templates import named_prompt
from handlers.views import (
    MessagesView,
    SessionsView,
    SessionWithRunView,
    message_view,
    run_view,
    session_view,
    summary_view,
)


async def create_session(request: Request) -> Response:
    body = await body_of(request, SessionBody)
    _check_labels(body.metadata)
    named_prompt(request, body.template, body.variables)  # or it raises
    await check_collection(request, body.collection, None, body.user_id)
    new = NewSession(
        body.session_id or new_id("ses"),
        body.user_id or anonymous_user(),
        body.title,
        body.metadata,
        body.template,
        body.variables,
        body.collection,
    )
    session = await engine_of(request).store.create_session(new)
    return JSONResponse(session_view(session), 201, {"Location": f"/sessions/{session.id}"})


async def list_sessions(request: Request) -> Response:
    query = query_of(request, ListQuery)
    page = await engine_of(request).store.sessions(query.user_id, query.limit, query.after)
    view: SessionsView = {"sessions": [session_view(session) for session in page.items], "next": page.next}
    return JSONResponse(view)


async def get_session(request: Request) -> Response:
    session, store = await _session(request), engine_of(request).store
    active = await store.active_run(session.id)
    summary = await store.summary(session.leaf_id) if session.leaf_id else None
    view: SessionWithRunView = {
        **session_view(session),
        "active_run": run_view(active) if active else None,
        "summary": summary_view(summary) if summary else None,
    }
    return JSONResponse(view)


async def update_session(request: Request) -> Response:
    body = await body_of(request, SessionChanges)
    _check_labels(body.metadata)
    named_prompt(request, body.template, body.variables)  # or it raises
    await check_collection(request, body.collection, request.path_params["session_id"], None)
    changes = body.model_dump(include=body.model_fields_set)
    if "template" in changes:
        changes["variables"] = body.variables  # they belong to it, and those of before to the one of before
    session = await engine_of(request).store.update_session(request.path_params["session_id"], changes)
    return JSONResponse(session_view(_found(session)))


async def delete_session(request: Request) -> Response:
    if not await engine_of(request).delete_session(request.path_params["session_id"]):
        _found(None)
    return Response(status_code=204)


async def list_messages(request: Request) -> Response:
    query, session = query_of(request, HistoryQuery), await _session(request)
    page = await engine_of(request).store.messages(session.id, query.limit, query.before)
    view: MessagesView = {
        "session_id": session.id,
        "leaf_id": session.leaf_id,
        "messages": [message_view(message) for message in page.items],
        "next": page.next,
    }
    return JSONResponse(view)


async def follow_session(request: Request) -> Response:
    """The run that the client was following, if it saw one of this session, and then the active one."""
    engine, query, session = engine_of(request), query_of(request, FollowQuery), await _session(request)
    encoder, cursor = FORMATS[query.format], cursor_of(request, query.after)
    if cursor is not None:
        seen = await engine.run(cursor.run_id)
        if seen.session_id == session.id and not (seen.terminal and cursor.seq == seen.last_seq):
            return await follow(request, seen.id, cursor.seq, encoder)
    active = await engine.store.active_run(session.id)
    return nothing_more() if active is None else await follow(request, active.id, 0, encoder)


async def _session(request: Request) -> Session:
    return _found(await engine_of(request).store.session(request.path_params["session_id"]))


def _found(session: Session | None) -> Session:
    if session is None:
        raise ChatError("not_found", "There is no such session.")
    return session


def _check_labels(metadata: dict[str, object]) -> None:
    if not nested_within(METADATA_DEPTH, metadata):
        raise ChatError("invalid_request", f"metadata: at most {METADATA_DEPTH} levels deep.")
    if len(json.dumps(metadata)) > METADATA_BYTES:
        raise ChatError("invalid_request", f"metadata: at most {METADATA_BYTES:,} bytes of JSON.")
