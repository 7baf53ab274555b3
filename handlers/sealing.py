"""What this service signs: who an anonymous user is, and which run somebody may follow."""

from collections.abc import Mapping
from typing import cast
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.types import Scope

from chat.engine import Engine
from chat.ports import Store
from chat.runs import Run
from chat.seals import Seal
from handlers.identity import OPERATOR, Identity, identity_of, unauthorized
from handlers.views import events_url

ANONYMOUS = "anon_"
"""What the token of an anonymous user begins with."""

ANONYMOUS_SECONDS = 30 * 24 * 3600.0
"""How long it is good for: who comes back within that time gets a new one for the same user."""


class Seals:
    """What signs for each purpose. The secrets are the database's, so that all processes know what one has signed."""

    def __init__(self, ticket_seconds: float) -> None:
        self._ticket_seconds = ticket_seconds
        self._made: dict[str, Seal] = {}

    async def token_of(self, scope: Scope, user: str) -> tuple[str, int]:
        """The anonymous user's token, and when it ends, in seconds since 1970."""
        text, until = (await self._of(scope, "anonymous")).sealed({"user": user}, ANONYMOUS_SECONDS)
        return ANONYMOUS + text, until

    async def user_of(self, scope: Scope, token: str) -> str:
        """Raises ChatError ``unauthorized``."""
        told = (await self._of(scope, "anonymous")).opened(token.removeprefix(ANONYMOUS))
        if told is None:
            raise unauthorized("This token is not one of this service, or its time is over: get a new one.")
        return told["user"]

    async def ticket_for(self, scope: Scope, run: Run) -> tuple[str, int]:
        """A ticket to follow the run, and when it ends, in seconds since 1970."""
        ticket = {"run": run.id, "user": run.user_id}
        return (await self._of(scope, "tickets")).sealed(ticket, self._ticket_seconds)

    async def holder_of(self, scope: Scope, ticket: str) -> Identity:
        """Who may follow this run, and do nothing else.

        Raises:
            ChatError: ``unauthorized``.
        """
        told: Mapping[str, str] | None = (await self._of(scope, "tickets")).opened(ticket)
        reading = scope["method"] in ("GET", "HEAD")
        if told is None or not reading or scope["path"] != events_url(told["run"]):
            raise unauthorized("This ticket is for another run, or its time is over: get a new one.")
        return Identity(told["user"])

    async def _of(self, scope: Scope, purpose: str) -> Seal:
        if purpose not in self._made:
            self._made[purpose] = Seal(await store_of(scope).secret(purpose))
        return self._made[purpose]


def ticket_in(scope: Scope) -> str | None:
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("ticket", [None])[0] if b"ticket=" in query else None


def seals_of(request: Request) -> Seals:
    return cast(Seals, request.app.state.seals)


async def followed_at(request: Request, run: Run) -> str:
    """Where EventSource, which sends no header, can follow the run."""
    if identity_of(request) is OPERATOR:
        return events_url(run.id)
    ticket, _ = await seals_of(request).ticket_for(request.scope, run)
    return f"{events_url(run.id)}?ticket={ticket}"


def store_of(scope: Scope) -> Store:
    """All of it, for who has to tell who asks. What answers requests has :func:`handlers.context.engine_of`."""
    return cast(Engine, scope["app"].state.engine).store
