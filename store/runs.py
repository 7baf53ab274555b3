"""How runs begin and pass from owner to owner. Every function works inside a transaction that it is given."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from chat.commands import Answering, Claim, Leaf, NewRetry, NewRun, OnBusy, Place, Started, Under
from chat.errors import ChatError
from chat.events import Terminal, load
from chat.ids import new_id
from chat.runs import Run, RunKind, RunStatus
from chat.sessions import NewSession, Turn
from chat.steps import Call, answered
from chat.terms import Terms, ToolSpec
from store.rows import Rows, now_ms
from store.sessions import CONVERSATION, insert_session
from store.tools import dump_steps, load_steps

_RUN = """
    SELECT runs.id, runs.session_id, sessions.user_id, runs.message_id, runs.answer_id, runs.status, runs.model,
           runs.owner, runs.epoch, runs.last_seq, runs.created_at, runs.finished_at,
           (SELECT CASE WHEN count(cost) = count(*) THEN CAST(sum(cost) AS BIGINT) END FROM usage
            WHERE run_id = runs.id), runs.trace, runs.kind, runs.terminal, {calls}
    FROM runs JOIN sessions ON sessions.id = runs.session_id
"""

_ACTIVE = "runs.session_id = ? AND (runs.status = 'queued' OR runs.status = 'running')"


def _run(db: Rows) -> str:
    return _RUN.format(calls=db.calls("run_id = runs.id AND approved IS NULL AND runs.status = 'running'"))


def _to_run(row: Sequence[Any]) -> Run:
    *members, cost, trace, kind, terminal, calls = row
    return replace(
        Run(*members),
        status=RunStatus(members[5]),
        terminal=to_terminal(terminal),
        cost=cost,
        trace=trace,
        waiting=tuple(Call(*call) for call in json.loads(calls, strict=False)),  # PostgreSQL escapes no NUL
        kind=RunKind(kind),
    )


def to_terminal(text: str | None) -> Terminal | None:
    """The terminal event as a run's row keeps it: its name and body."""
    if text is None:
        return None
    event = load(*json.loads(text))
    assert isinstance(event, Terminal)
    return event


async def find_run(db: Rows, run_id: str) -> Run | None:
    found = await db.rows(f"{_run(db)} WHERE runs.id = ?", (run_id,))
    return _to_run(found[0]) if found else None


async def active_run(db: Rows, session_id: str, *, beside: bool = False) -> Run | None:
    """The run that answers, else the first that waits ('running' sorts behind 'queued'), else any if ``beside``."""
    which = "" if beside else "AND runs.kind = 'answer'"
    order = "runs.kind = 'answer' DESC, runs.status DESC, runs.pos"
    found = await db.rows(f"{_run(db)} WHERE {_ACTIVE} {which} ORDER BY {order} LIMIT 1", (session_id,))
    return _to_run(found[0]) if found else None


async def start_run(db: Rows, new: NewRun, owner: int) -> Started:
    await lock_key(db, new.claim)
    if new.claim is not None and (replayed := await claimed(db, new.claim)) is not None:
        return replayed
    await db.lock(new.session.id)
    leaf_id, collection = await _session_state(db, new.session, new.user_id)
    busy = await active_run(db, new.session.id)
    if busy is not None and new.attach_same and await _says(db, busy.message_id) == new.turns[-1].content:
        return Started(busy, created=False)
    _refuse_if_busy(busy, new.on_busy)
    message_id = await _place_turns(db, new.session.id, new.turns, new.place, leaf_id)
    terms = _terms_row(replace(new.terms, collection=collection))
    draft = _Draft(new.id, new.session.id, message_id, new.model, terms, new.claim, new.trace)
    return await _insert_run(db, draft, busy, new.on_busy, owner)


