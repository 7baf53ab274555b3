"""Documents that answers are taken from."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from chat.documents import Document, NewDocument
from chat.errors import ChatError
from chat.ids import new_id
from handlers.answers import claim_of
from handlers.bodies import DocumentBody, DocumentsQuery, body_of, query_of
from handlers.context import engine_of, service_of
from handlers.identity import NOBODY
from handlers.listings import DocumentsView, document_view
from handlers.streams import cursor_of


async def create_document(request: Request) -> Response:
    body, service, store = await body_of(request, DocumentBody), service_of(request), engine_of(request).store
    meaning = [body.title, body.collection, body.media_type, body.user_id, body.text]
    claim = claim_of(request, None, *meaning)
    if claim is not None and (before := await store.claimed_document(claim)) is not None:
        return _stored(before, replayed=True)
    text = _text_of(body, service.document_limit)
    media_type = body.media_type.partition(";")[0].strip().lower()
    texts = [known for known in service.reader.media_types if known.startswith("text/")]
    if media_type not in texts:
        other = f" {media_type} is sent as a file." if media_type in service.reader.media_types else ""
        raise ChatError("unsupported_media_type", f"media_type: one of {', '.join(texts)}.{other}")
    chunks = await service.reader.chunks(text, media_type)
    if not chunks:
        raise ChatError("document_empty", "There is no text in the document.")
    new = NewDocument(new_id("doc"), body.user_id, body.collection, body.title, media_type, len(text), chunks)
    document = await store.add_document(new, service.documents_each, claim)
    return _stored(document, replayed=document.id != new.id)


async def list_documents(request: Request) -> Response:
    query = query_of(request, DocumentsQuery)
    page = await engine_of(request).store.documents(query.user_id, query.collection, query.limit, query.after)
    view: DocumentsView = {"documents": [document_view(document) for document in page.items], "next": page.next}
    return JSONResponse(view)


async def get_document(request: Request) -> Response:
    document = await engine_of(request).store.document(request.path_params["document_id"])
    if document is None:
        raise _no_such_document()
    return JSONResponse(document_view(document))


async def delete_document(request: Request) -> Response:
    if not await engine_of(request).store.delete_document(request.path_params["document_id"]):
        raise _no_such_document()
    return Response(status_code=204)


async def check_collection(request: Request, collection: str | None, session_id: str | None, user: str | None) -> None:
    """See that there is a document in it that answers to this user, the session's if there is one, may be taken from.

    A client that comes back to its run is not held up by a document that is gone meanwhile.

    Raises:
        ChatError: ``collection_unknown``; ``invalid_cursor``.
    """
    if collection is None or cursor_of(request) is not None:
        return
    store = engine_of(request).store
    session = await store.session(session_id) if session_id is not None else None
    reader = session.user_id if session is not None else user
    if not (await store.documents(reader or NOBODY.user, collection, 1, None)).items:
        raise ChatError("collection_unknown", "There is no document in this collection that the user may read.")


def meant_by(collection: str | None) -> list[object]:
    """The collection's part in what a request means; nothing where none is named, as before there were any."""
    return [] if collection is None else [{"collection": collection}]


def _stored(document: Document, *, replayed: bool) -> Response:
    headers = {"Location": f"/documents/{document.id}"} | ({"Idempotency-Replayed": "true"} if replayed else {})
    return JSONResponse(document_view(document), 201, headers)


def _text_of(body: DocumentBody, limit: int) -> bytes:
    """The document, which is not too large."""
    text = body.text.encode()
    if len(text) > limit:
        raise ChatError(
            "document_too_large", f"A document may have {limit:,} bytes at most; this one has {len(text):,}."
        )
    if "\0" in body.title:
        raise ChatError("document_unreadable", "There is a NUL in the document's title.")
    return text


def _no_such_document() -> ChatError:
    return ChatError("not_found", "There is no such document.")
