"""What a session keeps besides its messages, and the runs that make it.

Every function works inside a transaction that it is given.
"""

from collections.abc import Collection, Sequence

from chat.commands import NewSideRun
from chat.commits import Recollection, Settlement, Tries
from chat.events import RunCompleted
from chat.memory import MOST_DOUBLINGS, title_of
from chat.room import MESSAGE_OVERHEAD
from chat.runs import Run, RunKind, RunStatus
from chat.sessions import Branch, Piece, Summary
from store.rows import Rows, now_ms
from store.runs import find_run, insert_run
from store.sessions import history

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
        SELECT 0, id, parent_id, role, {} + :overhead
        FROM messages WHERE id = :leaf
        UNION ALL
        SELECT depth + 1, above.id, above.parent_id, above.role,
               used + {} + :overhead
        FROM branch JOIN messages above ON above.id = branch.parent_id
        WHERE above.id <> coalesce(:up_to, '') AND used <= :reach)
    SELECT id, role, used - coalesce(lag(used) OVER (ORDER BY depth), 0) FROM branch ORDER BY depth DESC
"""


async def summary(db: Rows, message_id: str) -> Summary | None:
    found = await db.rows("SELECT session_id FROM messages WHERE id = ?", (message_id,))
    if not found:
        return None
    known = {"session_id": found[0][0], "leaf": message_id}
    if not await db.rows(_ANY_SUMMARY, known):
        return None  # and the branch was not walked to its root for that
    latest = await db.rows(_SUMMARY, known)
    return Summary(*latest[0]) if latest else None


async def branch(db: Rows, message_id: str, budget: int) -> Branch:
    latest = await summary(db, message_id)
    return Branch(latest, await history(db, message_id, budget, latest.up_to if latest else None))


async def recollection(db: Rows, answer: Run, kinds: Collection[RunKind], reach: int) -> Recollection | None:
    found = await db.rows(
        f"""SELECT title, {db.size("coalesce(instructions, '')")}
           FROM sessions JOIN runs ON runs.id = ? WHERE sessions.id = ?""",  # noqa: S608  # nosec B608  # no value
        (answer.id, answer.session_id),
    )
    if not found:
        return None
    [(title, instructions)] = found
    tries = {kind: await _tries(db, answer.session_id, kind) for kind in kinds}
    pieces: list[Piece] = []
    if RunKind.SUMMARY in kinds:
        latest = await summary(db, answer.answer_id)
        behind = {"leaf": answer.answer_id, "up_to": None, "reach": reach}
        if latest is not None:
            behind |= {"up_to": latest.up_to, "reach": WHOLE}
        sizes = [db.size(f"{table}.content || coalesce({table}.steps, '')") for table in ("messages", "above")]
        found = await db.rows(_PIECES.format(*sizes), behind | {"overhead": MESSAGE_OVERHEAD})
        pieces = [Piece(*piece) for piece in found]
    return Recollection(title, instructions, tries, pieces)


async def _tries(db: Rows, session_id: str, kind: RunKind) -> Tries:
    latest = await db.rows(_LATEST, {"session_id": session_id, "kind": kind, "limit": MOST_DOUBLINGS})
    if not latest:
        return Tries()
    pos, last, status, _ = latest[0]
    kept = [kept for _, _, _, kept in latest]
    [(answers,)] = await db.rows(
        "SELECT count(*) FROM runs WHERE session_id = ? AND pos > ? AND kind = 'answer'", (session_id, pos)
    )
    failures = kept.index(1) if 1 in kept else len(kept)
    return Tries(last, RunStatus(status).active, 1 in kept, failures, answers)


async def start_side_run(db: Rows, new: NewSideRun, owner: int) -> Run | None:
    await db.lock(new.session_id)
    there = await db.rows("SELECT 1 FROM sessions WHERE id = ?", (new.session_id,))
    latest = await db.rows(_LATEST, {"session_id": new.session_id, "kind": new.kind, "limit": 1})
    if not there or (latest[0][1] if latest else None) != new.behind:
        return None
    await insert_run(
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
    return await find_run(db, new.id)


async def keep(db: Rows, settled: Sequence[tuple[Run, Settlement]], now: int) -> None:
    """Keep what runs beside the conversation wrote, of those that are complete. A title of the client's own stays."""
    whole = [(run, end) for run, end in settled if isinstance(end.terminal, RunCompleted) and end.answer.strip()]
    await db.each("UPDATE runs SET text = ? WHERE id = ?", [(end.answer, run.id) for run, end in whole])
    await db.each(
        "UPDATE sessions SET title = ?, updated_at = ? WHERE id = ? AND title IS NULL",
        [(title_of(end.answer) or None, now, run.session_id) for run, end in whole if run.kind is RunKind.TITLE],
    )
