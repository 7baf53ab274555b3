"""Whose pages may have a browser do something here. CORS only keeps them from reading what came of it."""

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from chat.errors import ChatError
from handlers.context import count_refusal
from handlers.errors import problem
from handlers.uploads import is_form

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""https://www.rfc-editor.org/rfc/rfc9110#name-safe-methods"""

STARTING = ("/chat",)
"""Addresses whose GET starts an answer, because EventSource knows no other method."""

ELSEWHERE = ("cross-site", "same-site")
"""What a browser says where the page is another origin's. https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header"""


def does_something(method: str, path: str) -> bool:
    """Whether such a request starts or changes anything."""
    return method not in SAFE_METHODS or (path in STARTING and method != "OPTIONS")


class OriginMiddleware:
    """Refuses what a page of an origin that is not ``allowed`` has a browser ask, if it would start or change anything.

    Such as an image whose address starts an answer: to that a browser adds the cookies of whatever stands in front, or
    may simply stand where strangers cannot reach. Programs do not say where a page is, and are let through.
    """

    def __init__(self, app: ASGIApp, allowed: Callable[[str], bool]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and does_something(scope["method"], scope["path"]):
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if _elsewhere(headers) and (origin is None or not self._allowed(origin)):
                error = ChatError("foreign_page", "The page that asks is none of those that may; see ALLOWED_ORIGINS.")
                count_refusal(scope, error.code)
                await problem(error, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _elsewhere(headers: Headers) -> bool:
    """Whether a page of another origin asks, as far as its browser says.

    Where the service is reached by plain HTTP, browsers only say which origin it is. That is enough for a form, which
    they send without a preflight; what else changes anything is JSON, which they do not.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is None and origin is not None and is_form(headers):
        return origin.partition("://")[2] != headers.get("host")
    return site in ELSEWHERE
