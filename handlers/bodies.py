"""What clients may send. Members that nobody asked for are ignored, as the clients of such services expect."""

import json
import math
from datetime import date
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from starlette.requests import Request

from chat.commands import OnBusy
from chat.documents import COLLECTION
from chat.errors import ChatError
from chat.ids import ID, USER_ID
from chat.intake import TITLE_CHARS
from chat.runs import CURSOR
from chat.usage import UsageBy
from handlers.identity import speak_for


def _flag(value: object) -> object:
    """In a query string a flag is a word; but a number that comes for one in JSON was meant for something else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError("not true or false")
    return value


Id = Annotated[str, StringConstraints(pattern=f"^{ID.pattern}$")]
UserId = Annotated[str, StringConstraints(pattern=f"^{USER_ID.pattern}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,255}$")]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Format = Literal["text", "events"]
Place = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}$")]
TemplateName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
CollectionName = Annotated[str, StringConstraints(pattern=rf"^{COLLECTION.pattern}$")]
Flag = Annotated[bool, BeforeValidator(_flag)]
Scalar = StrictStr | StrictBool | StrictInt | StrictFloat
Variables = Annotated[
    dict[str, Scalar | list[Scalar]],
    Field(default_factory=dict, description="What the template is filled in with, up to 16 KiB."),
]

SEARCH_CHARS = 500
"""Longest search: far more than anybody types."""

JSON_DEPTH = 128
"""Levels of a body. Some hundred can be read, and a few less be written down again, which an answer has to be."""

METADATA_BYTES = 16_384
"""A session's metadata is for labels, not for documents."""

METADATA_DEPTH = 32
"""Levels of it, likewise."""


_TEMPLATE = "The prompt template that tells the model what to do; without it the session's."


COLLECTION_MEANS = "The documents that the session's answers are taken from, from now on; without it they stay."


class Body(BaseModel):
    # Each is built by the first request that has one: all of them together would be a twentieth of the start.
    model_config = ConfigDict(extra="ignore", str_strip_whitespace=False, defer_build=True)


class Reply(Body):
    """How an answer is wanted."""

    format: Format = Field("text", description="The wire format of the stream.")
    stream: Flag = Field(default=True, description="False waits for the whole answer and returns it as JSON.")
    on_busy: OnBusy = Field(OnBusy.REJECT, description="What to do while the session is still answering.")
    on_disconnect: Literal["continue", "cancel"] = Field(
        "continue", description="Whether the run goes on when this connection is lost."
    )
    request_id: Key | None = Field(None, description="Idempotency key, where a header cannot be sent.")
    model: ModelName | None = Field(None, description="The model that is to answer, one of `GET /models`.")


class ChatQuery(Reply):
    message: str = Field(min_length=1, description="What the user says.")
    session_id: Id | None = Field(None, description="The conversation; an unknown id creates it.")
    user_id: UserId | None = Field(None, description="Whose conversation it is; without it an anonymous id is made.")
    parent_id: Id | None = Field(
        None,
        description="The answer that this message follows: an edit that branches. Null begins at the root; "
        "without it the message follows the last one.",
    )
    template: TemplateName | None = Field(None, description=_TEMPLATE)
    collection: CollectionName | None = Field(None, description=COLLECTION_MEANS)


class ChatBody(ChatQuery):
    variables: Variables


class QueryBody(Body):
    prompt: str = Field(min_length=1, description="What is asked.")
    request_id: Key | None = Field(None, description="Idempotency key, where a header cannot be sent.")
    model: ModelName | None = Field(None, description="The model that is to answer, one of `GET /models`.")
    collection: CollectionName | None = Field(None, description="The documents that the answer is taken from.")


class TurnBody(Body):
    role: Literal["user", "assistant", "system"]
    content: str


class MessagesBody(Reply):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    messages: list[TurnBody] = Field(
        min_length=1, description="The conversation as the client sees it; the last message is the user's."
    )
    session_id: Id | None = Field(None, description="The conversation; an unknown id creates it.")
    user_id: UserId | None = Field(None, description="Whose conversation it is; without it an anonymous id is made.")
    template: TemplateName | None = Field(None, description=_TEMPLATE)
    variables: Variables
    collection: CollectionName | None = Field(None, description=COLLECTION_MEANS)


class RetryBody(Reply):
    """Nothing but how the answer is wanted."""


class ApprovalBody(Body):
    approved: Flag = Field(description="Whether the call may be made.")


