"""What every route is for, takes, answers and refuses. Types and codes only: how they look is said elsewhere."""

from collections.abc import Mapping
from dataclasses import replace

from handlers.bodies import (
    ApprovalBody,
    ChatBody,
    ChatQuery,
    FollowQuery,
    HistoryQuery,
    ListQuery,
    MessagesBody,
    QueryBody,
    RecordsQuery,
    RetryBody,
    SearchQuery,
    SessionBody,
    SessionChanges,
    UsageParameters,
)
from handlers.doctor import DoctorQuery
from handlers.listings import RecordsView, SearchView, TemplatesView
from handlers.openapi.ag_ui import AG_UI
from handlers.openapi.chatkit import CHATKIT
from handlers.openapi.documents import DOCUMENTS
from handlers.openapi.operation import (
    ACCEPTED,
    ASKING,
    BODY,
    FOLLOW,
    MODEL,
    RUN,
    SEEN,
    START,
    STORE,
    STREAM,
    Answer,
    Operation,
)
from handlers.openapi.ui import UI
from handlers.openapi.users import USERS
from handlers.openapi.v1 import V1
from handlers.ui.bodies import UIChatBody
from handlers.views import (
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
)

METRICS = """\
# HELP parley_runs_total Runs that have ended.
# TYPE parley_runs_total counter
parley_runs_total{outcome="completed"} 42.0
"""

_STREAMED = Answer(
    description="The answer: as it is written, or whole with `stream` false.",
    view=AnswerView,
    streams=("text", "events", "failed", "later"),
    headers=RUN,
)
_FOLLOWED = Answer(
    description="What the run's log has behind the cursor, then what follows, up to its end.",
    streams=("text", "events", "failed", "later"),
    headers=RUN,
)
_MADE_UP = ("Preference-Applied", "Retry-After")
_ANSWERS = {200: _STREAMED, 202: ACCEPTED, 204: SEEN}

_ASK = (*START, *FOLLOW, "run_in_progress", *MODEL)

_DOCTOR = Operation(
    tag="Service",
    summary="Try the way from here to the client",
    description="Numbered, timed events, for `python server.py doctor`: no model is asked and nothing is stored. The "
    "response's headers are made up. `Last-Event-ID` continues behind one of them.",
    query=DoctorQuery,
    headers=("Last-Event-ID",),
    answers={
        200: Answer(description="A report, the events, the end.", streams=("doctor",), headers=(*RUN, *_MADE_UP)),
        204: Answer(description="The cursor is the stream's end. EventSource stops."),
    },
    raises=("invalid_request", "invalid_cursor", *STREAM),
)

_SERVICE = {
    "GET /": Operation(
        tag="Service",
        summary="What this is",
        description="A browser, which accepts `text/html`, is sent to the playground.",
        answers={
            200: Answer(description="The service and its paths.", view=ServiceView),
            303: Answer(description="A browser's way to the playground.", headers=("Location",)),
        },
    ),
    "GET /health": Operation(
        tag="Service",
        summary="The process lives",
        description="Says nothing about the database: a restart would not cure that.",
        answers={200: Answer(description="It does.", view=HealthView)},
    ),
    "GET /chat/health": Operation(
        tag="Service",
        summary="The process lives",
        description="The same as `/health`.",
        answers={200: Answer(description="It does.", view=HealthView)},
    ),
    "GET /ready": Operation(
        tag="Service",
        summary="Work may be sent here",
        description="The database answers, and the process is not shutting down.",
        answers={200: Answer(description="It may.", view=ReadyView)},
        raises=("draining", *STORE),
    ),
    "GET /metrics": Operation(
        tag="Service",
        summary="Numbers for Prometheus",
        description="Of this process alone, and without a word of any user. Not there with `METRICS=false`.",
        answers={200: Answer(description="Prometheus's text format.", text=METRICS)},
        raises=("not_found",),
    ),
    "GET /usage": Operation(
        tag="Service",
        summary="Sum up tokens and cost",
        description="By session, user, day or model, of the runs that have ended, those of deleted sessions included.",
        query=UsageParameters,
        answers={200: Answer(description="A page of sums.", view=UsageSumsView)},
        raises=("invalid_request", *STORE),
    ),
    "GET /models": Operation(
        tag="Service",
        summary="List the models",
        description="Those that a request may name, the default first.",
        answers={200: Answer(description="All of them.", view=ModelsView)},
    ),
    "GET /doctor/stream": _DOCTOR,
    "POST /doctor/stream": replace(
        _DOCTOR,
        summary="The same by POST",
        description="A body, of whatever kind, is counted and thrown away.",
        raises=(*_DOCTOR.raises, "body_too_large"),
    ),
    "GET /openapi.json": Operation(
        tag="Service",
        summary="This description",
        answers={200: Answer(description="OpenAPI 3.1.", view=dict)},
    ),
}

