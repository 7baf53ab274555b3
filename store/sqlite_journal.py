"""The runs' logs: appended to a journal while they are live, folded into pages of their own when they end or wait."""

import json
import sqlite3
from collections.abc import Iterator, Sequence

from chat.commits import Append, Batch, Committed, Settlement, Tail
from chat.errors import ChatError
from chat.events import Event, TextDelta, ToolApproval, ToolCalled, dump, load
from chat.runs import STATUS_OF, Run, RunKind
from store import sqlite_memory, sqlite_usage
from store.sqlite_rows import now_ms, rows
from store.sqlite_runs import to_terminal
from store.sqlite_tools import dump_steps, wait_for_approval

PAGE_EVENTS = 512
"""Events in one page of a finished log: few rows for a long answer, little to decode for a late cursor."""

PAGE_CHARS = 65_536
"""The same in characters: a follower that stalls holds one page in memory."""

INSERT_ROWS = (256, 64, 16, 4, 1)
"""Entries that one statement can add to the journal; the largest first, the last is 1."""

TAIL_ENTRIES = 4_096
"""Journal entries read at once for followers of other processes' runs."""

PRUNE_ENTRIES = 10_000
"""Journal entries deleted in one transaction, so that no commit waits long behind the upkeep."""

FOLD_RUNS = 200
"""Finished logs folded in one transaction, likewise."""


def commit(db: sqlite3.Connection, batch: Sequence[Append]) -> Committed:
    owners = {append.run.owner for append in batch}  # nearly always one
    dead = {owner for owner in owners if not rows(db, "SELECT 1 FROM owners WHERE id = ?", (owner,))}
    lost = {append.run.id for append in batch if append.run.owner in dead} if dead else set()
    waiting = False
    for append in batch:
        if append.settlement is not None and append.run.id not in lost:
            if _settle(db, append, append.settlement):
                waiting = waiting or _others_wait(db, append.run.session_id)
            else:
                lost.add(append.run.id)
    kept = [append for append in batch if append.run.id not in lost]
    _insert(db, [entry for append in kept for entry in _entries(append)])
    for append in kept:
        if any(isinstance(event, ToolApproval) for event in append.events):
            calls = {event.call_id: event for event in append.events if isinstance(event, ToolCalled)}
            for event in append.events:
                if isinstance(event, ToolApproval):
                    wait_for_approval(db, append.run.id, calls[event.call_id])
    return Committed(frozenset(lost), waiting)


_INSERT = {
    size: f"INSERT INTO journal (run_id, seq, name, body) VALUES {', '.join(['(?, ?, ?, ?)'] * size)}"  # noqa: S608  # placeholders
    for size in INSERT_ROWS
}


def _insert(db: sqlite3.Connection, entries: Sequence[tuple[str, int, str, str]]) -> None:
    """Add the entries, many in a statement.

    Each statement gives the interpreter's lock away and has to get it back from a loop that is busy: with one for
    each entry, a commit of fifty took tens of milliseconds. A few sizes, so that each is prepared once.
    """
    start = 0
    for size, statement in _INSERT.items():
        while len(entries) - start >= size:
            db.execute(statement, [value for entry in entries[start : start + size] for value in entry])
            start += size


def _entries(append: Append) -> Iterator[tuple[str, int, str, str]]:
    for seq, event in enumerate(append.events, append.first_seq):
        yield append.run.id, seq, *dump(event)


def _settle(db: sqlite3.Connection, append: Append, end: Settlement) -> bool:
    """End the run, store the answer and what it used, fold the log; False if the run is gone or has ended already."""
    run, now, status = append.run, now_ms(), STATUS_OF[type(end.terminal)]
    ended = rows(
        db,
        """UPDATE runs SET status = ?, terminal = ?, last_seq = ?, finished_at = ?
           WHERE id = ? AND owner = ? AND status IN ('queued', 'running') RETURNING id""",
        (status, json.dumps(dump(end.terminal)), len(end.log), now, run.id, run.owner),
    )
    if not ended:
        return False
    if run.kind is RunKind.ANSWER:
        _store_answer(db, run, end, now)
    else:
        sqlite_memory.keep(db, run, end, now)
    for share in end.shares:
        sqlite_usage.insert(db, run, share, now)
    [(aside,)] = rows(db, "SELECT coalesce(max(last_seq), 0) FROM log_pages WHERE run_id = ?", (run.id,))
    _insert_pages(db, run.id, aside + 1, [dump(event) for event in end.log[aside:]])
    return True


def _store_answer(db: sqlite3.Connection, run: Run, end: Settlement, now: int) -> None:
    status = STATUS_OF[type(end.terminal)]
    rows(
        db,
        """INSERT INTO messages (id, session_id, parent_id, role, content, status, run_id, created_at, steps)
           VALUES (?, ?, ?, 'assistant', ?, ?, ?, ?, ?)""",
        (run.answer_id, run.session_id, run.message_id, end.answer, status, run.id, now, dump_steps(end.steps)),
    )
    rows(
        db,
        """UPDATE sessions SET message_count = message_count + 1, updated_at = ?,
                               touched = (SELECT max(touched) + 1 FROM sessions) WHERE id = ?""",
        (now, run.session_id),
    )


def _others_wait(db: sqlite3.Connection, session_id: str) -> bool:
    return bool(rows(db, "SELECT 1 FROM runs WHERE session_id = ? AND status = 'queued' LIMIT 1", (session_id,)))


def _insert_pages(db: sqlite3.Connection, run_id: str, first_seq: int, events: Sequence[tuple[str, str]]) -> None:
    """Store neighbouring events, each a name and a body, as pages; ``first_seq`` is the first one's place."""
    pages = [(run_id, *page) for page in _pages(first_seq, events)]
    db.executemany("INSERT INTO log_pages VALUES (?, ?, ?, ?)", pages)


