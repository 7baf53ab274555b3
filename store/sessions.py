"""Sessions and their messages: SQL beside the row mapping. Every function works inside a given transaction."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from chat.errors import ChatError
from chat.room import MESSAGE_OVERHEAD, TURN_SHARE, turns_within
from chat.sessions import Message, NewSession, Page, Session, Turn
from store.rows import Rows, now_ms, page_below
from store.tools import load_sources, load_steps

# The answer that is being written is the leaf already, but no message yet: show what it answers.
_SESSION = """
    SELECT id, user_id, title, metadata,
           coalesce((SELECT message_id FROM runs
                     WHERE session_id = sessions.id AND answer_id = sessions.leaf_id
                       AND (status = 'queued' OR status = 'running')), leaf_id),
           message_count, created_at, updated_at, touched, collection, template, variables
    FROM sessions
"""

CONVERSATION = """
    NOT EXISTS (SELECT 1 FROM runs WHERE session_id = sessions.id AND kind <> 'answer' AND kind = 'import')
"""
"""Whether a session is one, and not only there for an import to belong to."""


def _to_session(row: Sequence[Any]) -> Session:
    session_id, user_id, title, metadata, *rest, collection, template, variables = row
    session = replace(Session(session_id, user_id, title, json.loads(metadata), *rest), collection=collection)
    return session if template is None else replace(session, template=template, variables=json.loads(variables))


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


async def insert_session(db: Rows, new: NewSession) -> None:
    now = now_ms()
    await db.rows(
        f"""INSERT INTO sessions (id, user_id, title, metadata, template, variables, collection, created_at, updated_at,
                                 touched)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, {db.touch})""",  # noqa: S608  # nosec B608  # no value
        (
            new.id,
            new.user_id,
            new.title,
            _to_json(dict(new.metadata)),
            new.template,
            _to_json(dict(new.variables)) if new.template else None,
            new.collection,
            now,
            now,
        ),
    )


async def create_session(db: Rows, new: NewSession) -> Session:
    if await db.rows("SELECT 1 FROM sessions WHERE id = ?", (new.id,)):
        raise ChatError("session_exists", "There is a session with this id already.")
    await insert_session(db, new)
    session = await find_session(db, new.id)
    assert session is not None
    return session


async def find_session(db: Rows, session_id: str) -> Session | None:
    found = await db.rows(f"{_SESSION} WHERE id = ? AND {CONVERSATION}", (session_id,))
    return _to_session(found[0]) if found else None


async def list_sessions(db: Rows, user_id: str | None, limit: int, after: str | None, *, beside: bool) -> Page[Session]:
    whose = "" if user_id is None else "AND user_id = :user_id"
    whose += "" if beside else f" AND {CONVERSATION}"
    found = await db.rows(
        f"{_SESSION} WHERE touched < :after {whose} ORDER BY touched DESC LIMIT :limit",
        {"after": page_below(after), "user_id": user_id, "limit": limit + 1},
    )
    sessions = [_to_session(row) for row in found[:limit]]
    return Page(sessions, str(sessions[-1].touched) if len(found) > limit else None)


async def update_session(db: Rows, session_id: str, changes: Mapping[str, object]) -> Session | None:
    await db.rows(
        """UPDATE sessions SET updated_at = :now,
                  title = CASE WHEN :titled THEN :title ELSE title END,
                  metadata = CASE WHEN :labelled THEN :metadata ELSE metadata END,
                  template = CASE WHEN :prompted THEN :template ELSE template END,
                  variables = CASE WHEN :prompted THEN :variables ELSE variables END,
                  collection = CASE WHEN :collected THEN :collection ELSE collection END
           WHERE id = :id""",
        {
            "id": session_id,
            "now": now_ms(),
            "titled": "title" in changes,
            "title": changes.get("title"),
            "labelled": "metadata" in changes,
            "metadata": _to_json(changes.get("metadata")),
            "collected": "collection" in changes,
            "collection": changes.get("collection"),
            "prompted": "template" in changes,
            "template": changes.get("template"),
            "variables": _to_json(changes["variables"]) if changes.get("template") else None,
        },
    )
    return await find_session(db, session_id)


async def idle_sessions(db: Rows, seconds: float, limit: int) -> list[str]:
    """Sessions in which nothing has happened for so long, the oldest first. A run that waits for a yes is nothing."""
    found = await db.rows(
        """SELECT id FROM sessions WHERE updated_at <= ? AND NOT EXISTS (
               SELECT 1 FROM runs WHERE session_id = sessions.id AND (status = 'queued' OR status = 'running')
                   AND NOT EXISTS (SELECT 1 FROM approvals WHERE run_id = runs.id AND approved IS NULL))
           ORDER BY updated_at LIMIT ?""",
        (_ago(seconds), limit),
    )
    return [session_id for (session_id,) in found]


async def journal_of(db: Rows, session_id: str) -> tuple[list[int], int]:
    """Where in the journal the session's runs have something, and up to which position that is all.

    Of the whole journal, because runs that were put aside have events before their journal_from. Who deletes looks
    before that, and holds nobody up meanwhile.
    """
    found = await db.rows(
        "SELECT pos FROM journal WHERE run_id IN (SELECT id FROM runs WHERE session_id = ?)", (session_id,)
    )
    [(last,)] = await db.rows("SELECT coalesce(max(pos), 0) FROM journal")
    return [pos for (pos,) in found], last


async def delete_session(db: Rows, session_id: str, known: tuple[Sequence[int], int], idle: float | None) -> bool:
    """The foreign keys take the messages, runs, logs and claims along. ``known`` is what :func:`journal_of` said."""
    await db.lock(session_id)
    if idle is not None and not await db.rows(
        "SELECT 1 FROM sessions WHERE id = ? AND updated_at <= ?", (session_id, _ago(idle))
    ):
        return False
    positions, up_to = known
    [(last,)] = await db.rows("SELECT coalesce(max(pos), 0) FROM journal")
    await db.each("DELETE FROM journal WHERE pos = ? AND pos < ?", [(pos, last) for pos in positions])
    said = {"id": session_id, "up_to": up_to, "last": last}
    await db.rows(
        """DELETE FROM journal WHERE pos > :up_to AND pos < :last
               AND run_id IN (SELECT id FROM runs WHERE session_id = :id)""",
        said,
    )
    # The last row is only emptied: positions that are given out twice would hide events.
    await db.rows(
        """UPDATE journal SET name = 'text.delta', body = ''
           WHERE pos = :last AND run_id IN (SELECT id FROM runs WHERE session_id = :id)""",
        {"id": session_id, "last": last},
    )
    return bool(await db.rows("DELETE FROM sessions WHERE id = ? RETURNING id", (session_id,)))


def _ago(seconds: float) -> int:
    return now_ms() - int(seconds * 1000)


async def list_messages(db: Rows, session_id: str, limit: int, before: str | None) -> Page[Message]:
    bound = 2**62
    if before is not None:
        found = await db.rows("SELECT pos FROM messages WHERE id = ? AND session_id = ?", (before, session_id))
        if not found:
            raise ChatError("invalid_request", "before is not a message of this session.")
        bound = found[0][0]
    found = await db.rows(
        """SELECT id, session_id, parent_id, role, content, status, run_id, created_at, steps, sources FROM messages
           WHERE session_id = ? AND pos < ? ORDER BY pos DESC LIMIT ?""",
        (session_id, bound, limit + 1),
    )
    messages = [_to_message(row) for row in reversed(found[:limit])]
    return Page(messages, messages[0].id if len(found) > limit else None)


async def find_message(db: Rows, message_id: str) -> Message | None:
    found = await db.rows(
        """SELECT id, session_id, parent_id, role, content, status, run_id, created_at, steps, sources FROM messages
           WHERE id = ?""",
        (message_id,),
    )
    return _to_message(found[0]) if found else None


def _to_message(row: Sequence[Any]) -> Message:
    *members, steps, sources = row
    return replace(Message(*members), steps=load_steps(steps), sources=load_sources(sources))


async def history(db: Rows, message_id: str, budget: int, up_to: str | None = None) -> Sequence[Turn]:
    """Walk from the message up to the root, or to behind ``up_to``, and no further than the budget reaches."""
    steps = db.size("above.steps")
    turn = f"{db.size('above.content')} + CASE WHEN {steps} > :share THEN :share ELSE coalesce({steps}, 0) END"
    found = await db.rows(
        f"""WITH RECURSIVE branch (depth, parent_id, role, content, steps, used) AS (
               SELECT 0, parent_id, role, content, steps, {db.size("content")} + :overhead
               FROM messages WHERE id = :leaf
               UNION ALL
               SELECT depth + 1, above.parent_id, above.role, above.content, above.steps,
                      used + {turn} + :overhead
               FROM branch JOIN messages above ON above.id = branch.parent_id
               WHERE above.id <> coalesce(:up_to, '') AND used + {turn} + :overhead <= :budget)
           SELECT role, content, steps FROM branch WHERE content <> '' OR steps IS NOT NULL ORDER BY depth DESC""",  # noqa: S608  # nosec B608  # no value
        {
            "leaf": message_id,
            "budget": budget,
            "overhead": MESSAGE_OVERHEAD,
            "share": budget // TURN_SHARE,
            "up_to": up_to,
        },
    )
    return turns_within([Turn(role, content, load_steps(steps)) for role, content, steps in found], budget)


async def find_turn(db: Rows, message_id: str) -> Turn | None:
    found = await db.rows("SELECT role, content, steps, sources FROM messages WHERE id = ?", (message_id,))
    if not found:
        return None
    [(role, content, steps, sources)] = found
    return Turn(role, content, load_steps(steps), sources=load_sources(sources))