_CHAT = {
    "POST /chat": Operation(
        tag="Chat",
        summary="Say something",
        description="Stores the message, starts the run that answers it and streams the answer. "
        "The response's headers come when the message is stored. The run goes on when the client goes away, "
        "unless `on_disconnect` is `cancel`.",
        body=ChatBody,
        headers=ASKING,
        answers=_ANSWERS,
        raises=(*BODY, "template_unknown", "collection_unknown", *_ASK),
    ),
    "GET /chat": Operation(
        tag="Chat",
        summary="Say something, with EventSource",
        description="The same as `POST /chat`, for clients that can only GET and repeat their URL: the message of "
        "the session's active run, said again, attaches to that run. While the process shuts down, the answer is a "
        "stream that only says when to come back.",
        query=ChatQuery,
        headers=ASKING,
        answers=_ANSWERS,
        raises=("invalid_request", "template_unknown", "collection_unknown", *_ASK),
    ),
    "POST /api/chat": Operation(
        tag="Chat",
        summary="Answer a conversation",
        description="The client brings the conversation as it sees it. It is followed as far as it agrees with the "
        "stored one, and branches there: an edit. A single message continues the stored conversation. `system` "
        "messages go to the model and are not kept in the history. Members may be written in snake_case too.\n\n"
        "A body whose messages have `parts` is the AI SDK's, and is answered with its UI message stream. A message "
        "that is sent twice leads to one run.",
        body=MessagesBody,
        or_body=UIChatBody,
        headers=ASKING,
        answers={**_ANSWERS, 200: replace(_STREAMED, streams=(*_STREAMED.streams, "parts"))},
        raises=(*BODY, "template_unknown", "collection_unknown", "already_decided", *_ASK),
    ),
    "POST /query": Operation(
        tag="Chat",
        summary="Ask one question",
        description="Each question is a session of its own.",
        body=QueryBody,
        headers=ASKING,
        answers={
            200: Answer(description="The whole answer.", view=QueryView, headers=RUN),
            202: ACCEPTED,
        },
        raises=(*BODY, "collection_unknown", "run_stopped", *START, *STREAM, *MODEL),
    ),
    "POST /query/stream": Operation(
        tag="Chat",
        summary="Ask one question, and see the answer being written",
        description="The stream ends without `[DONE]`: its clients print every line.",
        body=QueryBody,
        headers=ASKING,
        answers={
            200: Answer(description="The answer as it is written.", streams=("lines", "failed", "later"), headers=RUN),
            202: ACCEPTED,
            204: SEEN,
        },
        raises=(*BODY, "collection_unknown", *START, *FOLLOW),
    ),
}

_RUNS = {
    "GET /runs/{run_id}": Operation(
        tag="Runs",
        summary="Look at a run",
        description="Of any `kind`: summaries and titles are made by runs that can be followed and stopped, too.",
        answers={200: Answer(description="The run.", view=RunView)},
        raises=("not_found", *STORE),
    ),
    "GET /runs/{run_id}/events": Operation(
        tag="Runs",
        summary="Follow a run",
        description="From the start, or behind `Last-Event-ID` or `after`. As many clients as like may follow.",
        query=FollowQuery,
        headers=("Last-Event-ID",),
        answers={200: _FOLLOWED, 204: SEEN},
        raises=("invalid_request", "cursor_mismatch", *FOLLOW),
    ),
    "POST /runs/{run_id}/ticket": Operation(
        tag="Runs",
        summary="Make a ticket to follow a run",
        description="For EventSource, which cannot send an `Authorization` header. It is for this run alone, and for "
        "nothing but to follow it. `Prefer: respond-async` gives an `events_url` that has one in it.",
        answers={201: Answer(description="The ticket.", view=TicketView)},
        raises=("not_found", *STORE),
    ),
    "POST /runs/{run_id}/cancel": Operation(
        tag="Runs",
        summary="Stop a run",
        description="Closes the connection to the model and keeps what was written. A run that has ended stays as it "
        "is. Waits for the end, but not for ever: where `status` is still `running`, ask again.",
        answers={200: Answer(description="The run as it is then.", view=RunView)},
        raises=("not_found", *STORE),
    ),
    "POST /runs/{run_id}/approvals/{call_id}": Operation(
        tag="Tools",
        summary="Say yes or no to a call",
        description="A tool that needs a yes waits for it, also over a restart; `tool.approval` in the run's stream "
        "names the call. To say the same again changes nothing.",
        body=ApprovalBody,
        answers={200: Answer(description="The run.", view=RunView)},
        raises=(*BODY, "not_found", "already_decided", *STORE),
    ),
    "POST /runs/{run_id}/retry": Operation(
        tag="Runs",
        summary="Answer once more",
        description="Another answer to the message that this run answered: a sibling in the tree, and the branch "
        "that is spoken to from now on. Of answers only: a summary or a title comes again by itself.",
        body=RetryBody,
        headers=ASKING,
        answers=_ANSWERS,
        raises=(*BODY, *_ASK),
    ),
}