async def retry_run(db: Rows, new: NewRetry, owner: int) -> Started:
    await lock_key(db, new.claim)
    if new.claim is not None and (replayed := await claimed(db, new.claim)) is not None:
        return replayed
    found = await db.rows(
        "SELECT session_id, message_id, kind, instructions, terms FROM runs WHERE id = ?", (new.run_id,)
    )
    if not found:
        raise ChatError("not_found", "There is no such run.")
    session_id, message_id, kind, *terms = found[0]
    if kind != RunKind.ANSWER:
        raise ChatError("invalid_request", "This run answers no message, so there is nothing to answer once more.")
    await db.lock(session_id)
    busy = await active_run(db, session_id)
    if busy is not None and new.attach_same and busy.message_id == message_id:
        return Started(busy, created=False)
    _refuse_if_busy(busy, new.on_busy)
    draft = _Draft(new.id, session_id, message_id, new.model, terms, new.claim, new.trace)
    return await _insert_run(db, draft, busy, new.on_busy, owner)


async def lock_key(db: Rows, claim: Claim | None) -> None:
    """Before anything else: who asks the same at the same time finds the run, and not that the session is busy."""
    if claim is not None:
        await db.lock(f"key {claim.key}")


async def claimed(db: Rows, claim: Claim) -> Started | None:
    found = await db.rows("SELECT fingerprint, run_id FROM claims WHERE key = ?", (claim.key,))
    if not found:
        return None
    fingerprint, run_id = found[0]
    check_fingerprint(claim, fingerprint)
    run = await find_run(db, run_id)
    assert run is not None  # a claim is deleted with its run
    if not (claim.lasting or run.status.active or run.status is RunStatus.COMPLETED):
        return None
    return Started(run, created=False, replayed=True)


def check_fingerprint(claim: Claim, fingerprint: str) -> None:
    """Raises ChatError ``idempotency_conflict``: the key stands for another request, which had this fingerprint."""
    if fingerprint != claim.fingerprint:
        raise ChatError("idempotency_conflict", "This idempotency key was used with another request.")


async def run_of_key(db: Rows, key: str) -> str | None:
    found = await db.rows("SELECT run_id FROM claims WHERE key = ?", (key,))
    return found[0][0] if found else None


async def _session_state(db: Rows, session: NewSession, user_id: str | None) -> tuple[str | None, str | None]:
    """The session's leaf and its collection, which a message may have named; the session is created if it is new."""
    found = await db.rows(
        f"SELECT user_id, leaf_id, collection, {CONVERSATION} FROM sessions WHERE id = ?",  # noqa: S608  # nosec B608  # no value
        (session.id,),
    )
    if not found:
        await insert_session(db, session)
        return None, session.collection
    owner, leaf_id, collection, talks = found[0]
    if not talks or (user_id is not None and user_id != owner):
        raise ChatError("not_found", "There is no such session.")
    if session.collection not in (None, collection):
        collection = session.collection
        await db.rows("UPDATE sessions SET collection = ? WHERE id = ?", (collection, session.id))
    return leaf_id, collection


async def _says(db: Rows, message_id: str) -> str:
    found = await db.rows("SELECT content FROM messages WHERE id = ?", (message_id,))
    return str(found[0][0])


def _refuse_if_busy(busy: Run | None, on_busy: OnBusy) -> None:
    if busy is not None and on_busy is OnBusy.REJECT:
        raise ChatError(
            "run_in_progress",
            "This session is still answering. Follow that run, cancel it, or ask with on_busy=queue or interrupt.",
            details={"run_id": busy.id},
        )


