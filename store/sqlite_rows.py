"""What every SQL file here needs."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import aiosqlite


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


async def rows(db: aiosqlite.Connection, sql: str, values: Mapping[str, object] | Sequence[object] = ()) -> list[Any]:
    """All rows of a statement, in one trip to the connection's thread."""
    return list(await db.execute_fetchall(sql, values))
