"""The runs' logs: appended to a journal while they are live, folded into pages of their own when they end or wait."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from chat.commits import Append, Batch, Committed, Settlement, Tail
from chat.errors import ChatError
from chat.events import Event, TextDelta, ToolApproval, ToolCalled, dump, load
from chat.runs import STATUS_OF, Run, RunKind
from store import imports, memory, usage
from store.rows import Entry, Rows, now_ms
from store.runs import to_terminal
from store.tools import dump_sources, dump_steps, load_sources, wait_for_approval

PAGE_EVENTS = 512
"""Events in one page of a finished log: few rows for a long answer, little to decode for a late cursor."""

PAGE_CHARS = 65_536
"""The same in characters: a follower that stalls holds one page in memory."""

TAIL_ENTRIES = 4_096
"""Journal entries read at once for followers of other processes' runs."""

PRUNE_ENTRIES = 10_000
"""Journal entries deleted in one transaction, so that no commit waits long behind the upkeep."""

FOLD_RUNS = 200
"""Finished logs folded in one transaction, likewise."""

UPKEEP = "upkeep"
"""The name under which the upkeep locks itself: one process at a time."""


async def commit(db: Rows, batch: Sequence[Append]) -> Committed:
    lost = await lost_runs(db, batch)
    ends = [append for append in batch if append.settlement is not None]
    await db.lock(*[append.run.session_id for append in ends])
    lost |= await _settle(db, [append for append in ends if append.run.id not in lost])
    kept = [append for append in batch if append.run.id not in lost]
    for append in kept:
        if waits(append):
            calls = {event.call_id: event for event in append.events if isinstance(event, ToolCalled)}
            for event in append.events:
                if isinstance(event, ToolApproval):
                    await wait_for_approval(db, append.run.id, calls[event.call_id])
    waiting = await _others_wait(db, [append.run.session_id for append in ends])
    await db.enter(list(entries(kept)))  # last, because others wait for it
    return Committed(frozenset(lost), waiting)


def waits(append: Append) -> bool:
    """Whether the run waits for somebody's yes from here on."""
    return any(isinstance(event, ToolApproval) for event in append.events)


async def lost_runs(db: Rows, batch: Sequence[Append]) -> set[str]:
    """The runs whose owners, for whom the batch is, are dead: another may have them by now."""
    owners = {append.run.owner for append in batch}  # nearly always one
    # An owner that is there stays until the commit: nobody takes its runs while it writes to them.
    alive = f"SELECT 1 FROM owners WHERE id = ? {db.shared}"  # noqa: S608  # nosec B608  # no value
    dead = {owner for owner in owners if not await db.rows(alive, (owner,))}
    return {append.run.id for append in batch if append.run.owner in dead} if dead else set()


def entries(batch: Iterable[Append]) -> Iterator[Entry]:
    """What the journal is given."""
    for append in batch:
        for seq, event in enumerate(append.events, append.first_seq):
            yield append.run.id, seq, *dump(event)


async def _settle(db: Rows, ends: Sequence[Append]) -> set[str]:
    """End the runs, store the answers and what they used, fold the logs; those that are gone or have ended already.

    A few statements in all, and not for each: hundreds may end in one commit.
    """
    now = now_ms()
    found = await db.many(
        """UPDATE runs SET status = ?, terminal = ?, last_seq = ?, finished_at = ?
           WHERE id = ? AND owner = ? AND status IN ('queued', 'running') RETURNING id""",
        [
            (STATUS_OF[type(end.terminal)], json.dumps(dump(end.terminal)), len(end.log), now, run.id, run.owner)
            for run, end in _settled(ends)
        ],
    )
    ended = {run_id for (run_id,) in found}
    settled = [(run, end) for run, end in _settled(ends) if run.id in ended]
    await _store_answers(db, [(run, end) for run, end in settled if run.kind is RunKind.ANSWER], now)
    await memory.keep(db, [(run, end) for run, end in settled if run.kind is not RunKind.ANSWER], now)
    await imports.drop_files(db, [run.id for run, _ in settled if run.kind is RunKind.IMPORT])
    await usage.insert(db, [(run, share) for run, end in settled for share in end.shares], now)
    await _fold(db, settled)
    return {append.run.id for append in ends} - ended


def _settled(ends: Sequence[Append]) -> Iterator[tuple[Run, Settlement]]:
    for append in ends:
        if append.settlement is not None:
            yield append.run, append.settlement