class IdempotencyKey(Body):
    key: Key


class SessionBody(Body):
    session_id: Id | None = Field(None, description="Without it an id is made.")
    user_id: UserId | None = Field(None, description="Without it an anonymous id is made.")
    title: str | None = Field(None, max_length=200)
    metadata: dict[str, Any] = Field(default_factory=dict, description="Labels of the client's own, up to 16 KiB.")
    template: TemplateName | None = Field(None, description="The prompt template of chats that name none.")
    variables: Variables
    collection: CollectionName | None = Field(None, description="The documents that its answers are taken from.")


class SessionChanges(Body):
    """What is left out stays as it is."""

    title: str | None = Field(None, max_length=200)
    metadata: dict[str, Any] = Field(default_factory=dict, description="Takes the place of all that was there.")
    template: TemplateName | None = Field(
        None, description="The prompt template of chats that name none; null takes it away."
    )
    variables: Variables
    collection: CollectionName | None = Field(
        None, description="The documents that its answers are taken from; null takes them away."
    )


class ListQuery(Body):
    user_id: UserId | None = Field(None, description="Only this user's sessions.")
    limit: int = Field(50, ge=1, le=200, description="The most that a page has.")
    after: Place | None = Field(None, description="The `next` of the page before.")


class RecordsQuery(Body):
    kind: str | None = Field(None, description="Only records of this kind.")
    session_id: Id | None = Field(None, description="Only what was written down in this session.")
    user_id: UserId | None = Field(None, description="Only what was written down for this user.")
    limit: int = Field(50, ge=1, le=200, description="The most that a page has.")
    after: Place | None = Field(None, description="The `next` of the page before.")


class HistoryQuery(Body):
    limit: int = Field(50, ge=1, le=200, description="The most that a page has.")
    before: Id | None = Field(None, description="The `next` of the page behind: older messages than these.")


def _day(value: object) -> object:
    # Pydantic alone would take a number for a time, too.
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise ValueError("not a day such as 2026-11-21") from None


Day = Annotated[date, BeforeValidator(_day)]


