"""Identifiers that sort by time and fit a URL, a header and an event id unescaped."""

import re
import secrets
import time
import uuid

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, as in the ULID specification
_TIME_BITS, _RANDOM_BITS = 48, 80

ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
"""Ids taken from outside. Other characters in an event id would make browsers send a preflight on resume, and where an
id is a segment of a path clients take ``..`` out."""

USER_ID = re.compile(r"[A-Za-z0-9._@:|+-]{1,128}")
"""Users' ids taken from outside: addresses, and what those who sign tokens call their users."""


def new_id(prefix: str) -> str:
    """``prefix_`` and a ULID: 48 bits of milliseconds, then 80 random bits, 26 characters."""
    number = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    shifts = range(_TIME_BITS + _RANDOM_BITS - 3, -1, -5)
    return f"{prefix}_" + "".join(_ALPHABET[number >> shift & 31] for shift in shifts)


def anonymous_user() -> str:
    """The identity of someone who gave none: ``anonymous-<uuid>``."""
    return f"anonymous-{uuid.uuid4()}"