async def _place_turns(db: Rows, session_id: str, turns: Sequence[Turn], place: Place, leaf_id: str | None) -> str:
    """Store the turns where they belong; the id of the last one, the user's."""
    new = list(turns)
    match place:
        case Leaf():
            parent_id = leaf_id
        case Under(parent_id):
            await _check_parent(db, session_id, parent_id)
        case Answering(answer_id):
            parent_id = await _complete(db, session_id, answer_id, new)
        case _:
            parent_id = await _beginning(db, session_id, turns[0].id)
            while new and (child := await _same_child(db, session_id, parent_id, new[0])) is not None:
                if new[0].steps and len(new) == 1:
                    await _refuse_if_unwritten(db, child)
                parent_id = child
                await _answer_calls(db, parent_id, new.pop(0))
    for turn in new:
        message_id = new_id("msg")
        await db.rows(
            """INSERT INTO messages (id, session_id, parent_id, role, content, status, created_at, steps)
               VALUES (?, ?, ?, ?, ?, 'completed', ?, ?)""",
            (message_id, session_id, parent_id, turn.role, turn.content, now_ms(), dump_steps(turn.steps)),
        )
        parent_id = message_id
    await db.rows("UPDATE sessions SET message_count = message_count + ? WHERE id = ?", (len(new), session_id))
    assert parent_id is not None  # there is at least one turn
    return parent_id


async def _check_parent(db: Rows, session_id: str, parent_id: str | None) -> None:
    if parent_id is not None:
        known = "SELECT 1 FROM messages WHERE id = ? AND session_id = ? AND role = 'assistant'"
        coming = """SELECT 1 FROM runs WHERE answer_id = ? AND session_id = ? AND kind = 'answer'
                        AND (status = 'queued' OR status = 'running')"""
        if not await db.rows(f"{known} UNION ALL {coming}", (parent_id, session_id) * 2):
            raise ChatError("invalid_request", "parent_id is not an assistant's message of this session.")


async def _beginning(db: Rows, session_id: str, message_id: str | None) -> str | None:
    """What the message follows; None also where it is not known."""
    found = await db.rows("SELECT parent_id FROM messages WHERE id = ? AND session_id = ?", (message_id, session_id))
    return found[0][0] if found else None


async def _same_child(db: Rows, session_id: str, parent_id: str | None, turn: Turn) -> str | None:
    members = {
        "under": parent_id or session_id,
        "parent": parent_id,
        "session": session_id,
        "role": turn.role,
        "content": turn.content,
        "id": turn.id if turn.role == "assistant" else None,
    }
    found = await db.rows(
        """SELECT id, steps, content = :content, CASE WHEN id = :id THEN content ELSE '' END FROM messages
           WHERE coalesce(parent_id, session_id) = :under AND coalesce(parent_id, '') = coalesce(:parent, '')
               AND session_id = :session AND role = :role AND (content = :content OR id = :id)
           ORDER BY pos DESC""",
        members,
    )
    # Several answers may say the same, or nothing, and call different things: the results belong to one of them.
    calls = {call.id for step in turn.steps for call in step.calls}
    same = [
        (message_id == turn.id, len(calls & {call.id for step in load_steps(steps) for call in step.calls}), message_id)
        for message_id, steps, says_so, content in found
        if says_so or content.startswith(turn.content)
    ]
    if same:
        return str(max(same, key=lambda child: child[:2])[2])
    # An answer that is still being written is no message yet, and can be followed all the same.
    coming = await db.rows(
        """SELECT answer_id FROM runs
           WHERE answer_id = :id AND message_id = :parent AND session_id = :session
               AND (status = 'queued' OR status = 'running')""",
        members,
    )
    return str(coming[0][0]) if coming else None


async def _refuse_if_unwritten(db: Rows, answer_id: str) -> None:
    """An answer that is still being written cannot keep what came of its calls."""
    found = await db.rows(
        "SELECT id FROM runs WHERE answer_id = ? AND (status = 'queued' OR status = 'running')", (answer_id,)
    )
    if found:
        message = "The answer that made these calls is still being written: bring their results when it has ended."
        raise ChatError("run_in_progress", message, details={"run_id": found[0][0]})


async def _answer_calls(db: Rows, message_id: str, turn: Turn) -> None:
    """Keep what the client says came of the calls that were left to it; what is stored already stays as it is."""
    found = await db.rows("SELECT steps FROM messages WHERE id = ?", (message_id,)) if turn.steps else []
    for (stored,) in found:  # none, if it is still being written
        steps = answered(load_steps(stored), turn.steps)
        await db.rows("UPDATE messages SET steps = ? WHERE id = ?", (dump_steps(steps), message_id))


