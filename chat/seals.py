"""What this service has signed, and knows again: who an anonymous user is, and which run may be followed."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping

LONGEST = 1_000
"""Characters that are looked at: far more than any seal of ours has."""


class Seal:
    """Signs with HMAC-SHA256. Each purpose has a secret of its own, so that nothing serves for another.

    ``clock`` gives seconds since 1970.
    """

    def __init__(self, secret: str, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret.encode()
        self._clock = clock

    def sealed(self, members: Mapping[str, str], seconds: float) -> tuple[str, int]:
        """Text of ``[A-Za-z0-9._-]`` that says this for so many seconds; and when it ends, in seconds since 1970."""
        until = int(self._clock() + seconds)
        body = _text(json.dumps([until, dict(members)], separators=(",", ":")).encode())
        return f"{body}.{self._signature(body)}", until

    def opened(self, text: str) -> Mapping[str, str] | None:
        """What it says; None if it is not ours, or its time is over."""
        body, _, signature = text[:LONGEST].partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(body).encode()):
            return None
        until, members = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return dict(members) if self._clock() < until else None

    def _signature(self, body: str) -> str:
        return _text(hmac.digest(self._secret, body.encode(), hashlib.sha256))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
