"""One transaction of SQLite, as the SQL files are given it."""

import sqlite3
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from store.rows import Entry, Values

T = TypeVar("T")

INSERT_ROWS = (256, 64, 16, 4, 1)
"""Entries that one statement can add to the journal; the largest first, the last is 1."""

_INSERT = {
    size: f"INSERT INTO journal (run_id, seq, name, body) VALUES {', '.join(['(?, ?, ?, ?)'] * size)}"  # noqa: S608  # nosec B608  # placeholders
    for size in INSERT_ROWS
}


class SqliteRows:
    """:class:`store.rows.Rows`. There is one writer: nothing has to be locked."""

    __slots__ = ("_db",)

    touch = "(SELECT coalesce(max(touched), 0) + 1 FROM sessions)"
    shared = ""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    async def rows(self, sql: str, values: Values = ()) -> Sequence[Any]:
        return self._db.execute(sql, values).fetchall()

    async def each(self, sql: str, values: Sequence[Sequence[Any]]) -> None:
        self._db.executemany(sql, values)

    async def many(self, sql: str, values: Sequence[Sequence[Any]]) -> Sequence[Any]:
        return [row for given in values for row in self._db.execute(sql, given)]

    async def enter(self, entries: Sequence[Entry]) -> None:
        """Add the entries, many in a statement.

        Each statement gives the interpreter's lock away and has to get it back from a loop that is busy: with one for
        each entry, a commit of fifty took tens of milliseconds. A few sizes, so that each is prepared once.
        """
        start = 0
        for size, statement in _INSERT.items():
            while len(entries) - start >= size:
                self._db.execute(statement, [value for entry in entries[start : start + size] for value in entry])
                start += size

    async def lock(self, *names: str) -> None:
        pass

    async def ring(self) -> None:
        pass  # they see that the file has changed

    def size(self, text: str) -> str:
        return f"length(CAST({text} AS BLOB))"

    def calls(self, conditions: str) -> str:
        return f"(SELECT json_group_array(json_array(call_id, name, arguments)) FROM approvals WHERE {conditions})"  # noqa: S608  # nosec B608  # no value

    def listed(self, name: str) -> str:
        return f"SELECT value FROM json_each({name})"  # noqa: S608  # nosec B608  # no value

    def numbers(self, name: str) -> str:
        return self.listed(name)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What comes of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a transaction of SQLite has waited for something")
