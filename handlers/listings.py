"""The JSON of what is listed besides conversations: records, what a search finds, templates."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict  # typing's own cannot be described before Python 3.12

from chat.documents import Document
from chat.prompts import Template
from chat.records import Record
from chat.search import Hit
from chat.sessions import Role
from handlers.views import Timestamp, timestamp


class RecordView(TypedDict):
    """What a tool has written down."""

    record_id: str
    kind: str
    session_id: str
    user_id: str
    run_id: str
    data: dict[str, object]
    created_at: Timestamp


class RecordsView(TypedDict):
    """The latest first."""

    records: list[RecordView]
    next: Annotated[str | None, Field(description="The next page's ?after=; null on the last.")]


class RangeView(TypedDict):
    """From ``start`` to before ``end``, in Unicode code points."""

    start: int
    end: int


class HitView(TypedDict):
    """A message that was found."""

    session_id: str
    message_id: str
    role: Role
    snippet: Annotated[str, Field(description="Plain text, where the matches are closest; … where it was cut.")]
    matches: Annotated[list[RangeView], Field(description="What of the snippet matches.")]
    created_at: Timestamp


class SearchView(TypedDict):
    """Best first, later ones among equals."""

    results: list[HitView]
    next: Annotated[str | None, Field(description="The next page's ?after=; null on the last.")]


class TemplateView(TypedDict):
    """A prompt template; every variable has to be given."""

    name: str
    variables: list[str]


class TemplatesView(TypedDict):
    """By name."""

    templates: list[TemplateView]


class DocumentView(TypedDict):
    """A document that answers may be taken from."""

    document_id: str
    user_id: Annotated[str | None, Field(description="Whose it is; null where it is shared with all users.")]
    collection: str
    title: str
    media_type: str
    bytes: Annotated[int, Field(description="Of what was sent: of the file, or of the text in UTF-8.")]
    chunks: Annotated[int, Field(description="The passages that it was taken apart into.")]
    embedded: Annotated[int, Field(description="How many of them are found by meaning, too, and not by words alone.")]
    created_at: Timestamp


class DocumentsView(TypedDict):
    """The latest first."""

    documents: list[DocumentView]
    next: Annotated[str | None, Field(description="The next page's ?after=; null on the last.")]


def document_view(document: Document) -> DocumentView:
    return {
        "document_id": document.id,
        "user_id": document.user_id,
        "collection": document.collection,
        "title": document.title,
        "media_type": document.media_type,
        "bytes": document.bytes,
        "chunks": document.chunks,
        "embedded": document.embedded,
        "created_at": timestamp(document.created_at),
    }


def record_view(record: Record) -> RecordView:
    return {
        "record_id": record.id,
        "kind": record.kind,
        "session_id": record.session_id,
        "user_id": record.user_id,
        "run_id": record.run_id,
        "data": dict(record.data),
        "created_at": timestamp(record.created_at),
    }


def hit_view(hit: Hit) -> HitView:
    return {
        "session_id": hit.session_id,
        "message_id": hit.message_id,
        "role": hit.role,
        "snippet": hit.snippet,
        "matches": [{"start": start, "end": end} for start, end in hit.matches],
        "created_at": timestamp(hit.created_at),
    }


def template_view(template: Template) -> TemplateView:
    return {"name": template.name, "variables": sorted(template.variables)}