async def _complete(db: Rows, session_id: str, answer_id: str, new: list[Turn]) -> str | None:
    """Keep the results that the first turn has for this answer's calls, and drop that turn; the id of the answer.

    If they are not those that it has already, the turn stays, for the answer's own parent.
    """
    found = await db.rows(
        "SELECT parent_id, steps FROM messages WHERE id = ? AND session_id = ? AND role = 'assistant'",
        (answer_id, session_id),
    )
    if not found:
        raise ChatError("not_found", "There is no such answer in this session.")
    parent_id, steps = found[0]
    if dump_steps(answered(load_steps(steps), new[0].steps)) != dump_steps(new[0].steps):
        return str(parent_id) if parent_id is not None else None
    await _answer_calls(db, answer_id, new.pop(0))
    return answer_id


@dataclass(frozen=True, slots=True)
class _Draft:
    id: str
    session_id: str
    message_id: str
    model: str
    terms: Sequence[str | None]
    claim: Claim | None
    trace: str | None


async def _insert_run(db: Rows, draft: _Draft, busy: Run | None, on_busy: OnBusy, owner: int) -> Started:
    now, answer_id = now_ms(), new_id("msg")
    status = RunStatus.RUNNING if busy is None else RunStatus.QUEUED
    await insert_run(
        db,
        {
            "id": draft.id,
            "kind": RunKind.ANSWER,
            "session_id": draft.session_id,
            "message_id": draft.message_id,
            "answer_id": answer_id,
            "status": status,
            "model": draft.model,
            "instructions": draft.terms[0],
            "terms": draft.terms[1],
            "trace": draft.trace,
            "owner": owner if busy is None else None,
            "epoch": 1 if busy is None else 0,
            "now": now,
        },
    )
    await db.rows(
        f"""UPDATE sessions SET leaf_id = ?, updated_at = ?, touched = {db.touch}
           WHERE id = ?""",  # noqa: S608  # nosec B608  # no value
        (answer_id, now, draft.session_id),
    )
    await insert_claim(db, draft.claim, draft.id)
    run = await find_run(db, draft.id)
    assert run is not None
    running = busy is not None and busy.status is RunStatus.RUNNING
    return Started(run, interrupts=busy.id if busy and running and on_busy is OnBusy.INTERRUPT else None)


async def insert_claim(db: Rows, claim: Claim | None, run_id: str) -> None:
    if claim is not None:
        await db.rows("DELETE FROM claims WHERE key = ?", (claim.key,))  # of a run that came to no good end
        await db.rows("INSERT INTO claims VALUES (?, ?, ?, ?)", (claim.key, claim.fingerprint, run_id, now_ms()))


async def insert_run(db: Rows, values: Mapping[str, object]) -> None:
    await db.rows(
        """INSERT INTO runs (id, kind, session_id, message_id, answer_id, status, model, instructions, terms, trace,
                             owner, epoch, journal_from, created_at)
           VALUES (:id, :kind, :session_id, :message_id, :answer_id, :status, :model, :instructions, :terms, :trace,
                   :owner, :epoch, (SELECT coalesce(max(pos), 0) + 1 FROM journal), :now)""",
        {"instructions": None, "terms": None, "trace": None, **values},
    )


