"""The routes of documents."""

from handlers.bodies import DocumentBody, DocumentsQuery
from handlers.listings import DocumentsView, DocumentView
from handlers.openapi.operation import BODY, STORE, Answer, Operation

DOCUMENTS = {
    "POST /documents": Operation(
        tag="Documents",
        summary="Add a document",
        description="It is taken apart by its headings and paragraphs into passages, which are found from then on. It "
        "belongs to the user who asks, or is shared with all users where nobody in particular does.",
        body=DocumentBody,
        headers=("Idempotency-Key",),
        answers={
            201: Answer(
                description="The new document, or that of the same request before.",
                view=DocumentView,
                headers=("Location", "Idempotency-Replayed"),
            )
        },
        raises=(
            *BODY,
            "idempotency_conflict",
            "document_empty",
            "document_encrypted",
            "document_too_large",
            "document_unreadable",
            "too_many_documents",
            *STORE,
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
