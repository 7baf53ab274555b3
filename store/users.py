"""What belongs to one user: whether there is anything, all of it as lines, and how it goes.

Every function works inside a transaction that it is given.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from store import transfer
from store.rows import Rows, Values
from store.transfer import KINDS, line

NOBODY = "(deleted)"
"""Whose usage it is when its user is gone. It can be nobody's id."""

FORGET_ROWS = 500
"""Records, or rows of usage, that one transaction changes, so that no commit waits long behind it."""

LINES_BYTES = 262_144
"""Lines of an export that are read at once, and one line more."""


async def is_known(db: Rows, user_id: str) -> bool:
    """Whether anything is stored that is this user's."""
    found = await db.rows(
        """SELECT 1 WHERE EXISTS (SELECT 1 FROM sessions WHERE user_id = :user_id)
               OR EXISTS (SELECT 1 FROM records WHERE user_id = :user_id)
               OR EXISTS (SELECT 1 FROM documents WHERE user_id = :user_id)
               OR EXISTS (SELECT 1 FROM usage WHERE user_id = :user_id)""",
        {"user_id": user_id},
    )
    return bool(found)


async def forget(db: Rows, user_id: str) -> bool:
    """Delete some of the user's records and a document, and take the name off some of their usage.

    False if there was nothing. What was used stays in the sums of all: it was spent. Its sessions have to be gone
    before.
    """
    values = {"user_id": user_id, "nobody": NOBODY, "limit": FORGET_ROWS}
    records = await db.rows(
        """DELETE FROM records WHERE pos IN (SELECT pos FROM records WHERE user_id = :user_id LIMIT :limit)
           RETURNING pos""",
        values,
    )
    used = await db.rows(
        """UPDATE usage SET user_id = :nobody, session_id = :nobody
           WHERE (run_id, model) IN (SELECT run_id, model FROM usage WHERE user_id = :user_id LIMIT :limit)
           RETURNING run_id""",
        values,
    )
    # One at a time: each has up to 20,000 chunks, and the index of passages loses them in the same transaction.
    documents = await db.rows(
        "DELETE FROM documents WHERE pos IN (SELECT pos FROM documents WHERE user_id = ? LIMIT 1) RETURNING pos",
        (user_id,),
    )
    return bool(records or used or documents)


class Telling:
    """A user's export, some lines at a time, each time in another transaction.

    So none has to stay open for as long as somebody takes to read all of it. What is said meanwhile is in it or not:
    no line refers to one that is missing.
    """

    def __init__(self, user_id: str, version: str) -> None:
        self._now = _Now()
        self._lines = _told(self._now, user_id, version)

    async def more(self, db: Rows) -> Sequence[bytes]:
        """The next lines; none at the end."""
        self._now.db = db
        lines: list[bytes] = []
        size = 0
        async for text in self._lines:
            lines.append(text)
            size += len(text)
            if size >= LINES_BYTES:
                break
        return lines


class _Now:
    """The transaction that is going on."""

    db: Rows

    async def rows(self, sql: str, values: Values = ()) -> Sequence[Any]:
        return await self.db.rows(sql, values)


async def _told(db: _Now, user_id: str, version: str) -> AsyncIterator[bytes]:
    count = 1
    yield line("parley", {"format": transfer.FORMAT, "version": version, "user_id": user_id})
    async for name, members in _members(db, user_id):
        count += 1
        yield line(name, members)
    yield line("end", {"lines": count + 1})


async def _members(db: _Now, user_id: str) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
    """What each line is about, a session with all that is in it before the next one."""
    # The ids at once: sessions move up while they are used.
    sessions = await db.rows("SELECT id FROM sessions WHERE user_id = ? ORDER BY touched", (user_id,))
    for (session_id,) in sessions:
        for name in ("session", "message", "run"):
            of = ("id" if name == "session" else "session_id", session_id)
            async for members in transfer.rows_of(db, KINDS[name], of=of):
                yield name, members
                if name == "run":
                    async for beside in _of_run(db, members):
                        yield beside
    for name in ("record", "usage", "document"):
        async for members in transfer.rows_of(db, KINDS[name], of=("user_id", user_id)):
            yield name, members
            for part in ("chunk", "document_claim") if name == "document" else ():
                async for row in transfer.rows_of(db, KINDS[part], of=("document_id", members["id"])):
                    yield part, row


async def _of_run(db: _Now, run: Mapping[str, Any]) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
    if not run["folded"]:
        async for page in transfer.log_of(db, run):
            yield "page", page
    for name in ("claim", "approval", "file"):
        async for members in transfer.rows_of(db, KINDS[name], of=("run_id", run["id"])):
            yield name, members