async def _store_answers(db: Rows, answers: Sequence[tuple[Run, Settlement]], now: int) -> None:
    await db.each(
        """INSERT INTO messages (id, session_id, parent_id, role, content, status, run_id, created_at, steps, sources)
           VALUES (?, ?, ?, 'assistant', ?, ?, ?, ?, ?, ?)""",
        [
            (
                run.answer_id,
                run.session_id,
                run.message_id,
                end.answer,
                STATUS_OF[type(end.terminal)],
                run.id,
                now,
                dump_steps(end.steps),
                dump_sources(end.sources),
            )
            for run, end in answers
        ],
    )
    await db.each(
        f"""UPDATE sessions SET message_count = message_count + 1, updated_at = ?,
                               touched = {db.touch} WHERE id = ?""",  # noqa: S608  # nosec B608  # no value
        [(now, run.session_id) for run, _ in answers],
    )


async def _fold(db: Rows, settled: Sequence[tuple[Run, Settlement]]) -> None:
    """Store what of the logs is not put aside yet."""
    if not settled:
        return
    aside = dict(
        await db.rows(
            f"""SELECT run_id, max(last_seq) FROM log_pages
                WHERE run_id IN ({db.listed(":ids")}) GROUP BY run_id""",  # noqa: S608  # nosec B608  # no value
            {"ids": json.dumps([run.id for run, _ in settled])},
        )
    )
    rest = {run.id: (aside.get(run.id, 0), end.log) for run, end in settled}
    await _insert_pages(
        db, {run_id: (known + 1, [dump(event) for event in log[known:]]) for run_id, (known, log) in rest.items()}
    )


async def _others_wait(db: Rows, session_ids: Sequence[str]) -> bool:
    """Whether runs wait in one of the sessions."""
    waiting = f"SELECT 1 FROM runs WHERE session_id IN ({db.listed(':ids')}) AND status = 'queued' LIMIT 1"  # noqa: S608  # nosec B608  # no value
    return bool(session_ids and await db.rows(waiting, {"ids": json.dumps(session_ids)}))


async def _insert_pages(db: Rows, logs: Mapping[str, tuple[int, Sequence[tuple[str, str]]]]) -> None:
    """Store neighbouring events of each run, each a name and a body, as pages, behind the first one's place."""
    rows = [(run_id, *page) for run_id, (first_seq, events) in logs.items() for page in pages(first_seq, events)]
    await db.each("INSERT INTO log_pages VALUES (?, ?, ?, ?)", rows)


def pages(first_seq: int, events: Sequence[tuple[str, str]]) -> Iterator[tuple[int, int, str]]:
    page: list[str | tuple[str, str]] = []
    size = 0
    for seq, (name, body) in enumerate(events, first_seq):
        # Text is most of it: a bare string stands for a text delta.
        page.append(body if name == "text.delta" else (name, body))
        size += len(body)
        if len(page) == PAGE_EVENTS or size >= PAGE_CHARS or seq == first_seq + len(events) - 1:
            yield seq - len(page) + 1, seq, json.dumps(page, ensure_ascii=False)
            page, size = [], 0


def _unpack(page: str) -> list[Event]:
    return [TextDelta(item) if isinstance(item, str) else load(*item) for item in json.loads(page)]


async def read_events(db: Rows, run_id: str, after: int, limit: int) -> Batch:
    found = await db.rows("SELECT folded, finished_at, last_seq, journal_from FROM runs WHERE id = ?", (run_id,))
    if not found:
        return Batch(after + 1, ())
    folded, finished_at, last_seq, journal_from = found[0]
    if folded and after < last_seq:
        return await _from_message(db, run_id, after, last_seq)
    page = await db.rows(
        """SELECT first_seq, last_seq, events FROM log_pages WHERE run_id = ? AND first_seq <= ?
           ORDER BY first_seq DESC LIMIT 1""",
        (run_id, min(after, 2**62) + 1),
    )
    if page and after < page[0][1]:
        first_seq, _, events = page[0]
        return Batch(after + 1, _unpack(events)[after + 1 - first_seq :][:limit])
    if finished_at is not None:
        return Batch(after + 1, ())
    entries = await db.rows(
        "SELECT name, body FROM journal WHERE pos >= ? AND run_id = ? AND seq > ? ORDER BY pos LIMIT ?",
        (journal_from, run_id, after, limit),
    )
    return Batch(after + 1, [load(name, body) for name, body in entries], last=len(entries) < limit)


async def _from_message(db: Rows, run_id: str, after: int, last_seq: int) -> Batch:
    """The sources, the whole stored text as one delta, and the end: what is left of a log after its retention.

    In this order: who has the text has everything, and goes on from the place that it always had.
    """
    content, sources, ending = (
        await db.rows(
            """SELECT coalesce(messages.content, runs.text), messages.sources, runs.terminal
               FROM runs LEFT JOIN messages ON messages.id = runs.answer_id WHERE runs.id = ?""",
            (run_id,),
        )
    )[0]
    terminal = to_terminal(ending)
    assert terminal is not None
    if 0 < after < last_seq - 1:  # whatever was there, text or not
        raise ChatError("cursor_expired", "The events behind this id are gone; read the message instead.")
    if after > 0:
        return Batch(last_seq, [terminal])
    left: list[Event] = [*load_sources(sources), *([TextDelta(content)] if content else []), terminal]
    return Batch(last_seq + 1 - len(left), left)


