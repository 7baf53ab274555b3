"""The JSON that clients get to see of the domain's values. The API's description is made from these types."""

from datetime import UTC, datetime
from typing import Annotated, Literal, NotRequired, TypeAlias, cast

from pydantic import Field
from typing_extensions import TypedDict  # typing's own cannot be described before Python 3.12

from chat.events import RunCompleted, RunFailed, Source, name_of, payload_of
from chat.routing import Choice
from chat.runs import Run, RunKind, RunStatus
from chat.sessions import Message, Role, Session, Summary
from chat.usage import UsageBy, UsageSum

Timestamp: TypeAlias = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class HealthView(TypedDict):
    status: Literal["healthy"]
    service: str
    version: str


class ReadyView(TypedDict):
    status: Literal["ready"]


class ServiceView(TypedDict):
    status: Literal["ok"]
    service: str
    version: str
    titles: Annotated[bool, Field(description="Whether a model gives a title to sessions that have none.")]
    endpoints: Annotated[dict[str, list[str]], Field(description="The paths, and the methods that each takes.")]


class ModelView(TypedDict):
    """A model that a request may name."""

    id: str
    provider: str
    default: Annotated[bool, Field(description="Answers where no model is named.")]
    available: Annotated[bool, Field(description="False while its provider is not asked, because it keeps failing.")]
    context_tokens: Annotated[int, Field(description="How much of a conversation it is sent.")]


class ModelsView(TypedDict):
    models: list[ModelView]


class UsageView(TypedDict):
    """Tokens in and out; ``source`` says whether the model's server counted them or they are estimated."""

    input_tokens: int
    output_tokens: int
    source: Literal["reported", "estimated"]
    cached_tokens: NotRequired[Annotated[int, Field(description="Of the input, what the server had read before.")]]
    reasoning_tokens: NotRequired[Annotated[int, Field(description="Of the output, what is no part of the answer.")]]
    cost: NotRequired[
        Annotated[float, Field(description="US dollars, where the prices of all models that were asked are known.")]
    ]


class UsageSumView(TypedDict):
    """What some runs have used together."""

    key: Annotated[str, Field(description="The session, user, day or model.")]
    runs: Annotated[int, Field(description="Those in which a model was asked.")]
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    estimated_runs: Annotated[int, Field(description="Those of which the model's server did not count everything.")]
    estimated_tokens: Annotated[int, Field(description="Their tokens, in and out.")]
    cost: Annotated[float | None, Field(description="US dollars, of what has a price; null if nothing has.")]
    unpriced_tokens: Annotated[
        int, Field(description="Tokens, in and out, that have no price and no part in the cost.")
    ]


class UsageSumsView(TypedDict):
    by: UsageBy
    usage: list[UsageSumView]
    next: Annotated[str | None, Field(description="The next page's ?after=; null on the last.")]


class FailureView(TypedDict):
    """Why a run failed. ``retryable``: asking again can help."""

    code: str
    message: str
    retryable: bool


class WaitingCallView(TypedDict):
    """A call that is made when somebody says yes to it."""

    call_id: str
    name: str
    arguments: Annotated[str, Field(description="As the model wrote them: JSON, if it did well.")]


class TicketView(TypedDict):
    """What EventSource, which sends no header, follows a run with."""

    ticket: str
    events_url: Annotated[str, Field(description="With the ticket in it.")]
    expires_at: Annotated[int, Field(description="Milliseconds since 1970.")]


class AnonymousView(TypedDict):
    """An anonymous user, and the token that says so."""

    user_id: str
    token: str
    expires_at: Annotated[int, Field(description="Milliseconds since 1970.")]


class RunView(TypedDict):
    """One durable generation, of an answer or of what its session keeps besides; or an import of documents."""

    run_id: str
    kind: Annotated[RunKind, Field(description="What it is for. All but answers are no part of the conversation.")]
    session_id: str
    user_id: str
    message_id: Annotated[
        str, Field(description="The message that is answered, or the last one that is read; empty for an import.")
    ]
    answer_id: Annotated[
        str | None, Field(description="The message that an answer becomes; stored when the run has ended.")
    ]
    status: RunStatus
    model: str
    events_url: Annotated[str, Field(description="Where the run is followed.")]
    created_at: Timestamp
    finished_at: Timestamp | None
    finish_reason: Annotated[str | None, Field(description="Why the model stopped, in its own word, such as stop.")]
    usage: UsageView | None
    error: FailureView | None
    waiting: Annotated[
        list[WaitingCallView], Field(description="To decide at POST /runs/{run_id}/approvals/{call_id}.")
    ]
    last_event: Annotated[str | None, Field(description="The event that ended the run; null while it is active.")]


