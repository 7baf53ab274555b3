"""The routes of documents."""

from handlers.bodies import DocumentBody, DocumentsQuery, UploadBody
from handlers.listings import DocumentsView, DocumentView
from handlers.openapi.operation import ASKING, BODY, FOLLOW, SEEN, STORE, Answer, Operation
from handlers.views import RunView

IMPORTING = ("X-User-Id", "X-Run-Id", "Location", "Idempotency-Replayed")

DOCUMENTS = {
    "POST /documents": Operation(
        tag="Documents",
        summary="Add a document",
        description="It is taken apart by its headings and paragraphs into passages, which are found from then on. It "
        "belongs to the user who asks, or is shared with all users where nobody in particular does. As JSON, or as a "
        "form with one file or more. An import of several is a run: it is followed, resumed and stopped as others are, "
        "goes on when this process dies, and tells of every file; one that is refused does not end the others.",
        body=DocumentBody,
        form=UploadBody,
        headers=ASKING,
        answers={
            201: Answer(
                description="The new document, or that of the same request before.",
                view=DocumentView,
                headers=("Location", "Idempotency-Replayed"),
            ),
            202: Answer(
                description="Several files, or `Prefer: respond-async`: they are stored, and a run imports them. "
                "Also where a stream was asked for and there is none to be had.",
                view=RunView,
                headers=(*IMPORTING, "Preference-Applied"),
            ),
            200: Answer(
                description="The same with `Accept: text/event-stream`: what the run's log says, up to its end; with "
                "`Last-Event-ID` of an import what comes behind that, and nothing is imported anew.",
                streams=("imported",),
                headers=IMPORTING,
            ),
            204: SEEN,
        },
        raises=(
            *BODY,
            "invalid_form",
            "too_many_files",
            "document_empty",
            "document_encrypted",
            "document_too_large",
            "document_unreadable",
            "too_many_documents",
            "draining",
            "idempotency_conflict",
            "too_many_runs",
            "budget_spent",
            "cursor_mismatch",
            *FOLLOW,
        ),
    ),
    "GET /documents": Operation(
        tag="Documents",
        summary="List documents",
        description="A user's own and those that are shared, the latest first.",
        query=DocumentsQuery,
        answers={200: Answer(description="A page of them.", view=DocumentsView)},
        raises=("invalid_request", *STORE),
    ),
    "GET /documents/{document_id}": Operation(
        tag="Documents",
        summary="Look at a document",
        answers={200: Answer(description="The document, without its text.", view=DocumentView)},
        raises=("not_found", *STORE),
    ),
    "DELETE /documents/{document_id}": Operation(
        tag="Documents",
        summary="Delete a document",
        description="With its passages. What answers have quoted of it stays with them. Only the operator may delete "
        "one that is shared.",
        answers={204: Answer(description="It is gone.")},
        raises=("not_found", "forbidden", *STORE),
    ),
}
