"""Documents that answers are taken from."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from chat.commands import Claim, Started
from chat.documents import Document
from chat.errors import ChatError
from chat.ids import anonymous_user, new_id
from chat.imports import NewImport, refusal_of
from chat.intake import File, media_type_of
from chat.runs import Cursor, RunKind
from chat.sessions import NewSession
from handlers.answers import begun, claim_of, prefers_async
from handlers.bodies import DocumentBody, DocumentsQuery, UploadBody, body_of, query_of
from handlers.context import engine_of, service_of
from handlers.formats import FORMATS
from handlers.identity import NOBODY
from handlers.limits import client_of, limits_of, refuse_over
from handlers.listings import DocumentsView, document_view
from handlers.sealing import followed_at
from handlers.streams import cursor_of, follow, run_headers
from handlers.uploads import is_form, upload_of
from handlers.views import RunView, run_view


async def create_document(request: Request) -> Response:
    """As JSON with its text, or as a form with its file; several files, or who wants it, start an import."""
    cursor = cursor_of(request)
    body, files = await _brought(request)
    said = [[file.name, file.title, file.media_type, file.digest] for file in files]
    claim = claim_of(request, None, body.collection, body.user_id, said)
    intake, store = service_of(request).intake, engine_of(request).store
    if claim is not None and (before := await store.claimed_document(claim)) is not None:
        return _stored(before, replayed=True)
    streams = "text/event-stream" in request.headers.get("accept", "")
    imports = len(files) > 1 or streams or prefers_async(request)
    if imports or (claim is not None and await store.claimed(claim) is not None):  # the same, however it is delivered
        return await _import(request, body, files, claim, cursor, streams=streams)
    refuse_over(request)
    with limits_of(request).reading(client_of(request)):
        new = await intake.document(files[0], body.collection, body.user_id)
    document = await store.add_document(new, intake.most, claim)
    return _stored(document, replayed=document.id != new.id)


async def _brought(request: Request) -> tuple[DocumentBody | UploadBody, Sequence[File]]:
    if is_form(request.headers):
        return await upload_of(request, service_of(request).files_each)
    body = await body_of(request, DocumentBody)
    media_type = media_type_of("", body.media_type)
    if media_type in service_of(request).intake.reader.media_types and not media_type.startswith("text/"):
        raise ChatError(
            "unsupported_media_type", f"A document's text is of no such kind: {media_type} is sent as a file."
        )
    return body, [File(body.title, body.title, media_type, body.text.encode())]


async def _import(
    request: Request,
    body: DocumentBody | UploadBody,
    files: Sequence[File],
    claim: Claim | None,
    cursor: Cursor | None,
    *,
    streams: bool,
) -> Response:
    new = NewImport(
        id=new_id("run"),
        session=NewSession(new_id("ses"), body.user_id or anonymous_user()),
        user_id=body.user_id,
        collection=body.collection,
        files=[(file, refusal_of(service_of(request).intake, file)) for file in files],
        claim=claim,
    )
    start = await begun(request, new) if cursor is None else await _attached(request, cursor)
    if streams:
        seen = 0 if cursor is None else cursor.seq
        try:
            return await follow(request, start.run.id, seen, FORMATS["events"], replayed=start.replayed)
        except ChatError:  # such as that no stream is free
            if not start.created:
                raise  # else who is told of a refusal would bring all once more
    headers = run_headers(start.run, replayed=start.replayed) | {"Location": f"/runs/{start.run.id}"}
    headers |= {"Preference-Applied": "respond-async"} if prefers_async(request) else {}
    view: RunView = {**run_view(start.run), "events_url": await followed_at(request, start.run)}
    return JSONResponse(view, 202, headers)


async def _attached(request: Request, cursor: Cursor) -> Started:
    """The import that the client has seen part of: it repeats its request to go on behind that.

    Raises:
        ChatError: ``not_found``, ``cursor_mismatch``.
    """
    run = await engine_of(request).run(cursor.run_id)
    if run.kind is not RunKind.IMPORT:
        raise ChatError("cursor_mismatch", "Last-Event-ID belongs to a run that is no import.")
    return Started(run, created=False, replayed=True)


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


def _no_such_document() -> ChatError:
    return ChatError("not_found", "There is no such document.")