class StartedView(TypedDict):
    """Which run a stream is about, and how it stood when the stream began."""

    run_id: str
    session_id: str
    message_id: str
    answer_id: str | None
    model: str
    status: RunStatus


class SourceView(TypedDict):
    """What something in an answer is from: a page, by its ``url``, or a passage of a ``document``."""

    id: Annotated[str, Field(description="Its name in the run.")]
    url: NotRequired[Annotated[str, Field(description="http or https.")]]
    title: NotRequired[str]
    document: NotRequired[Annotated[str, Field(description="The document's id.")]]
    place: NotRequired[Annotated[str, Field(description="Where in the document.")]]
    score: NotRequired[Annotated[float, Field(description="The larger, the better it fitted.")]]
    text: NotRequired[Annotated[str, Field(description="The passage.")]]
    start: NotRequired[Annotated[int, Field(description="The first character of the answer that is from there.")]]
    end: NotRequired[Annotated[int, Field(description="The one behind the last.")]]


class AnswerView(RunView):
    """A run that has ended, and what it answered."""

    answer: str
    sources: Annotated[list[SourceView], Field(description="What it is from, where the model's server says so.")]


class QueryView(TypedDict):
    model: str
    answer: str
    sources: NotRequired[Annotated[list[SourceView], Field(description="What the answer is from.")]]


class SessionView(TypedDict):
    """One conversation: a tree of messages with one branch that is spoken to."""

    session_id: str
    user_id: str
    title: str | None
    metadata: dict[str, object]
    message_count: int
    leaf_id: Annotated[str | None, Field(description="The last message of the branch that the next message continues.")]
    created_at: Timestamp
    updated_at: Timestamp
    template: Annotated[str | None, Field(description="The prompt template of chats that name none.")]
    variables: Annotated[dict[str, object], Field(description="What that template is filled in with.")]
    collection: Annotated[str | None, Field(description="The documents that its answers are taken from.")]


class SummaryView(TypedDict):
    """What a model has made of the beginning of a conversation, for the models that answer."""

    text: str
    up_to: Annotated[str, Field(description="The last message that it tells of.")]
    run_id: Annotated[str, Field(description="The run that made it.")]
    model: str
    created_at: Timestamp


class SessionWithRunView(SessionView):
    active_run: Annotated[RunView | None, Field(description="The run that is answering, or the first that waits.")]
    summary: Annotated[SummaryView | None, Field(description="Of the branch that is spoken to, once it is long.")]


class SessionsView(TypedDict):
    """Latest activity first."""

    sessions: list[SessionView]
    next: Annotated[str | None, Field(description="The next page's ?after=; null on the last.")]


class FieldView(TypedDict):
    """What is wrong with one member or parameter; ``field`` is empty where it is the whole."""

    field: str
    message: str


class ProblemView(TypedDict):
    """RFC 9457. ``detail`` is written for people; ``code`` is what programs go by."""

    type: Literal["about:blank"]
    title: Annotated[str, Field(description="The status in words.")]
    status: int
    detail: str
    code: str
    request_id: Annotated[str, Field(description="The request's id in the service's log.")]
    run_id: NotRequired[Annotated[str, Field(description="The run that is in the way, or that failed.")]]
    retryable: NotRequired[Annotated[bool, Field(description="Of a failed run: asking again can help.")]]
    answer: NotRequired[Annotated[str, Field(description="Of a failed run: what it said before.")]]
    errors: NotRequired[list[FieldView]]


class CallView(TypedDict):
    """A tool that was called. Without `result` and `error`, the run was stopped before it had answered."""

    call_id: str
    name: str
    arguments: Annotated[str, Field(description="As the model wrote them: JSON, if it did well.")]
    result: str | None
    error: str | None


