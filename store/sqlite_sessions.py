"""Sessions and their messages: SQL beside the row mapping. Every function works inside a given transaction."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from chat.errors import ChatError
from chat.room import MESSAGE_OVERHEAD, TURN_SHARE, turns_within
from chat.sessions import Message, NewSession, Page, Session, Turn
from store.sqlite_rows import now_ms, page_below, rows
from store.sqlite_tools import load_steps

# The answer that is being written is the leaf already, but no message yet: show what it answers.
_SESSION = """
    SELECT id, user_id, title, metadata,
           coalesce((SELECT message_id FROM runs
                     WHERE session_id = sessions.id AND answer_id = sessions.leaf_id
                       AND (status = 'queued' OR status = 'running')), leaf_id),
           message_count, created_at, updated_at, touched, template, variables
    FROM sessions
"""

_TURN_BYTES = """(length(CAST(above.content AS BLOB))
                   + coalesce(min(length(CAST(above.steps AS BLOB)), :share), 0))"""


def _to_session(row: Sequence[Any]) -> Session:
    session_id, user_id, title, metadata, *rest, template, variables = row
    session = Session(session_id, user_id, title, json.loads(metadata), *rest)
    return session if template is None else replace(session, template=template, variables=json.loads(variables))


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def insert_session(db: sqlite3.Connection, new: NewSession) -> None:
    now = now_ms()
    rows(
        db,
        """INSERT INTO sessions (id, user_id, title, metadata, template, variables, created_at, updated_at, touched)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, (SELECT coalesce(max(touched), 0) + 1 FROM sessions))""",
        (
            new.id,
            new.user_id,
            new.title,
            _to_json(dict(new.metadata)),
            new.template,
            _to_json(dict(new.variables)) if new.template else None,
            now,
            now,
        ),
    )


def create_session(db: sqlite3.Connection, new: NewSession) -> Session:
    if find_session(db, new.id) is not None:
        raise ChatError("session_exists", "There is a session with this id already.")
    insert_session(db, new)
    session = find_session(db, new.id)
    assert session is not None
    return session


def find_session(db: sqlite3.Connection, session_id: str) -> Session | None:
    found = rows(db, f"{_SESSION} WHERE id = ?", (session_id,))
    return _to_session(found[0]) if found else None


def list_sessions(db: sqlite3.Connection, user_id: str | None, limit: int, after: str | None) -> Page[Session]:
    whose = "" if user_id is None else "AND user_id = :user_id"
    found = rows(
        db,
        f"{_SESSION} WHERE touched < :after {whose} ORDER BY touched DESC LIMIT :limit",
        {"after": page_below(after), "user_id": user_id, "limit": limit + 1},
    )
    sessions = [_to_session(row) for row in found[:limit]]
    return Page(sessions, str(sessions[-1].touched) if len(found) > limit else None)


def update_session(db: sqlite3.Connection, session_id: str, changes: Mapping[str, object]) -> Session | None:
    rows(
        db,
        """UPDATE sessions SET updated_at = :now,
                  title = CASE WHEN :titled THEN :title ELSE title END,
                  metadata = CASE WHEN :labelled THEN :metadata ELSE metadata END,
                  template = CASE WHEN :prompted THEN :template ELSE template END,
                  variables = CASE WHEN :prompted THEN :variables ELSE variables END
           WHERE id = :id""",
        {
            "id": session_id,
            "now": now_ms(),
            "titled": "title" in changes,
            "title": changes.get("title"),
            "labelled": "metadata" in changes,
            "metadata": _to_json(changes.get("metadata")),
            "prompted": "template" in changes,
            "template": changes.get("template"),
            "variables": _to_json(changes["variables"]) if changes.get("template") else None,
        },
    )
    return find_session(db, session_id)


def delete_session(db: sqlite3.Connection, session_id: str) -> bool:
    """The foreign keys take the messages, runs, logs and claims along."""
    # The whole journal, because runs that were put aside have events before their journal_from. Its last row is only
    # emptied: positions that are given out twice would hide events.
    rows(
        db,
        """UPDATE journal SET name = 'text.delta', body = ''
           WHERE run_id IN (SELECT id FROM runs WHERE session_id = :id)""",
        {"id": session_id},
    )
    rows(
        db,
        """DELETE FROM journal
           WHERE run_id IN (SELECT id FROM runs WHERE session_id = :id)
             AND pos < (SELECT max(pos) FROM journal)""",
        {"id": session_id},
    )
    return bool(rows(db, "DELETE FROM sessions WHERE id = ? RETURNING id", (session_id,)))


def list_messages(db: sqlite3.Connection, session_id: str, limit: int, before: str | None) -> Page[Message]:
    bound = 2**62
    if before is not None:
        found = rows(db, "SELECT pos FROM messages WHERE id = ? AND session_id = ?", (before, session_id))
        if not found:
            raise ChatError("invalid_request", "before is not a message of this session.")
        bound = found[0][0]
    found = rows(
        db,
        """SELECT id, session_id, parent_id, role, content, status, run_id, created_at, steps FROM messages
           WHERE session_id = ? AND pos < ? ORDER BY pos DESC LIMIT ?""",
        (session_id, bound, limit + 1),
    )
    messages = [_to_message(row) for row in reversed(found[:limit])]
    return Page(messages, messages[0].id if len(found) > limit else None)


def find_message(db: sqlite3.Connection, message_id: str) -> Message | None:
    found = rows(
        db,
        """SELECT id, session_id, parent_id, role, content, status, run_id, created_at, steps FROM messages
           WHERE id = ?""",
        (message_id,),
    )
    return _to_message(found[0]) if found else None


def _to_message(row: Sequence[Any]) -> Message:
    *members, steps = row
    return replace(Message(*members), steps=load_steps(steps))


def history(db: sqlite3.Connection, message_id: str, budget: int, up_to: str | None = None) -> Sequence[Turn]:
    """Walk from the message up to the root, or to behind ``up_to``, and no further than the budget reaches."""
    found = rows(
        db,
        f"""WITH RECURSIVE branch (depth, parent_id, role, content, steps, used) AS (
               SELECT 0, parent_id, role, content, steps, length(CAST(content AS BLOB)) + :overhead
               FROM messages WHERE id = :leaf
               UNION ALL
               SELECT depth + 1, above.parent_id, above.role, above.content, above.steps,
                      used + {_TURN_BYTES} + :overhead
               FROM branch JOIN messages above ON above.id = branch.parent_id
               WHERE above.id IS NOT :up_to AND used + {_TURN_BYTES} + :overhead <= :budget)
           SELECT role, content, steps FROM branch WHERE content <> '' OR steps IS NOT NULL ORDER BY depth DESC""",  # noqa: S608  # no value
        {
            "leaf": message_id,
            "budget": budget,
            "overhead": MESSAGE_OVERHEAD,
            "share": budget // TURN_SHARE,
            "up_to": up_to,
        },
    )
    return turns_within([Turn(role, content, load_steps(steps)) for role, content, steps in found], budget)


def find_turn(db: sqlite3.Connection, message_id: str) -> Turn | None:
    found = rows(db, "SELECT role, content, steps FROM messages WHERE id = ?", (message_id,))
    return Turn(found[0][0], found[0][1], load_steps(found[0][2])) if found else None