async def tail(db: Rows, after: int, run_ids: Collection[str]) -> Tail:
    """In one statement: what is committed up to the last position that it sees."""
    found = await db.rows(
        f"""SELECT (SELECT min(pos) FROM journal), (SELECT max(pos) FROM journal),
                   entry.pos, entry.run_id, entry.seq, entry.name, entry.body
            FROM (SELECT 1 AS one) AS one LEFT JOIN (
                SELECT pos, run_id, seq, name, body FROM journal
                WHERE pos > :after AND run_id IN ({db.listed(":ids")}) ORDER BY pos LIMIT :limit) AS entry ON one = 1
            ORDER BY entry.pos""",  # noqa: S608  # nosec B608  # no value
        {"after": after, "ids": json.dumps(list(run_ids)), "limit": TAIL_ENTRIES},
    )
    first, last = found[0][:2]
    entries = [(run_id, seq, load(name, body)) for _, _, pos, run_id, seq, name, body in found if pos is not None]
    more = len(entries) == TAIL_ENTRIES
    pos = found[-1][2] if more else max(after, last or 0)
    return Tail(pos, entries, complete=first is None or first <= after + 1, more=more)


async def position(db: Rows) -> int:
    return int((await db.rows("SELECT coalesce(max(pos), 0) FROM journal"))[0][0])


async def put_aside(db: Rows) -> None:
    """Move what runs have said that wait for somebody's yes into pages of their own: that may take days.

    Meanwhile the journal could not be pruned behind them. The entries stay for those who read along, until they are.
    """
    await db.lock(UPKEEP)
    end = await position(db)
    waiting = dict(
        await db.rows(
            """SELECT id, journal_from FROM runs WHERE status = 'running' AND journal_from <= ?
                   AND EXISTS (SELECT 1 FROM approvals WHERE run_id = runs.id AND approved IS NULL)""",
            (end,),
        )
    )
    said: dict[str, list[tuple[int, str, str]]] = {run_id: [] for run_id in waiting}
    entries = await db.rows(
        f"""SELECT pos, run_id, seq, name, body FROM journal
            WHERE pos BETWEEN :first AND :last AND run_id IN ({db.listed(":ids")}) ORDER BY pos""",  # noqa: S608  # nosec B608  # no value
        {"first": min(waiting.values(), default=end + 1), "last": end, "ids": json.dumps(list(waiting))},
    )
    for pos, run_id, seq, name, body in entries:
        if pos >= waiting[run_id]:
            said[run_id].append((seq, name, body))
    await _insert_pages(
        db,
        {
            run_id: (events[0][0], [(name, body) for _, name, body in events])
            for run_id, events in said.items()
            if events
        },
    )
    await db.each("UPDATE runs SET journal_from = ? WHERE id = ?", [(end + 1, run_id) for run_id in waiting])


async def prunable(db: Rows) -> int:
    """The position before which no live run has events. The last entry stays, so that positions only grow."""
    [(oldest,)] = await db.rows("SELECT min(journal_from) FROM runs WHERE status = 'running'")
    last = await position(db)
    return last if oldest is None else min(last, int(oldest))


async def prune(db: Rows, before: int) -> bool:
    """Delete some of the entries before the position; False when there are no more."""
    await db.lock(UPKEEP)
    first = (await db.rows("SELECT min(pos) FROM journal"))[0][0]
    if first is None or first >= before:
        return False
    await db.rows("DELETE FROM journal WHERE pos < ?", (min(before, first + PRUNE_ENTRIES),))
    return True


async def fold(db: Rows, retention: float) -> bool:
    """Drop the logs of some runs that ended ``retention`` seconds ago; False when there are no more."""
    await db.lock(UPKEEP)
    old = now_ms() - int(retention * 1000)
    folded = await db.rows(
        """UPDATE runs SET folded = 1 WHERE pos IN (
               SELECT pos FROM runs WHERE folded = 0 AND finished_at IS NOT NULL AND finished_at <= ? LIMIT ?)
           RETURNING id""",
        (old, FOLD_RUNS),
    )
    await db.each("DELETE FROM log_pages WHERE run_id = ?", folded)
    for claims in ("claims", "document_claims"):
        await db.rows(f"DELETE FROM {claims} WHERE created_at <= ?", (old,))  # noqa: S608  # nosec B608  # names of ours
    return len(folded) == FOLD_RUNS