class MessageView(TypedDict):
    message_id: str
    parent_id: Annotated[str | None, Field(description="The message that this one follows; null at the root.")]
    role: Role
    content: str
    status: Annotated[str, Field(description="completed, or how the run of a partial answer ended.")]
    run_id: Annotated[str | None, Field(description="The run that made an answer.")]
    created_at: Timestamp
    tool_calls: Annotated[list[CallView], Field(description="The tools that an answer has called, in order.")]
    sources: Annotated[list[SourceView], Field(description="What an answer is from, in order.")]


class MessagesView(TypedDict):
    """Oldest first. All branches: ``leaf_id`` and the parents lead along the one that is spoken to."""

    session_id: str
    leaf_id: str | None
    messages: list[MessageView]
    next: Annotated[str | None, Field(description="The older page's ?before=; null when there is none.")]


def timestamp(milliseconds: int) -> Timestamp:
    """RFC 3339 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def events_url(run_id: str) -> str:
    return f"/runs/{run_id}/events"


def run_view(run: Run) -> RunView:
    ending = run.terminal
    return {
        "run_id": run.id,
        "kind": run.kind,
        "session_id": run.session_id,
        "user_id": run.user_id,
        "message_id": run.message_id,
        "answer_id": run.answer_id or None,
        "status": run.status,
        "model": run.model,
        "events_url": events_url(run.id),
        "created_at": timestamp(run.created_at),
        "finished_at": None if run.finished_at is None else timestamp(run.finished_at),
        "finish_reason": ending.finish_reason if isinstance(ending, RunCompleted) else None,
        "usage": _usage_view(run),
        "error": _failure_view(ending) if isinstance(ending, RunFailed) else None,
        "waiting": [{"call_id": call.id, "name": call.name, "arguments": call.arguments} for call in run.waiting],
        "last_event": None if ending is None else name_of(ending),
    }


def model_view(choice: Choice) -> ModelView:
    return {
        "id": choice.id,
        "provider": choice.provider,
        "default": choice.default,
        "available": choice.available,
        "context_tokens": choice.context_tokens,
    }


def _usage_view(run: Run) -> UsageView | None:
    usage = None if run.terminal is None else run.terminal.usage
    if usage is None:
        return None
    view: UsageView = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "source": usage.source,
    }
    if usage.cached_tokens:
        view["cached_tokens"] = usage.cached_tokens
    if usage.reasoning_tokens:
        view["reasoning_tokens"] = usage.reasoning_tokens
    if run.cost is not None:
        view["cost"] = _dollars(run.cost)
    return view


def _dollars(nano: int) -> float:
    return nano / 1_000_000_000


def usage_sum_view(item: UsageSum) -> UsageSumView:
    return {
        "key": item.key,
        "runs": item.runs,
        "input_tokens": item.input_tokens,
        "output_tokens": item.output_tokens,
        "cached_tokens": item.cached_tokens,
        "reasoning_tokens": item.reasoning_tokens,
        "estimated_runs": item.estimated_runs,
        "estimated_tokens": item.estimated_tokens,
        "cost": None if item.cost is None else _dollars(item.cost),
        "unpriced_tokens": item.unpriced_tokens,
    }


def _failure_view(failure: RunFailed) -> FailureView:
    return {"code": failure.code, "message": failure.message, "retryable": failure.retryable}


def session_view(session: Session) -> SessionView:
    return {
        "session_id": session.id,
        "user_id": session.user_id,
        "title": session.title,
        "metadata": dict(session.metadata),
        "message_count": session.message_count,
        "leaf_id": session.leaf_id,
        "created_at": timestamp(session.created_at),
        "updated_at": timestamp(session.updated_at),
        "template": session.template,
        "variables": dict(session.variables),
        "collection": session.collection,
    }


def summary_view(summary: Summary) -> SummaryView:
    return {
        "text": summary.text,
        "up_to": summary.up_to,
        "run_id": summary.run_id,
        "model": summary.model,
        "created_at": timestamp(summary.created_at),
    }


def message_view(message: Message) -> MessageView:
    return {
        "message_id": message.id,
        "parent_id": message.parent_id,
        "role": message.role,
        "content": message.content,
        "status": message.status,
        "run_id": message.run_id,
        "created_at": timestamp(message.created_at),
        "tool_calls": [
            {
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
                "result": call.result,
                "error": call.error,
            }
            for step in message.steps
            for call in step.calls
        ],
        "sources": [source_view(source) for source in message.sources],
    }


def source_view(source: Source) -> SourceView:
    return cast(SourceView, payload_of(source))
