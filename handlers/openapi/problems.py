"""The errors: what each code means, and the responses of an operation that raises some of them."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus

from handlers.errors import STATUS, TITLES, openai_code, openai_status
from handlers.openapi.schemas import Json, ref
from handlers.v1.views import ErrorView
from handlers.views import ProblemView

MEANING: Mapping[str, str] = {
    "invalid_json": "The body is not valid JSON in UTF-8.",
    "invalid_form": "The body is not valid `multipart/form-data`, is cut off, or a field of it is too long.",
    "invalid_cursor": "The event id is not one that this service has sent.",
    "invalid_request": "A member or parameter is missing or wrong; `errors` names it.",
    "unauthorized": "No key or token that this service knows came with the request.",
    "forbidden": "This needs an admin key, or a key that says whose request it is; or a document is shared.",
    "foreign_page": "A browser asks for a page of another origin that is none of `ALLOWED_ORIGINS`.",
    "user_mismatch": "The request names another user than the one that it comes from.",
    "not_found": "There is nothing at this address, no such run, session, document or user, or it is another user's.",
    "method_not_allowed": "The address does not take this method; `Allow` says which it takes.",
    "cursor_ahead": "The run has no such event; read the session's messages again.",
    "cursor_mismatch": "The event id belongs to another run, or to the answer to another message.",
    "run_in_progress": "The session is still answering; `run_id` names the run. See `on_busy`.",
    "already_decided": "The call was decided about otherwise before, or its run has ended.",
    "run_stopped": "The answer was stopped before it was complete; `answer` has what there is.",
    "session_exists": "There is a session with this id already.",
    "too_many_documents": "There are as many documents already as a user may have.",
    "cursor_expired": "The events behind this id are gone; read the message instead.",
    "body_too_large": "The body is over the service's limit.",
    "document_too_large": "The document has more bytes, pages or text than this service takes.",
    "too_many_files": "The request brings more files than this service takes at a time.",
    "unsupported_media_type": "The body is not `application/json`, or the document is of no kind that is read here.",
    "collection_unknown": "There is no document in this collection that the user may read.",
    "document_empty": "There is no text in the document; a PDF may be made of images alone.",
    "document_encrypted": "The PDF is encrypted, with a password or against copying.",
    "document_unreadable": "The document is no text, not what its media type says, or takes too long to take apart.",
    "idempotency_conflict": "This idempotency key was used with another request.",
    "model_not_allowed": "This service does not offer the model that was asked for; see `GET /models`.",
    "template_unknown": "There is no prompt template of this name.",
    "rate_limited": "Too many requests, or too many runs, in too short a time; `Retry-After` says when to ask again.",
    "too_many_runs": "So many of this client's messages are being answered at a time.",
    "too_many_streams": "This client has so many streams open, or reads so many answers again, at a time.",
    "budget_spent": "The client has used up its tokens of the day, in UTC.",
    "internal": "A mistake of the service; the log has it under the `request_id`.",
    "chatkit_missing": "The service has not installed `openai-chatkit`, an optional package; the operator can.",
    "answer_too_long": "The answer grew over the service's limit and was cut.",
    "too_many_steps": "The model went on calling tools, and was stopped.",
    "too_many_tokens": "The answer needs more tokens than the service allows, and was stopped.",
    "upstream_auth": "The model's server does not accept the service's credentials.",
    "upstream_error": "The model reported an error.",
    "upstream_incomplete": "The model's answer broke off before it was complete.",
    "upstream_invalid": "The model's server sent what is not an answer.",
    "upstream_rejected": "The model's server refused the request.",
    "upstream_unavailable": "The model is not available at the moment.",
    "upstream_unreachable": "The model's server cannot be reached.",
    "draining": "This process is shutting down; ask again in a moment, after `Retry-After` seconds.",
    "service_full": "The service does as much as it can at a time; ask again in a moment.",
    "issuer_unavailable": "Tokens cannot be checked: their issuer's keys cannot be had right now.",
    "store_corrupt": "The conversation store is damaged and needs its operator.",
    "store_unavailable": "The conversation store is not available right now.",
    "upstream_rate_limited": "The model is busy.",
    "upstream_timeout": "The model did not answer in time.",
    "run_timeout": "The answer took too long and was stopped.",
}


def table() -> str:
    """All codes, as Markdown."""
    rows = [f"| `{code}` | {STATUS[code]} | {meaning} |" for code, meaning in MEANING.items()]
    return "\n".join(["| code | status | meaning |", "|---|---|---|", *rows])


def responses_of(raises: Iterable[str], *, openai: bool) -> dict[str, Json]:
    """The error responses by status, each with the codes that it can have."""
    codes: dict[int, list[str]] = {}
    for code in sorted({*raises, "internal"}, key=list(STATUS).index):
        codes.setdefault(openai_status(STATUS[code]) if openai else STATUS[code], []).append(code)
    response = _openai_response if openai else _response
    return {str(status): response(status, codes[status]) for status in sorted(codes)}


def examples() -> dict[str, Json]:
    """An error of each code, by code."""
    return {code: {"value": _example(code)} for code in MEANING}


def _response(status: int, codes: list[str]) -> Json:
    members = {"status": {"const": status}, "code": {"enum": codes}}
    content = {
        "schema": {"allOf": [ref("schemas", ProblemView.__name__), {"properties": members}]},
        "examples": {code: ref("examples", code) for code in codes},
    }
    return _said(status, codes, {"application/problem+json": content})


def _openai_response(status: int, codes: list[str]) -> Json:
    members = {"error": {"properties": {"code": {"enum": [openai_code(code) for code in codes]}}}}
    content = {"schema": {"allOf": [ref("schemas", ErrorView.__name__), {"properties": members}]}}
    return _said(status, codes, {"application/json": content})


def _said(status: int, codes: list[str], content: Json) -> Json:
    return {
        "description": "\n".join([f"{TITLES[status]}\n", *[f"- `{code}`: {MEANING[code]}" for code in codes]]),
        "headers": {name: ref("headers", name) for name in ("X-Request-Id", *_beside(status))},
        "content": content,
    }


def _beside(status: int) -> list[str]:
    """The headers that say what to do about it."""
    if status == HTTPStatus.UNAUTHORIZED:
        return ["WWW-Authenticate"]
    return ["Retry-After"] if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.BAD_GATEWAY else []


def _example(code: str) -> ProblemView:
    return {
        "type": "about:blank",
        "title": TITLES[STATUS[code]],
        "status": STATUS[code],
        "detail": MEANING[code].replace("`", ""),
        "code": code,
        "request_id": "req_01kaj4z8c0d3e5f7g9h1j2k4m6",
    }
