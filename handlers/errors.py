"""The one table from codes to statuses, and how an error looks to a client: RFC 9457, problem+json."""

import logging
import re
from collections.abc import Mapping
from math import ceil

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from chat.errors import ChatError
from handlers.context import count_refusal, request_id
from handlers.formats.completions import error_object
from handlers.retries import try_again
from handlers.views import ProblemView


class BrokenOffError(Exception):
    """What is being sent cannot be read to its end. The connection ends, so that nobody takes it for the whole."""


STATUS: Mapping[str, int] = {
    "invalid_json": 400,
    "invalid_form": 400,
    "invalid_cursor": 400,
    "invalid_request": 422,
    "unauthorized": 401,
    "forbidden": 403,
    "foreign_page": 403,
    "user_mismatch": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "cursor_ahead": 409,
    "cursor_mismatch": 409,
    "run_in_progress": 409,
    "already_decided": 409,
    "run_stopped": 409,
    "session_exists": 409,
    "too_many_documents": 409,
    "cursor_expired": 410,
    "body_too_large": 413,
    "document_too_large": 413,
    "too_many_files": 413,
    "unsupported_media_type": 415,
    "collection_unknown": 422,
    "document_empty": 422,
    "document_encrypted": 422,
    "document_unreadable": 422,
    "idempotency_conflict": 422,
    "model_not_allowed": 422,
    "template_unknown": 422,
    "rate_limited": 429,
    "too_many_runs": 429,
    "too_many_streams": 429,
    "budget_spent": 429,
    "internal": 500,
    "chatkit_missing": 501,
    "answer_too_long": 502,
    "too_many_steps": 502,
    "too_many_tokens": 502,
    "upstream_auth": 502,
    "upstream_error": 502,
    "upstream_incomplete": 502,
    "upstream_invalid": 502,
    "upstream_rejected": 502,
    "upstream_unavailable": 502,
    "upstream_unreachable": 502,
    "draining": 503,
    "service_full": 503,
    "issuer_unavailable": 503,
    "store_corrupt": 503,
    "store_unavailable": 503,
    "upstream_rate_limited": 503,
    "upstream_timeout": 504,
    "run_timeout": 504,
}

UNKNOWN = 502
"""Of the failure of a run that another version of this service has stored, with a code that this one does not know."""

TITLES: Mapping[int, str] = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

_CODES: Mapping[int, str] = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}

_KINDS: Mapping[str, str] = {
    "rate_limited": "requests",
    "too_many_runs": "requests",
    "too_many_streams": "requests",
    "budget_spent": "tokens",
}
"""What OpenAI calls the limits."""

_MOMENTARY = {"rate_limited", "too_many_runs", "too_many_streams", "service_full"}

LONGEST_MOMENT = 60.0
"""Seconds. Who has to wait for longer is told so."""

_FOLLOWED = re.compile(r"/chat|/(runs|sessions)/[^/]*/events|/doctor/stream")
"""What EventSource asks for."""

logger = logging.getLogger(__name__)


def problem(error: ChatError, path: str) -> Response:
    """The response that tells a client what went wrong, in the way of the clients of this path."""
    status = STATUS.get(error.code, UNKNOWN)
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, ceil(error.retry_after)))}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="parley"'
    if path.startswith("/v1/"):
        return _openai_error(error, status, headers)
    view: ProblemView = {
        "type": "about:blank",
        "title": TITLES[status],
        "status": status,
        "detail": error.message,
        "code": error.code,
        "request_id": request_id(),
    }
    return JSONResponse({**view, **error.details}, status, headers, media_type="application/problem+json")


def _openai_error(error: ChatError, status: int, headers: dict[str, str]) -> Response:
    status = openai_status(status)
    kind = _KINDS.get(error.code) or ("invalid_request_error" if status < 500 else "server_error")
    if error.details.get("retryable") is False:
        headers |= {"X-Should-Retry": "false"}  # those clients ask again by themselves
    shape = error_object(openai_code(error.code), error.message, kind)
    return JSONResponse({"error": {**error.details, **shape}}, status, headers)


def openai_status(status: int) -> int:
    """What OpenAI's clients know this status as: a request that is wrong in any way is 400."""
    return 400 if status == 422 else status


def refusal(error: ChatError, method: str, path: str) -> Response:
    """The same, and the way that EventSource is sent away for a moment: see :func:`try_again`."""
    follows = method in ("GET", "HEAD") and _FOLLOWED.fullmatch(path)
    if follows and error.code in _MOMENTARY and (error.retry_after or 0) <= LONGEST_MOMENT:
        return try_again(error.retry_after or 0)
    return problem(error, path)


def openai_code(code: str) -> str:
    """What OpenAI's clients know this error as."""
    return "invalid_api_key" if code == "unauthorized" else code


async def on_chat_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ChatError)
    if STATUS.get(error.code, UNKNOWN) >= 500:
        logger.warning("answered %s", error.code)
    count_refusal(request.scope, error.code)
    return refusal(error, request.method, request.url.path)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: unknown paths, wrong methods, bodies over the limit."""
    assert isinstance(error, HTTPException)
    message = {404: "There is nothing at this address.", 413: "The request's body is over this service's limit."}
    code = _CODES.get(error.status_code, "invalid_request")
    response = problem(ChatError(code, message.get(error.status_code, error.detail)), request.url.path)
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(sorted(_methods(request)))
    return response


def _methods(request: Request) -> set[str]:
    """All of the address's, each of which may be a route of its own; Starlette names those of the first.

    https://www.rfc-editor.org/rfc/rfc9110#section-10.2.1
    """
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    first = next(route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in routes if route.path == first.path for method in route.methods or ()}


def internal_error(path: str) -> Response:
    """What a client sees of an exception that nobody foresaw; the log has it whole."""
    return problem(ChatError("internal", "Internal error"), path)
