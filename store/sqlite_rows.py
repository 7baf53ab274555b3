"""What every SQL file here needs."""

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

from chat.errors import ChatError


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def rows(db: sqlite3.Connection, sql: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> list[Any]:
    """All rows of a statement."""
    return db.execute(sql, values).fetchall()


def page_below(after: str | None) -> int:
    """The position that a page of a list lies below, latest first: that of its cursor, or one above all.

    Raises:
        ChatError: ``invalid_request`` for a cursor that no list has made.
    """
    if after is None:
        return 2**62
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise ChatError("invalid_request", "after is not a cursor of this list.")
    return int(after)