async def claim(db: Rows, owner: int) -> list[Run]:
    """Take the runs that nobody generates, and of each idle session the first run that waits."""
    await db.lock("claim")
    await db.rows(
        """UPDATE runs SET owner = NULL
           WHERE (status = 'queued' OR status = 'running') AND owner NOT IN (SELECT id FROM owners)""",
    )
    taken = await db.rows(
        "UPDATE runs SET owner = ?, epoch = epoch + 1 WHERE status = 'running' AND owner IS NULL RETURNING id",
        (owner,),
    )
    next_ones = await db.rows(
        """UPDATE runs SET owner = ?, epoch = epoch + 1, status = 'running',
                           journal_from = (SELECT coalesce(max(pos), 0) + 1 FROM journal)
           WHERE status = 'queued' AND owner IS NULL AND pos IN (
                         SELECT min(pos) FROM runs waiting
                         WHERE status = 'queued' AND owner IS NULL AND NOT EXISTS (
                             SELECT 1 FROM runs ahead
                             WHERE ahead.session_id = waiting.session_id AND ahead.status = 'running'
                               AND ahead.kind = 'answer')
                         GROUP BY session_id)
           RETURNING id""",
        (owner,),
    )
    found = [await find_run(db, run_id) for (run_id,) in [*taken, *next_ones]]
    return [run for run in found if run is not None]


async def abandoned(db: Rows) -> bool:
    """Whether :func:`claim` would take anything."""
    found = await db.rows(
        """SELECT 1 FROM runs
           WHERE (status = 'queued' OR status = 'running') AND (owner IS NULL OR owner NOT IN (SELECT id FROM owners))
             AND (status = 'running' OR NOT EXISTS (
                 SELECT 1 FROM runs ahead
                 WHERE ahead.session_id = runs.session_id AND ahead.status = 'running' AND ahead.kind = 'answer'))
           LIMIT 1"""
    )
    return bool(found)


async def disown(db: Rows, run_ids: Collection[str], owner: int) -> None:
    """Make these runs anybody's, those that are the owner's."""
    if run_ids:
        await db.rows(
            f"""UPDATE runs SET owner = NULL
                WHERE id IN ({db.listed(":ids")}) AND owner = :owner AND (status = 'queued' OR status = 'running')""",  # noqa: S608  # nosec B608  # no value
            {"ids": json.dumps(list(run_ids)), "owner": owner},
        )


async def adopt(db: Rows, run_id: str, owner: int) -> Run | None:
    """Take a waiting run out of its turn, as it is."""
    taken = await db.rows(
        """UPDATE runs SET owner = ?, epoch = epoch + 1 WHERE id = ? AND status = 'queued' AND owner IS NULL
           RETURNING id""",
        (owner, run_id),
    )
    return await find_run(db, run_id) if taken else None


async def release(db: Rows, run_id: str, owner: int) -> None:
    await db.rows("UPDATE runs SET owner = NULL WHERE id = ? AND owner = ? AND status = 'running'", (run_id, owner))
    await db.ring()


async def request_cancel(db: Rows, run_id: str, reason: str) -> None:
    await db.rows(
        "UPDATE runs SET cancel_requested = ? WHERE id = ? AND status IN ('queued', 'running')",
        (reason, run_id),
    )
    await db.ring()


async def cancel_requests(db: Rows, owner: int) -> list[tuple[str, str]]:
    found = await db.rows(
        """SELECT id, cancel_requested FROM runs
           WHERE (status = 'queued' OR status = 'running') AND cancel_requested IS NOT NULL AND owner = ?""",
        (owner,),
    )
    return [(run_id, reason) for run_id, reason in found]


def _terms_row(terms: Terms) -> Sequence[str | None]:
    """The instructions as they are, and the rest as JSON, if there is any: few runs have it."""
    tools = [asdict(spec) for spec in terms.tools]
    rest: dict[str, object] = {"tools": tools, "options": dict(terms.options), "labels": dict(terms.labels)}
    if terms.collection is not None:
        rest["collection"] = terms.collection
    return terms.instructions, json.dumps(rest, ensure_ascii=False) if any(rest.values()) else None


async def find_terms(db: Rows, run_id: str) -> Terms:
    found = await db.rows("SELECT instructions, terms FROM runs WHERE id = ?", (run_id,))
    instructions, rest = found[0] if found else (None, None)
    if rest is None:
        return Terms(instructions)
    members = {"labels": {}, **json.loads(rest)}  # the first versions had none
    tools = [ToolSpec(**spec) for spec in members["tools"]]
    return Terms(instructions, tools, members["options"], members["labels"], members.get("collection"))
