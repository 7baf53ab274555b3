"""What a session keeps besides its messages, and the runs that make it.

Every function works inside a transaction that it is given.
"""

import sqlite3
from collections.abc import Collection

from chat.commands import NewSideRun
from chat.commits import Recollection, Settlement, Tries
from chat.events import RunCompleted
from chat.memory import MOST_DOUBLINGS, title_of
from chat.room import MESSAGE_OVERHEAD
from chat.runs import Run, RunKind, RunStatus
from chat.sessions import Branch, Piece, Summary
from store.sqlite_rows import now_ms, rows
from store.sqlite_runs import find_run, insert_run
from store.sqlite_sessions import history

WHOLE = 2**62
"""Bytes; more than any branch has."""

_ANY_SUMMARY = """
    SELECT 1 FROM runs
    WHERE session_id = :session_id AND kind <> 'answer' AND kind = 'summary' AND text IS NOT NULL LIMIT 1
"""

# Up to the first message that a summary reaches up to: few messages lie behind it.
_SUMMARY = """
    WITH RECURSIVE branch (parent_id, found) AS (
        SELECT parent_id,
               (SELECT max(pos) FROM runs WHERE message_id = messages.id AND kind = 'summary' AND text IS NOT NULL)
        FROM messages WHERE id = :leaf
        UNION ALL
        SELECT above.parent_id,
               (SELECT max(pos) FROM runs WHERE message_id = above.id AND kind = 'summary' AND text IS NOT NULL)
        FROM branch JOIN messages above ON above.id = branch.parent_id
        WHERE found IS NULL)
    SELECT text, message_id, id, model, finished_at FROM branch JOIN runs ON runs.pos = found
"""

_LATEST = """
    SELECT pos, id, status, text IS NOT NULL FROM runs
    WHERE session_id = :session_id AND kind <> 'answer' AND kind = :kind ORDER BY pos DESC LIMIT :limit
"""

# `used` is the size of the message and of all that lie behind it.
_PIECES = """
    WITH RECURSIVE branch (depth, id, parent_id, role, used) AS (
        SELECT 0, id, parent_id, role, length(CAST(content || coalesce(steps, '') AS BLOB)) + :overhead
        FROM messages WHERE id = :leaf
        UNION ALL
        SELECT depth + 1, above.id, above.parent_id, above.role,
               used + length(CAST(above.content || coalesce(above.steps, '') AS BLOB)) + :overhead
        FROM branch JOIN messages above ON above.id = branch.parent_id
        WHERE above.id IS NOT :up_to AND used <= :reach)
    SELECT id, role, used - lag(used, 1, 0) OVER (ORDER BY depth) FROM branch ORDER BY depth DESC
"""


def summary(db: sqlite3.Connection, message_id: str) -> Summary | None:
    found = rows(db, "SELECT session_id FROM messages WHERE id = ?", (message_id,))
    if not found:
        return None
    known = {"session_id": found[0][0], "leaf": message_id}
    if not rows(db, _ANY_SUMMARY, known):
        return None  # and the branch was not walked to its root for that
    latest = rows(db, _SUMMARY, known)
    return Summary(*latest[0]) if latest else None


def branch(db: sqlite3.Connection, message_id: str, budget: int) -> Branch:
    latest = summary(db, message_id)
    return Branch(latest, history(db, message_id, budget, latest.up_to if latest else None))


def recollection(db: sqlite3.Connection, answer: Run, kinds: Collection[RunKind], reach: int) -> Recollection | None:
    found = rows(
        db,
        """SELECT title, length(CAST(coalesce(instructions, '') AS BLOB))
           FROM sessions JOIN runs ON runs.id = ? WHERE sessions.id = ?""",
        (answer.id, answer.session_id),
    )
    if not found:
        return None
    [(title, instructions)] = found
    tries = {kind: _tries(db, answer.session_id, kind) for kind in kinds}
    pieces: list[Piece] = []
    if RunKind.SUMMARY in kinds:
        latest = summary(db, answer.answer_id)
        behind = {"leaf": answer.answer_id, "up_to": None, "reach": reach}
        if latest is not None:
            behind |= {"up_to": latest.up_to, "reach": WHOLE}
        pieces = [Piece(*piece) for piece in rows(db, _PIECES, behind | {"overhead": MESSAGE_OVERHEAD})]
    return Recollection(title, instructions, tries, pieces)


def _tries(db: sqlite3.Connection, session_id: str, kind: RunKind) -> Tries:
    latest = rows(db, _LATEST, {"session_id": session_id, "kind": kind, "limit": MOST_DOUBLINGS})
    if not latest:
        return Tries()
    pos, last, status, _ = latest[0]
    kept = [kept for _, _, _, kept in latest]
    [(answers,)] = rows(
        db, "SELECT count(*) FROM runs WHERE session_id = ? AND pos > ? AND kind = 'answer'", (session_id, pos)
    )
    failures = kept.index(1) if 1 in kept else len(kept)
    return Tries(last, RunStatus(status).active, 1 in kept, failures, answers)


def start_side_run(db: sqlite3.Connection, new: NewSideRun, owner: int) -> Run | None:
    there = rows(db, "SELECT 1 FROM sessions WHERE id = ?", (new.session_id,))
    latest = rows(db, _LATEST, {"session_id": new.session_id, "kind": new.kind, "limit": 1})
    if not there or (latest[0][1] if latest else None) != new.behind:
        return None
    insert_run(
        db,
        {
            "id": new.id,
            "kind": new.kind,
            "session_id": new.session_id,
            "message_id": new.message_id,
            "answer_id": "",
            "status": RunStatus.RUNNING,
            "model": new.model,
            "owner": owner,
            "epoch": 1,
            "now": now_ms(),
        },
    )
    return find_run(db, new.id)


def keep(db: sqlite3.Connection, run: Run, end: Settlement, now: int) -> None:
    """Keep what a run beside the conversation wrote, if it is complete. A title of the client's own stays."""
    if not isinstance(end.terminal, RunCompleted) or not end.answer.strip():
        return
    rows(db, "UPDATE runs SET text = ? WHERE id = ?", (end.answer, run.id))
    if run.kind is RunKind.TITLE:
        rows(
            db,
            "UPDATE sessions SET title = ?, updated_at = ? WHERE id = ? AND title IS NULL",
            (title_of(end.answer) or None, now, run.session_id),
        )
