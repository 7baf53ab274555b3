"""Who asks: what :class:`handlers.middleware.IdentityMiddleware` puts into a request's scope."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Protocol, cast

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from chat.errors import ChatError

PLACE = "parley.identity"
"""In the scope."""


@dataclass(frozen=True, slots=True)
class Identity:
    """``user``: whose request it is; None where nobody was named. ``any_user``: it may name the user it speaks for.

    Who may speak for any user and names none sees everything: the operator, or a server in front that keeps its users
    apart by itself.
    """

    user: str | None
    admin: bool = False
    any_user: bool = False


OPERATOR = Identity(None, admin=True, any_user=True)
"""Everybody, where there is no authentication. Whom it names owns what is made, and hides nothing."""

NOBODY = Identity("")
"""Of what is public: no user has this id, so that nothing belongs to it."""


class Guard(Protocol):
    """Tells who asks."""

    async def identify(self, scope: Scope, /) -> Identity:
        """Raises ChatError ``unauthorized``, and whatever looking for keys raises."""
        ...


def identity_of(request: HTTPConnection) -> Identity:
    return cast(Identity, request.scope[PLACE])


def speak_for(request: HTTPConnection, user: str) -> None:
    """The request names the user that it is for: from now on it sees what that user sees.

    Raises:
        ChatError: ``user_mismatch``: it is another user's.
    """
    identity = identity_of(request)
    if identity.any_user and identity.user is None:
        request.scope[PLACE] = identity if identity is OPERATOR else replace(identity, user=user)
    elif identity.user != user:
        raise user_mismatch()


def user_mismatch() -> ChatError:
    return ChatError("user_mismatch", "The request names another user than the one that it comes from.")


def unauthorized(message: str) -> ChatError:
    return ChatError("unauthorized", message)


def shows_something(scope: Scope) -> bool:
    """Whether the request has brought a key, a token or a ticket, be it a good one or not."""
    query: bytes = scope["query_string"]
    return "authorization" in Headers(scope=scope) or b"ticket=" in query


class AdminRoute(Route):
    """What is the operator's alone."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__(path, _for_admins(endpoint))


def _for_admins(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    @wraps(endpoint)
    async def guarded(request: Request) -> Response:
        if not identity_of(request).admin:
            raise ChatError("forbidden", "This needs an admin key: see `python server.py keys add --admin`.")
        return await endpoint(request)

    return guarded
