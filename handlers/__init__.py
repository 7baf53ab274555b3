"""HTTP, and only HTTP: parse, ask the engine, respond. This is the one URL table."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from chat.errors import ChatError
from handlers import (
    ag_ui,
    chat,
    doctor,
    documents,
    errors,
    models,
    openapi,
    ops,
    pages,
    query,
    records,
    runs,
    search,
    sessions,
    templates,
    usage,
    users,
)
from handlers.chatkit import posting as chatkit_posting
from handlers.identity import AdminRoute
from handlers.ui import chat as ui_chat
from handlers.v1 import completions as v1_completions
from handlers.v1 import models as v1_models
from handlers.v1 import responses as v1_responses

ROUTES: list[BaseRoute] = [
    Route("/", ops.root),
    Route("/health", ops.health),
    Route("/chat/health", ops.health, name="chat_health"),
    Route("/ready", ops.ready),
    AdminRoute("/metrics", ops.metrics),
    Route("/doctor/stream", doctor.stream, name="doctor_stream"),
    Route("/doctor/stream", doctor.stream, methods=["POST"], name="doctor_stream_by_post"),
    Route("/docs", pages.docs, include_in_schema=False),
    Route("/openapi.json", openapi.document),
    Route("/playground", pages.playground, include_in_schema=False),
    Route("/static/{name}", pages.static, include_in_schema=False),
    Route("/models", models.list_models),
    Route("/chat", chat.get_chat),
    Route("/chat", chat.post_chat, methods=["POST"]),
    Route("/api/chat", ui_chat.post_messages, methods=["POST"]),
    Route("/api/chat/{session_id}/stream", ui_chat.resume_chat),
    Route("/api/chat/{session_id}/stop", ui_chat.stop_chat, methods=["POST"]),
    Route("/query", query.post_query, methods=["POST"]),
    Route("/query/stream", query.post_query_stream, methods=["POST"]),
    Route("/runs/{run_id}", runs.get_run),
    Route("/runs/{run_id}/events", runs.follow_run),
    Route("/runs/{run_id}/ticket", runs.create_ticket, methods=["POST"]),
    Route("/runs/{run_id}/cancel", runs.cancel_run, methods=["POST"]),
    Route("/runs/{run_id}/approvals/{call_id}", runs.approve_call, methods=["POST"]),
    Route("/runs/{run_id}/retry", runs.retry_run, methods=["POST"]),
    Route("/records", records.list_records),
    Route("/sessions", sessions.list_sessions),
    Route("/sessions", sessions.create_session, methods=["POST"]),
    Route("/sessions/create", sessions.create_session, methods=["POST"], name="create_session_as_documented"),
    Route("/sessions/{session_id}", sessions.get_session),
    Route("/sessions/{session_id}", sessions.update_session, methods=["PATCH"]),
    Route("/sessions/{session_id}", sessions.delete_session, methods=["DELETE"]),
    Route("/sessions/{session_id}/messages", sessions.list_messages),
    Route("/sessions/{session_id}/events", sessions.follow_session),
    Route("/users/anonymous", users.create_anonymous, methods=["POST"]),
    Route("/users/{user_id}", users.delete_user, methods=["DELETE"]),
    Route("/users/{user_id}/export", users.export_user),
    Route("/usage", usage.sum_usage),
    Route("/search", search.search),
    Route("/templates", templates.list_templates),
    Route("/documents", documents.list_documents),
    Route("/documents", documents.create_document, methods=["POST"]),
    Route("/documents/{document_id}", documents.get_document),
    Route("/documents/{document_id}", documents.delete_document, methods=["DELETE"]),
    Route("/ag-ui", ag_ui.join_agent),
    Route("/ag-ui", ag_ui.run_agent, methods=["POST"]),
    Route("/chatkit", chatkit_posting.post_chatkit, methods=["POST"]),
    Route("/v1/models", v1_models.list_models, name="list_openai_models"),
    Route("/v1/models/{model:path}", v1_models.get_model, name="get_openai_model"),
    Route("/v1/chat/completions", v1_completions.create_completion, methods=["POST"]),
    Route("/v1/responses", v1_responses.create_response, methods=["POST"]),
    Route("/v1/responses/{response_id}", v1_responses.get_response),
    Route("/v1/responses/{response_id}/cancel", v1_responses.cancel_response, methods=["POST"]),
]

EXCEPTION_HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    ChatError: errors.on_chat_error,
    HTTPException: errors.on_http_exception,
}
