"""JSON Web Tokens: who an identity provider, or a server that has our secret, says that somebody is.

https://www.rfc-editor.org/rfc/rfc8725 is what is kept to.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from chat.errors import ChatError
from handlers.bodies import Body, UserId, checked
from handlers.identity import unauthorized

LEEWAY = 30.0
"""Seconds that two machines' clocks may differ by."""

FETCH_SECONDS = 5.0
"""How long the provider of keys may take."""

KEYS_SECONDS = 300.0
"""How long its keys are used before it is asked again."""

UNKNOWN_SECONDS = 30.0
"""How often it is asked for a key that it did not have: tokens with invented ones must not have it asked each time."""

LONGEST = 8_000
"""Characters of a token: those that providers make have a tenth of that."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a token has to be. ``algorithms`` are pinned: what the token says of itself chooses only among them."""

    algorithms: Sequence[str]
    issuer: str | None
    audience: str | None


class _Subject(Body):
    user_id: UserId


class Secret:
    """The one key, which whoever makes tokens has too."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def key_for(self, _: str | None) -> str:
        return self._secret


class KeySet:
    """The public keys of an identity provider, which may change them at any time."""

    def __init__(self, url: str) -> None:
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_SECONDS)
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def key_for(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key of this id; None if there is none.

        Raises:
            ChatError: ``issuer_unavailable``: the provider does not answer, and has not before.
        """
        async with self._fetching:
            age = time.monotonic() - self._fetched_at
            if age >= (KEYS_SECONDS if key_id in self._keys else UNKNOWN_SECONDS):
                self._fetched_at = time.monotonic()
                await self._fetch()
        return self._keys.get(key_id)

    async def _fetch(self) -> None:
        try:
            found = jwt.PyJWKSet.from_dict(await asyncio.to_thread(self._client.fetch_data))
        except (jwt.PyJWTError, ValueError, OSError) as error:
            if not self._keys:
                self._fetched_at = float("-inf")
                message = "Tokens cannot be checked: their issuer's keys cannot be had right now."
                raise ChatError("issuer_unavailable", message, retry_after=2) from error
        else:
            self._keys = {key.key_id: key for key in found.keys}


class Tokens:
    """Checks tokens."""

    def __init__(self, keys: Secret | KeySet, terms: Terms) -> None:
        self._keys = keys
        self._terms = terms

    async def user_of(self, token: str) -> str:
        """Whose token it is: its ``sub``.

        Raises:
            ChatError: ``unauthorized``, ``issuer_unavailable``.
        """
        try:
            header = jwt.get_unverified_header(token[:LONGEST])
            if header.get("alg") not in self._terms.algorithms:  # before anybody is asked for a key
                raise jwt.InvalidAlgorithmError
            key = await self._keys.key_for(header.get("kid"))
            if key is None:
                raise jwt.InvalidKeyError
            claims = self._claims(token[:LONGEST], key)
            return checked(_Subject, {"user_id": claims["sub"]}).user_id
        except jwt.ExpiredSignatureError:
            raise unauthorized("This token's time is over: get a new one.") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise unauthorized("This is no token for this service.") from error
        except ChatError as error:
            if error.code == "invalid_request":
                raise unauthorized("The token's sub cannot be a user's id here.") from None
            raise

    def _claims(self, token: str, key: jwt.PyJWK | str) -> dict[str, Any]:
        terms = self._terms
        return jwt.decode(
            token,
            key,
            algorithms=terms.algorithms,
            issuer=terms.issuer,
            audience=terms.audience,
            leeway=LEEWAY,
            options={"require": ["sub", "exp"], "verify_aud": terms.audience is not None},
        )
