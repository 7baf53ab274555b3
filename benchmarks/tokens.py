"""Tokens that carry the moment they were made, so that whoever reads them knows how long they took."""

import re
import time

MARK = re.compile(rb"@([0-9a-z]{8})")
"""A token, wherever it stands in whatever a server wraps it in."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def now_us() -> int:
    """Microseconds of the machine's monotonic clock: the same for all of its processes."""
    return time.monotonic_ns() // 1000


def token() -> str:
    """``@`` and eight digits of base 36, and a space behind them: microseconds, wrapping after 32 days."""
    value, digits = now_us(), []
    for _ in range(8):
        value, digit = divmod(value, 36)
        digits.append(_DIGITS[digit])
    return f"@{''.join(reversed(digits))} "


def age_us(mark: bytes, now: int) -> int:
    """Microseconds since the token was made."""
    return now - int(mark, 36)
