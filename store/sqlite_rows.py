"""What every SQL file here needs."""

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def rows(db: sqlite3.Connection, sql: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> list[Any]:
    """All rows of a statement."""
    return db.execute(sql, values).fetchall()