_RECORDS = {
    "GET /records": Operation(
        tag="Tools",
        summary="Read what tools have written down",
        description="The latest first. Records stay when their session is deleted.",
        query=RecordsQuery,
        answers={200: Answer(description="A page of them.", view=RecordsView)},
        raises=("invalid_request", *STORE),
    ),
}

_CREATED = Answer(description="The new session.", view=SessionView, headers=("Location",))

_SESSIONS = {
    "GET /sessions": Operation(
        tag="Sessions",
        summary="List sessions",
        description="Latest activity first.",
        query=ListQuery,
        answers={200: Answer(description="A page of them.", view=SessionsView)},
        raises=("invalid_request", *STORE),
    ),
    "POST /sessions": Operation(
        tag="Sessions",
        summary="Create a session",
        description="Not needed before the first message: `POST /chat` creates the session that it names.",
        body=SessionBody,
        answers={201: _CREATED},
        raises=(*BODY, "template_unknown", "collection_unknown", "session_exists", *STORE),
    ),
    "POST /sessions/create": Operation(
        tag="Sessions",
        summary="Create a session",
        description="The same as `POST /sessions`.",
        body=SessionBody,
        answers={201: _CREATED},
        raises=(*BODY, "template_unknown", "collection_unknown", "session_exists", *STORE),
    ),
    "GET /sessions/{session_id}": Operation(
        tag="Sessions",
        summary="Look at a session",
        description="`summary` and a `title` that was not given by a client are made after an answer, in runs of their "
        "own: who wants to know whether they have come reads the session again.",
        answers={200: Answer(description="The session, and what it is answering.", view=SessionWithRunView)},
        raises=("not_found", *STORE),
    ),
    "PATCH /sessions/{session_id}": Operation(
        tag="Sessions",
        summary="Change a session's title, metadata, template or collection",
        description="A template comes with its variables: those of before do not stay.",
        body=SessionChanges,
        answers={200: Answer(description="The session as it is now.", view=SessionView)},
        raises=(*BODY, "template_unknown", "collection_unknown", "not_found", *STORE),
    ),
    "DELETE /sessions/{session_id}": Operation(
        tag="Sessions",
        summary="Delete a session",
        description="With its messages, runs and events; an active run is cancelled first.",
        answers={204: Answer(description="It is gone.")},
        raises=("not_found", *STORE),
    ),
    "GET /sessions/{session_id}/messages": Operation(
        tag="Sessions",
        summary="Read the messages",
        description="The latest ones, oldest first. `parent_id` makes them a tree.",
        query=HistoryQuery,
        answers={200: Answer(description="A page of them.", view=MessagesView)},
        raises=("invalid_request", "not_found", *STORE),
    ),
    "GET /sessions/{session_id}/events": Operation(
        tag="Sessions",
        summary="Follow a session",
        description="The run that the client was following, if `Last-Event-ID` or `after`, here always a whole event "
        "id, is of this session and not its run's last event; else the active one.",
        query=FollowQuery,
        headers=("Last-Event-ID",),
        answers={200: _FOLLOWED, 204: Answer(description="Nothing is being written. EventSource stops.")},
        raises=("invalid_request", *FOLLOW),
    ),
}

_FINDING = {
    "GET /search": Operation(
        tag="Sessions",
        summary="Search the messages",
        description="Case and accents do not count. Not a query language: whatever a person types is looked for. A "
        "message that comes while the pages are turned is not on them.",
        query=SearchQuery,
        answers={200: Answer(description="A page of what was found.", view=SearchView)},
        raises=("invalid_request", *STORE),
    ),
    "GET /templates": Operation(
        tag="Chat",
        summary="List the prompt templates",
        description="Their operator writes them; a chat or a session names one and gives its variables.",
        answers={200: Answer(description="All of them.", view=TemplatesView)},
    ),
}

OPERATIONS: Mapping[str, Operation] = (
    _SERVICE | _CHAT | _RUNS | _SESSIONS | _RECORDS | _FINDING | DOCUMENTS | USERS | UI | V1 | AG_UI | CHATKIT
)
"""By method and path, as the URL table has them."""
