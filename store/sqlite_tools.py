"""Tools: what they wrote down, the steps in which they were called, and who waits for a yes.

Every function works inside a transaction that it is given.
"""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import astuple

from chat.errors import ChatError
from chat.events import ToolCalled
from chat.records import Record
from chat.sessions import Page
from chat.steps import Call, Step
from store.sqlite_rows import now_ms, page_below, rows


def save_record(db: sqlite3.Connection, record: Record) -> None:
    rows(
        db,
        """INSERT INTO records (id, kind, session_id, user_id, run_id, data, created_at)
           VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (
            record.id,
            record.kind,
            record.session_id,
            record.user_id,
            record.run_id,
            json.dumps(dict(record.data), ensure_ascii=False, allow_nan=False),
            now_ms(),
        ),
    )


def list_records(
    db: sqlite3.Connection,
    kind: str | None,
    session_id: str | None,
    user_id: str | None,
    limit: int,
    after: str | None,
) -> Page[Record]:
    given = {"kind": kind, "session_id": session_id, "user_id": user_id}
    asked = {name: value for name, value in given.items() if value is not None}
    found = rows(
        db,
        f"""SELECT pos, id, kind, session_id, user_id, run_id, data, created_at FROM records
            WHERE {" AND ".join(["pos < :after", *(f"{name} = :{name}" for name in asked)])}
            ORDER BY pos DESC LIMIT :limit""",  # noqa: S608  # the names are those above
        asked | {"after": page_below(after), "limit": limit + 1},
    )
    records = [
        Record(record_id, kind, session_id, user_id, run_id, json.loads(data), created_at)
        for _, record_id, kind, session_id, user_id, run_id, data, created_at in found[:limit]
    ]
    return Page(records, str(found[limit - 1][0]) if len(found) > limit else None)


def wait_for_approval(db: sqlite3.Connection, run_id: str, call: ToolCalled) -> None:
    rows(
        db,
        "INSERT INTO approvals (run_id, call_id, name, arguments) VALUES (?, ?, ?, ?)",
        (run_id, call.call_id, call.name, call.arguments),
    )


def decision(db: sqlite3.Connection, run_id: str, call_id: str) -> bool | None:
    found = rows(db, "SELECT approved FROM approvals WHERE run_id = ? AND call_id = ?", (run_id, call_id))
    return bool(found[0][0]) if found and found[0][0] is not None else None


def decisions(db: sqlite3.Connection, owner: int) -> list[tuple[str, str, bool]]:
    found = rows(
        db,
        """SELECT run_id, call_id, approved FROM runs JOIN approvals ON approvals.run_id = runs.id
           WHERE runs.status = 'running' AND runs.owner = ? AND approved IS NOT NULL""",
        (owner,),
    )
    return [(run_id, call_id, bool(approved)) for run_id, call_id, approved in found]


def decide(db: sqlite3.Connection, run_id: str, call_id: str, *, approved: bool) -> None:
    found = rows(
        db,
        """SELECT approved, runs.status = 'running' FROM approvals JOIN runs ON runs.id = approvals.run_id
           WHERE run_id = ? AND call_id = ?""",
        (run_id, call_id),
    )
    if not found:
        raise ChatError("not_found", "No such call waits for an approval in this run.")
    decided, running = found[0]
    if decided is not None and bool(decided) is approved:
        return
    if decided is not None or not running:
        raise ChatError("already_decided", "It was decided otherwise before, or the run has ended.")
    rows(db, "UPDATE approvals SET approved = ? WHERE run_id = ? AND call_id = ?", (approved, run_id, call_id))


def dump_steps(steps: Sequence[Step]) -> str | None:
    """As the messages table keeps them: lists, for most of it is names otherwise."""
    if not steps:
        return None
    return json.dumps([[step.text, [astuple(call) for call in step.calls]] for step in steps], ensure_ascii=False)


def load_steps(text: str | None) -> Sequence[Step]:
    if text is None:
        return ()
    return tuple(Step(said, tuple(Call(*call) for call in calls)) for said, calls in json.loads(text))