def _pages(first_seq: int, events: Sequence[tuple[str, str]]) -> Iterator[tuple[int, int, str]]:
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


def read_events(db: sqlite3.Connection, run_id: str, after: int, limit: int) -> Batch:
    found = rows(db, "SELECT folded, finished_at, last_seq, journal_from FROM runs WHERE id = ?", (run_id,))
    if not found:
        return Batch(after + 1, ())
    folded, finished_at, last_seq, journal_from = found[0]
    if folded and after < last_seq:
        return _from_message(db, run_id, after, last_seq)
    page = rows(
        db,
        """SELECT first_seq, last_seq, events FROM log_pages WHERE run_id = ? AND first_seq <= ? + 1
           ORDER BY first_seq DESC LIMIT 1""",
        (run_id, after),
    )
    if page and after < page[0][1]:
        first_seq, _, events = page[0]
        return Batch(after + 1, _unpack(events)[after + 1 - first_seq :][:limit])
    if finished_at is not None:
        return Batch(after + 1, ())
    entries = rows(
        db,
        "SELECT name, body FROM journal WHERE pos >= ? AND run_id = ? AND seq > ? ORDER BY pos LIMIT ?",
        (journal_from, run_id, after, limit),
    )
    return Batch(after + 1, [load(name, body) for name, body in entries])


def _from_message(db: sqlite3.Connection, run_id: str, after: int, last_seq: int) -> Batch:
    """The whole stored text as one delta, and the end: what is left of a log after its retention."""
    content, ending = (
        rows(
            db,
            """SELECT coalesce(messages.content, runs.text), runs.terminal
               FROM runs LEFT JOIN messages ON messages.id = runs.answer_id WHERE runs.id = ?""",
            (run_id,),
        )
    )[0]
    terminal = to_terminal(ending)
    assert terminal is not None
    if 0 < after < last_seq - 1:  # whatever was there, text or not
        raise ChatError("cursor_expired", "The events behind this id are gone; read the message instead.")
    if after > 0 or not content:
        return Batch(last_seq, [terminal])
    return Batch(last_seq - 1, [TextDelta(content), terminal])


def tail(db: sqlite3.Connection, after: int) -> Tail:
    first = (rows(db, "SELECT min(pos) FROM journal"))[0][0]
    found = rows(
        db,
        "SELECT pos, run_id, seq, name, body FROM journal WHERE pos > ? ORDER BY pos LIMIT ?",
        (after, TAIL_ENTRIES),
    )
    entries = [(run_id, seq, load(name, body)) for _, run_id, seq, name, body in found]
    return Tail(found[-1][0] if found else after, entries, complete=first is None or first <= after + 1)


def position(db: sqlite3.Connection) -> int:
    return int((rows(db, "SELECT coalesce(max(pos), 0) FROM journal"))[0][0])


def put_aside(db: sqlite3.Connection) -> None:
    """Move what runs have said that wait for somebody's yes into pages of their own: that may take days.

    Meanwhile the journal could not be pruned behind them. The entries stay for those who read along, until they are.
    """
    end = position(db)
    waiting = dict(
        rows(
            db,
            """SELECT id, journal_from FROM runs WHERE status = 'running' AND journal_from <= ?
                   AND EXISTS (SELECT 1 FROM approvals WHERE run_id = runs.id AND approved IS NULL)""",
            (end,),
        )
    )
    said: dict[str, list[tuple[int, str, str]]] = {run_id: [] for run_id in waiting}
    entries = rows(
        db,
        """SELECT pos, run_id, seq, name, body FROM journal
           WHERE pos >= ? AND run_id IN (SELECT value FROM json_each(?)) ORDER BY pos""",
        (min(waiting.values(), default=end + 1), json.dumps(list(waiting))),
    )
    for pos, run_id, seq, name, body in entries:
        if pos >= waiting[run_id]:
            said[run_id].append((seq, name, body))
    for run_id, events in said.items():
        if events:
            _insert_pages(db, run_id, events[0][0], [(name, body) for _, name, body in events])
    db.executemany("UPDATE runs SET journal_from = ? WHERE id = ?", [(end + 1, run_id) for run_id in waiting])


def prunable(db: sqlite3.Connection) -> int:
    """The position before which no live run has events. The last entry stays, so that positions only grow."""
    return int(
        (
            rows(
                db,
                """SELECT min((SELECT coalesce(max(pos), 0) FROM journal),
                              (SELECT coalesce(min(journal_from), 9e15) FROM runs WHERE status = 'running'))""",
            )
        )[0][0]
    )


def prune(db: sqlite3.Connection, before: int) -> bool:
    """Delete some of the entries before the position; False when there are no more."""
    first = (rows(db, "SELECT min(pos) FROM journal"))[0][0]
    if first is None or first >= before:
        return False
    rows(db, "DELETE FROM journal WHERE pos < ?", (min(before, first + PRUNE_ENTRIES),))
    return True


def fold(db: sqlite3.Connection, retention: float) -> bool:
    """Drop the logs of some runs that ended ``retention`` seconds ago; False when there are no more."""
    old = now_ms() - int(retention * 1000)
    folded = rows(
        db,
        """UPDATE runs SET folded = 1 WHERE pos IN (
               SELECT pos FROM runs WHERE folded = 0 AND finished_at IS NOT NULL AND finished_at <= ? LIMIT ?)
           RETURNING id""",
        (old, FOLD_RUNS),
    )
    db.executemany("DELETE FROM log_pages WHERE run_id = ?", folded)
    rows(db, "DELETE FROM claims WHERE created_at <= ?", (old,))
    return len(folded) == FOLD_RUNS
