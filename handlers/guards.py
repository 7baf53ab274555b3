"""The ways to tell who asks: not at all, by a key, by a token, by a ticket."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from starlette.datastructures import Headers
from starlette.types import Scope

from chat.keys import PREFIX, Key, matching
from handlers.bodies import Body, UserId, checked
from handlers.identity import OPERATOR, Guard, Identity, unauthorized, user_mismatch
from handlers.sealing import ANONYMOUS, Seals, store_of, ticket_in

KEY_SECONDS = 2.0
"""How long keys are remembered: a key that was revoked is let in no longer."""


class Open:
    """``AUTH=none``: lets everybody in, as the operator."""

    async def identify(self, _: Scope) -> Identity:
        return OPERATOR


class Keys:
    """``AUTH=keys``: lets in who has a key. It is a server in front, which may name the user that it speaks for."""

    def __init__(self) -> None:
        self._keys: Sequence[Key] = ()
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    async def identify(self, scope: Scope) -> Identity:
        key = matching(await self._known(scope), bearer_of(scope))
        if key is None:
            raise unauthorized("This key is not one of this service, or it was revoked.")
        return as_named(scope, Identity(None, admin=key.admin, any_user=True))

    async def _known(self, scope: Scope) -> Sequence[Key]:
        async with self._reading:
            if self._read_at is None or time.monotonic() - self._read_at >= KEY_SECONDS:
                began = time.monotonic()
                self._keys = await store_of(scope).keys()
                self._read_at = began
        return self._keys


class Tokens(Protocol):
    async def user_of(self, token: str) -> str:
        """Raises ChatError ``unauthorized``."""
        ...


class Jwt:
    """``AUTH=jwt``: lets in who has a token, as the user that it is for; and keys, which the operator has made."""

    def __init__(self, tokens: Tokens, keys: Keys, seals: Seals, *, anonymous: bool) -> None:
        self._tokens = tokens
        self._keys = keys
        self._seals = seals
        self._anonymous = anonymous

    async def identify(self, scope: Scope) -> Identity:
        text = bearer_of(scope)
        if text.startswith(PREFIX):
            return await self._keys.identify(scope)
        if self._anonymous and text.startswith(ANONYMOUS):
            identity = Identity(await self._seals.user_of(scope, text))
        else:
            identity = Identity(await self._tokens.user_of(text))
        if as_named(scope, identity).user != identity.user:
            raise user_mismatch()
        return identity


class Ticketed:
    """Lets in who has a ticket to follow a run, and asks another guard about all others."""

    def __init__(self, guard: Guard, seals: Seals) -> None:
        self._guard = guard
        self._seals = seals

    async def identify(self, scope: Scope) -> Identity:
        if (ticket := ticket_in(scope)) is None or "authorization" in Headers(scope=scope):
            return await self._guard.identify(scope)
        return await self._seals.holder_of(scope, ticket)


class _Named(Body):
    user_id: UserId


def as_named(scope: Scope, identity: Identity) -> Identity:
    """The identity of who may speak for any user, and does so with the header ``X-User-Id``.

    Raises:
        ChatError: ``invalid_request``: it is no id.
    """
    named = Headers(scope=scope).get("x-user-id")
    return replace(identity, user=checked(_Named, {"user_id": named}).user_id) if named else identity


def bearer_of(scope: Scope) -> str:
    """Raises ChatError ``unauthorized`` if there is none."""
    kind, _, text = Headers(scope=scope).get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not text.strip():
        raise unauthorized("This service wants to know who asks: send Authorization: Bearer and a key or token.")
    return text.strip()
