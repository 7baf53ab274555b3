"""Examples. What looks like an answer was made by the code that makes the answers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from chat.documents import Document
from chat.events import (
    Event,
    ImportDocument,
    ImportRefused,
    ImportStarted,
    ModelSelected,
    ReasoningDelta,
    RunCancelled,
    RunFailed,
    RunInterrupted,
    Seam,
    Source,
    TextDelta,
    ToolApproval,
    ToolCalled,
    ToolDecided,
    ToolDelta,
    ToolFinished,
    ToolStarted,
    Usage,
    completed,
)
from chat.prompts import Template
from chat.records import Record
from chat.routing import Choice
from chat.runs import Run, RunStatus
from chat.search import Hit
from chat.sessions import Message, Session, Summary, Turn
from chat.terms import NO_TERMS
from chat.usage import UsageBy, UsageSum
from handlers.ag_ui import RunAgentInput
from handlers.bodies import (
    ApprovalBody,
    ChatBody,
    DocumentBody,
    MessagesBody,
    QueryBody,
    RetryBody,
    SessionBody,
    SessionChanges,
)
from handlers.chatkit.bodies import ChatKitBody
from handlers.doctor import SENT, DoctorEventView, DoctorReportView
from handlers.formats import FORMATS, LINES, Encoder
from handlers.formats.ag_ui import AgUiEvents
from handlers.formats.chatkit import ChatKitEvents
from handlers.formats.completions import CompletionChunks
from handlers.formats.frames import json_frame, notice, retry
from handlers.formats.response_views import ResponseView
from handlers.formats.responses import ResponseEvents
from handlers.formats.ui_messages import UIMessages
from handlers.listings import (
    DocumentsView,
    DocumentView,
    RecordsView,
    SearchView,
    TemplatesView,
    document_view,
    hit_view,
    record_view,
    template_view,
)
from handlers.ui.bodies import UIChatBody, UIStopBody
from handlers.v1.bodies import CompletionBody
from handlers.v1.response_bodies import ResponseBody
from handlers.v1.views import CompletionView, OpenAIModelsView, OpenAIModelView, completion_view
from handlers.views import (
    AnonymousView,
    AnswerView,
    HealthView,
    MessagesView,
    ModelsView,
    QueryView,
    ReadyView,
    RunView,
    ServiceView,
    SessionsView,
    SessionView,
    SessionWithRunView,
    TicketView,
    UsageSumsView,
    message_view,
    model_view,
    run_view,
    session_view,
    source_view,
    summary_view,
    usage_sum_view,
)

_BEGAN, _ENDED = 1_795_255_200_000, 1_795_255_200_412
_SAID = [TextDelta("Hello "), TextDelta("there!")]
_TEXT = "".join([delta.text for delta in _SAID])
_SOURCE = Source("source_1", "https://example.org/greetings", "Greetings", start=0, end=5)
_COMPLETED = completed(_TEXT, "stop", Usage(input_tokens=9, output_tokens=3))
_FAILURE = RunFailed("upstream_timeout", "The model did not answer in time.", retryable=True)

RUN = Run(
    id="run_01kaj4z8c0v3m5q7s9w1y2a4c6",
    session_id="demo",
    user_id="alice",
    message_id="msg_01kaj4z8c0b2d4f6h8j0k2m4n6",
    answer_id="msg_01kaj4z8c0p1q3r5s7t9v2w4x6",
    status=RunStatus.RUNNING,
    model="gpt-4o-mini",
    owner=1,
    epoch=1,
    last_seq=0,
    created_at=_BEGAN,
)
_OVER = replace(
    RUN,
    status=RunStatus.COMPLETED,
    last_seq=3,
    finished_at=_ENDED,
    terminal=_COMPLETED,
    cost=3_150,
)
_SESSION = Session(
    id=RUN.session_id,
    user_id=RUN.user_id,
    title="A greeting",
    metadata={"channel": "web"},
    leaf_id=RUN.answer_id,
    message_count=2,
    created_at=_BEGAN,
    updated_at=_ENDED,
    touched=1,
)
_DOCUMENT = Document(
    "doc_01kanfzz8h7e2qv6r0t3m9xw5c", RUN.user_id, "handbook", "Handbook", "text/markdown", 36, 1, _BEGAN
)
_QUESTION = Message(RUN.message_id, RUN.session_id, None, "user", "Say hello", "completed", None, _BEGAN)
_ANSWER = Message(RUN.answer_id, RUN.session_id, RUN.message_id, "assistant", _TEXT, "completed", RUN.id, _ENDED)
_RECORD = Record(
    id="rec_01kaj4z8c0a2c4e6g8h0j2k4m6",
    kind="incident",
    session_id=RUN.session_id,
    user_id=RUN.user_id,
    run_id=RUN.id,
    data={"location": "Main Street", "description": "A pothole"},
    created_at=_ENDED,
)
_HIT = Hit(RUN.session_id, _ANSWER.id, "assistant", _TEXT, [(0, 5)], _ENDED)
_SUMMARY = Summary("Alice is greeted.", _ANSWER.id, "run_01kaj4z9d1w4x6z8b0d2f4h6j8", RUN.model, _ENDED)
_TEMPLATE = Template("greeter", frozenset({"tone"}), str)
_SERVICE = {"service": "parley", "version": "0.1.0"}

IMPORTED: tuple[Event, ...] = (
    ImportStarted(2, 1_036),
    ImportDocument("handbook.md", _DOCUMENT.id, 1, 1, 2),
    ImportRefused("empty.txt", "document_empty", "There is no text in the document.", 2, 2),
    completed("", "stop"),
)
"""The log of an import."""

EVENTS: tuple[Event, ...] = (
    _SAID[0],
    ReasoningDelta("A greeting is wanted."),
    ToolStarted("call_1", "report_incident"),
    ToolDelta("call_1", '{"location":'),
    ToolCalled("call_1", "report_incident", '{"location": "Main Street"}'),
    ToolApproval("call_1"),
    ToolDecided("call_1", approved=True),
    ToolFinished("call_1", result='{"number": "rec_01kaj4z8c0a2c4e6g8h0j2k4m6"}'),
    _SOURCE,
    Seam(2),
    ModelSelected("groq/llama-3.3-70b-versatile", "fallback", "upstream_unreachable"),
    *IMPORTED[:3],
    _COMPLETED,
    _FAILURE,
    RunCancelled("requested"),
    RunInterrupted("process_died"),
)
"""One of each kind."""


def _response() -> ResponseView:
    told = ResponseEvents(NO_TERMS)
    told.opening(RUN, 0)
    told.encode(RUN.id, 1, [*_SAID, _COMPLETED])
    return told.response(_OVER)


_TICKET = "WzE3OTU4NTYwMDAse31d.b64url-of-a-signature"

EXAMPLES: Mapping[type, object] = {
    ChatBody: {"message": "Say hello", "session_id": "demo"},
    MessagesBody: {"messages": [{"role": "user", "content": "Say hello"}], "sessionId": "demo"},
    QueryBody: {"prompt": "Say hello"},
    RetryBody: {"format": "events"},
    ApprovalBody: {"approved": True},
    UIChatBody: {
        "id": "demo",
        "messages": [{"id": "x1Y2z3A4b5C6d7E8", "role": "user", "parts": [{"type": "text", "text": "Say hello"}]}],
        "trigger": "submit-message",
    },
    UIStopBody: {"activeStreamId": RUN.id},
    CompletionBody: {"model": RUN.model, "messages": [{"role": "user", "content": "Say hello"}], "stream": True},
    TicketView: {
        "ticket": _TICKET,
        "events_url": f"/runs/{RUN.id}/events?ticket={_TICKET}",
        "expires_at": RUN.created_at + 600_000,
    },
    AnonymousView: {
        "user_id": "anonymous-0c6d3f0e-5f0a-4b6e-9c1d-2f7a8b9c0d1e",
        "token": f"anon_{_TICKET}",
        "expires_at": RUN.created_at + 30 * 86_400_000,
    },
    DocumentBody: {
        "text": "# Opening hours\n\nFrom nine to five.",
        "title": "Handbook",
        "collection": "handbook",
        "media_type": "text/markdown",
    },
    SessionBody: {"user_id": "alice", "title": "A greeting", "metadata": {"channel": "web"}},
    SessionChanges: {"title": "A warm greeting"},
    HealthView: {"status": "healthy", **_SERVICE},
    ReadyView: {"status": "ready"},
    ServiceView: {"status": "ok", **_SERVICE, "titles": False, "endpoints": {"/chat": ["GET", "POST"]}},
    RecordsView: {"records": [record_view(_RECORD)], "next": None},
    ModelsView: {
        "models": [model_view(Choice(RUN.model, "openai", default=True, available=True, context_tokens=100_000))]
    },
    OpenAIModelView: {"id": RUN.model, "object": "model", "created": 0, "owned_by": "openai"},
    OpenAIModelsView: {
        "object": "list",
        "data": [{"id": RUN.model, "object": "model", "created": 0, "owned_by": "openai"}],
    },
    CompletionView: completion_view(_OVER, Turn("assistant", _TEXT)),
    RunAgentInput: {
        "threadId": RUN.session_id,
        "runId": "run-1",
        "messages": [{"id": "1", "role": "user", "content": "Say hello"}],
    },
    ChatKitBody: {
        "type": "threads.create",
        "params": {
            "input": {
                "content": [{"type": "input_text", "text": "Say hello"}],
                "attachments": [],
                "inference_options": {},
            }
        },
    },
    ResponseBody: {"model": RUN.model, "input": "Say hello", "background": True, "stream": True},
    ResponseView: _response(),
    RunView: run_view(RUN),
    AnswerView: {**run_view(_OVER), "answer": _TEXT, "sources": [source_view(_SOURCE)]},
    QueryView: {"model": RUN.model, "answer": _TEXT},
    SessionView: session_view(_SESSION),
    SessionWithRunView: {**session_view(_SESSION), "active_run": None, "summary": summary_view(_SUMMARY)},
    SessionsView: {"sessions": [session_view(_SESSION)], "next": None},
    UsageSumsView: {
        "by": UsageBy.DAY,
        "usage": [usage_sum_view(UsageSum("2026-11-21", 12, 4_310, 2_874, 1_024, 0, 1, 96, 2_294_100, 0))],
        "next": None,
    },
    MessagesView: {
        "session_id": RUN.session_id,
        "leaf_id": _SESSION.leaf_id,
        "messages": [message_view(_QUESTION), message_view(_ANSWER)],
        "next": None,
    },
    SearchView: {"results": [hit_view(_HIT)], "next": None},
    DocumentView: document_view(_DOCUMENT),
    DocumentsView: {"documents": [document_view(_DOCUMENT)], "next": None},
    TemplatesView: {"templates": [template_view(_TEMPLATE)]},
}
"""By the type that describes them."""


class Stream(NamedTuple):
    summary: str
    frames: str


def _stream(summary: str, encoder: Encoder, *events: Event, rest: bytes = b"") -> Stream:
    return Stream(summary, (encoder.opening(RUN, 0) + encoder.encode(RUN.id, 1, events) + rest).decode())


_OPTIONS = {"type": "stream_options", "stream_options": {"allow_cancel": False}}
_TROUBLE = {"code": "store_unavailable", "message": "The conversation store is not available right now."}

_REPORT: DoctorReportView = {
    "service": _SERVICE["service"],
    "version": _SERVICE["version"],
    "http_version": "1.1",
    "received": ["accept", "origin"],
    "sent": SENT,
    "body_bytes": 0,
    "body_limit": 2_000_000,
    "ping_seconds": 15,
}
_DOCTOR = (
    json_frame("doctor", 0, "doctor.report", _REPORT)
    + json_frame("doctor", 1, "doctor.event", DoctorEventView(number=1, after=0.2504))
    + json_frame("doctor", 2, "doctor.end", DoctorEventView(number=2, after=0.2505))
)

STREAMS: Mapping[str, Stream] = {
    "text": _stream("format=text", FORMATS["text"], *_SAID, _COMPLETED),
    "events": _stream("format=events", FORMATS["events"], *_SAID, _COMPLETED),
    "lines": _stream("Text without an end mark", LINES, *_SAID, _COMPLETED),
    "parts": _stream("The AI SDK's UI messages", UIMessages(), *_SAID, _COMPLETED),
    "chunks": _stream("Chunks", CompletionChunks(usage=True), *_SAID, _COMPLETED),
    "ag-ui": _stream("AG-UI", AgUiEvents(RUN.session_id, "run-1"), *_SAID, _COMPLETED),
    "chatkit": _stream("ChatKit", ChatKitEvents([_OPTIONS]), *_SAID, _COMPLETED),
    "response": _stream("Events of a response", ResponseEvents(NO_TERMS), *_SAID, _COMPLETED),
    "doctor": Stream("A report, an event, the end", _DOCTOR.decode()),
    "imported": _stream("An import", FORMATS["events"], *IMPORTED),
    "failed": _stream("The model failed", FORMATS["text"], _SAID[0], _FAILURE),
    "later": _stream(
        "Come back with the same cursor",
        FORMATS["text"],
        _SAID[0],
        rest=notice("stream.error", _TROUBLE | {"retryable": True}) + retry(1_740),
    ),
}
"""By the names that the operations use."""
