"""Tools: what they wrote down, the steps in which they were called, and who waits for a yes. And an answer's sources.

Every function works inside a transaction that it is given.
"""

import json
from collections.abc import Sequence
from dataclasses import astuple

from chat.errors import ChatError
from chat.events import Source, ToolCalled, payload_of
from chat.records import Record
from chat.sessions import Page
from chat.steps import Call, Step
from store.rows import Rows, now_ms, page_below


async def save_record(db: Rows, record: Record) -> None:
    await db.rows(
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


async def list_records(
    db: Rows,
    kind: str | None,
    session_id: str | None,
    user_id: str | None,
    limit: int,
    after: str | None,
) -> Page[Record]:
    given = {"kind": kind, "session_id": session_id, "user_id": user_id}
    asked = {name: value for name, value in given.items() if value is not None}
    found = await db.rows(
        f"""SELECT pos, id, kind, session_id, user_id, run_id, data, created_at FROM records
            WHERE {" AND ".join(["pos < :after", *(f"{name} = :{name}" for name in asked)])}
            ORDER BY pos DESC LIMIT :limit""",  # noqa: S608  # nosec B608  # the names are those above
        asked | {"after": page_below(after), "limit": limit + 1},
    )
    records = [
        Record(record_id, kind, session_id, user_id, run_id, json.loads(data), created_at)
        for _, record_id, kind, session_id, user_id, run_id, data, created_at in found[:limit]
    ]
    return Page(records, str(found[limit - 1][0]) if len(found) > limit else None)


async def wait_for_approval(db: Rows, run_id: str, call: ToolCalled) -> None:
    await db.rows(
        "INSERT INTO approvals (run_id, call_id, name, arguments) VALUES (?, ?, ?, ?)",
        (run_id, call.call_id, call.name, call.arguments),
    )


async def decision(db: Rows, run_id: str, call_id: str) -> bool | None:
    found = await db.rows("SELECT approved FROM approvals WHERE run_id = ? AND call_id = ?", (run_id, call_id))
    return bool(found[0][0]) if found and found[0][0] is not None else None


async def decisions(db: Rows, owner: int) -> list[tuple[str, str, bool]]:
    found = await db.rows(
        """SELECT run_id, call_id, approved FROM runs JOIN approvals ON approvals.run_id = runs.id
           WHERE runs.status = 'running' AND runs.owner = ? AND approved IS NOT NULL""",
        (owner,),
    )
    return [(run_id, call_id, bool(approved)) for run_id, call_id, approved in found]


async def decide(db: Rows, run_id: str, call_id: str, *, approved: bool) -> None:
    await db.lock(run_id)
    found = await db.rows(
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
    await db.rows(
        "UPDATE approvals SET approved = ? WHERE run_id = ? AND call_id = ?", (int(approved), run_id, call_id)
    )
    await db.ring()


def dump_steps(steps: Sequence[Step]) -> str | None:
    """As the messages table keeps them: lists, for most of it is names otherwise."""
    if not steps:
        return None
    return json.dumps([[step.text, [astuple(call) for call in step.calls]] for step in steps], ensure_ascii=False)


def load_steps(text: str | None) -> Sequence[Step]:
    if text is None:
        return ()
    return tuple(Step(said, tuple(Call(*call) for call in calls)) for said, calls in json.loads(text))


def dump_sources(sources: Sequence[Source]) -> str | None:
    """As the messages table keeps them."""
    return json.dumps([payload_of(source) for source in sources], ensure_ascii=False) if sources else None


def load_sources(text: str | None) -> Sequence[Source]:
    return () if text is None else tuple(Source(**members) for members in json.loads(text))
