"""The one table from codes to statuses, and how an error looks to a client: RFC 9457, problem+json."""

import logging
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from chat.errors import ChatError
from handlers.context import request_id
from handlers.formats.completions import error_object
from handlers.views import ProblemView

STATUS: Mapping[str, int] = {
    "invalid_json": 400,
    "invalid_cursor": 400,
    "invalid_request": 422,
    "not_found": 404,
    "method_not_allowed": 405,
    "cursor_ahead": 409,
    "cursor_mismatch": 409,
    "run_in_progress": 409,
    "already_decided": 409,
    "run_stopped": 409,
    "session_exists": 409,
    "cursor_expired": 410,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "idempotency_conflict": 422,
    "model_not_allowed": 422,
    "template_unknown": 422,
    "internal": 500,
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
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

_CODES: Mapping[int, str] = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}

logger = logging.getLogger(__name__)


def problem(error: ChatError, path: str) -> Response:
    """The response that tells a client what went wrong, in the way of the clients of this path."""
    status = STATUS.get(error.code, UNKNOWN)
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
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
    kind = "invalid_request_error" if status < 500 else "server_error"
    if error.details.get("retryable") is False:
        headers |= {"X-Should-Retry": "false"}  # those clients ask again by themselves
    shape = error_object(error.code, error.message, kind)
    return JSONResponse({"error": {**error.details, **shape}}, status, headers)


def openai_status(status: int) -> int:
    """What OpenAI's clients know this status as: a request that is wrong in any way is 400."""
    return 400 if status == 422 else status


async def on_chat_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ChatError)
    if STATUS.get(error.code, UNKNOWN) >= 500:
        logger.warning("answered %s", error.code)
    return problem(error, request.url.path)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: unknown paths, wrong methods, bodies over the limit."""
    assert isinstance(error, HTTPException)
    message = {404: "There is nothing at this address.", 413: "The request's body is over this service's limit."}
    code = _CODES.get(error.status_code, "invalid_request")
    response = problem(ChatError(code, message.get(error.status_code, error.detail)), request.url.path)
    response.headers.update(error.headers or {})
    return response


def internal_error(path: str) -> Response:
    """What a client sees of an exception that nobody foresaw; the log has it whole."""
    return problem(ChatError("internal", "Internal error"), path)
