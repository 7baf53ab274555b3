"""Keys: what a server in front shows to be let in. The service itself knows only their digests."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

PREFIX = "parley_"
"""By which whoever looks through code and logs for secrets knows a key."""

BYTES = 32


@dataclass(frozen=True, slots=True)
class Key:
    """``digest`` is SHA-256's, in hexadecimal digits. ``admin``: it opens what is the operator's alone."""

    name: str
    digest: str
    admin: bool
    created_at: int = 0


def new_key() -> str:
    """256 random bits."""
    return PREFIX + secrets.token_urlsafe(BYTES)


def digest_of(text: str) -> str:
    """What is kept of a key.

    A plain and fast hash is right: salt and slowness protect passwords, which can be guessed. Nobody guesses 256 random
    bits, and every request has to pay for the hash.
    """
    return hashlib.sha256(text.encode()).hexdigest()


def matching(keys: Iterable[Key], text: str) -> Key | None:
    """The key that this is. How long that takes tells nothing about the others."""
    digest, found = digest_of(text), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found