class UsageParameters(Body):
    by: UsageBy = Field(UsageBy.DAY, description="What is summed up. Days come latest first, else the keys in order.")
    user_id: UserId | None = Field(None, description="Only this user's runs.")
    session_id: Id | None = Field(None, description="Only this session's runs, be it deleted or not.")
    from_: Day | None = Field(None, alias="from", description="Only runs that ended on this day, in UTC, or later.")
    to: Day | None = Field(None, description="Only runs that ended on this day or before.")
    limit: int = Field(50, ge=1, le=200, description="The most that a page has.")
    after: str | None = Field(None, description="The `next` of the page before.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.from_ is not None and self.to is not None and self.from_ > self.to:
            raise ValueError("from is later than to")
        return self


class SearchQuery(Body):
    q: str = Field(
        max_length=SEARCH_CHARS, description="Words that a message has all of; the last may be the beginning of one."
    )
    user_id: UserId | None = Field(None, description="Only this user's messages.")
    session_id: Id | None = Field(None, description="Only this session's messages.")
    limit: int = Field(20, ge=1, le=50, description="The most that a page has.")
    after: str | None = Field(
        None, pattern=r"^[0-9]{1,18}-[0-9]{1,18}-[0-9]{1,6}$", description="The `next` of the page before."
    )


class DocumentBody(Body):
    text: str = Field(description="All of the document.")
    title: str = Field(min_length=1, max_length=TITLE_CHARS, description="What a source calls it.")
    collection: CollectionName = Field(description="The collection that it belongs to: one that has none yet begins.")
    media_type: str = Field("text/plain", description="What the text is: `text/plain`, `text/markdown`, `text/html`.")
    user_id: UserId | None = Field(None, description="Whose it is; without anybody it is shared with all users.")


class UploadBody(Body):
    """A form. Its files are checked by their names alone."""

    file: Annotated[
        list[str],
        WithJsonSchema({"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}),
        Field(min_length=1, description="One file or more, each with its name and its media type."),
    ]
    collection: CollectionName = Field(description="The collection that they belong to: one that has none yet begins.")
    title: str | None = Field(
        None, min_length=1, max_length=TITLE_CHARS, description="What a source calls it; without it the file's name."
    )
    user_id: UserId | None = Field(None, description="Whose they are; without anybody they are shared with all users.")


class DocumentsQuery(Body):
    collection: CollectionName | None = Field(None, description="Only documents of this collection.")
    user_id: UserId | None = Field(None, description="Only what this user may read.")
    limit: int = Field(50, ge=1, le=200, description="The most that a page has.")
    after: Place | None = Field(None, description="The `next` of the page before.")


class FollowQuery(Body):
    format: Format = Field("text", description="The wire format of the stream.")
    after: str | None = Field(
        None,
        json_schema_extra={"pattern": f"^({CURSOR.pattern}|[0-9]{{1,18}})?$"},  # refused as invalid_cursor
        description="A sequence number or an event id; Last-Event-ID goes before it.",
    )


B = TypeVar("B", bound=Body)


async def body_of(request: Request, kind: type[B]) -> B:
    """Read and check a JSON body; an empty one counts as ``{}``.

    How the answer is wanted may also stand in the query string: ``POST /chat?format=events``. The body goes before it.

    Raises:
        ChatError: ``unsupported_media_type``, ``invalid_json``, ``invalid_request``, ``user_mismatch``.
    """
    value = await json_of(request)
    if issubclass(kind, Reply) and isinstance(value, dict):
        wanted = request.query_params
        value = {name: wanted[name] for name in Reply.model_fields if name in wanted} | value
    return spoken_for(request, checked(kind, value))


async def json_of(request: Request) -> object:
    """The JSON of the body, ``{}`` where there is none.

    Raises:
        ChatError: ``unsupported_media_type``, ``invalid_json``.
    """
    raw = await request.body()
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # Forms and plain text are what a foreign page can send without asking; JSON needs a preflight.
    if raw and media_type != "application/json" and not media_type.endswith("+json"):
        raise ChatError("unsupported_media_type", "Send the body as application/json.")
    return parse_json(raw or b"{}")


def query_of(request: Request, kind: type[B]) -> B:
    """Check the query string.

    Raises:
        ChatError: ``invalid_request``, ``user_mismatch``.
    """
    return spoken_for(request, checked(kind, dict(request.query_params)))


def spoken_for(request: Request, body: B) -> B:
    """Whoever is named in a body or a query is whom the request is for, and nobody reads one without coming by here."""
    for member in ("user_id", "user"):
        if (named := getattr(body, member, None)) is not None:
            speak_for(request, named)
    return body


def parse_json(raw: bytes) -> object:
    """Parse UTF-8 JSON strictly: no NaN, no infinity, no other encoding, nothing that cannot be written down again.

    At most ``JSON_DEPTH`` levels.

    Raises:
        ChatError: ``invalid_json``.
    """
    try:
        value = json.loads(raw.decode(), parse_float=_finite, parse_constant=_no_constant)
        if b"\\u" in raw:  # only an escape can bring a lone surrogate, which no UTF-8 can carry
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # UnicodeError, JSONDecodeError and huge integers are ValueErrors
        raise ChatError("invalid_json", "The body is not valid JSON in UTF-8.") from error
    if raw.count(b"[") + raw.count(b"{") > JSON_DEPTH and _deeper(value, JSON_DEPTH):
        raise ChatError("invalid_json", f"The body is nested deeper than {JSON_DEPTH} levels.")
    return value


def _deeper(value: object, depth: int) -> bool:
    """Whether JSON has more levels, looked at level by level: each of its values once."""
    level: list[Any] = [[value]]
    for _ in range(depth + 1):
        inside = [outer.values() if isinstance(outer, dict) else outer for outer in level if outer]
        level = [item for items in inside for item in items if isinstance(item, (dict, list))]
        if not level:
            return False
    return True


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):  # 1e999
        raise ValueError(number)
    return value


def _no_constant(name: str) -> float:
    raise ValueError(name)


def checked(kind: type[B], value: object) -> B:
    """Raises ChatError ``invalid_request``, which names what is wrong but does not repeat it."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> ChatError:
    """``invalid_request``, which names what is wrong but does not repeat it."""
    errors = [
        {"field": ".".join(str(step) for step in problem["loc"]), "message": problem["msg"]}
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    first = errors[0]
    message = f"{first['field']}: {first['message']}" if first["field"] else str(first["message"])
    return ChatError("invalid_request", message, details={"errors": errors})


def nested_within(depth: int, value: object) -> bool:
    """Whether JSON is at most so many levels deep."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth >= 0 and all(nested_within(depth - 1, item) for item in inner)
