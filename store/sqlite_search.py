"""Search with FTS5. Every function works inside a transaction that it is given."""

import json
import re
import secrets
import sqlite3
from collections.abc import Sequence
from itertools import accumulate, groupby

from chat.errors import ChatError
from chat.search import Hit, Search, is_searchable
from chat.sessions import Page
from store.sqlite_rows import rows

RANKED = 10_000
"""Matches that are ranked, the newest of them: all that a word like "the" finds would keep a reader for seconds."""

PREFIX_BYTES = 3
"""The shortest beginning of a word, in UTF-8: with a shorter one, half of the index would be read. A Chinese character
is as long."""

SNIPPET_WORDS = 24
"""Words of a snippet, about two lines."""

SNIPPET_CHARS = 320
"""The same in characters, for text that has few words or very long ones."""

INDEX_CHARS = 65_536
"""Text that one transaction adds to the index, and one message more: some milliseconds for which commits wait."""

INDEX_MESSAGES = 200
"""Messages likewise: they may be empty."""

_CURSOR = re.compile(r"([0-9]{1,18})-([0-9]{1,18})-([0-9]{1,6})")


def behind(db: sqlite3.Connection) -> bool:
    """Whether there are messages that the index does not have."""
    return bool(rows(db, "SELECT 1 FROM messages JOIN messages_indexed ON pos > up_to LIMIT 1"))


def index(db: sqlite3.Connection) -> bool:
    """Add some messages to the index; False when there are no more."""
    next_ones = rows(
        db,
        """SELECT pos, length(content) FROM messages WHERE pos > (SELECT up_to FROM messages_indexed)
           ORDER BY pos LIMIT ?""",
        (INDEX_MESSAGES,),
    )
    sizes = accumulate(length for _, length in next_ones)
    taken = [pos for (pos, length), size in zip(next_ones, sizes, strict=True) if size - length < INDEX_CHARS]
    if not taken:
        return False
    rows(db, "UPDATE messages_indexed SET up_to = ?", (taken[-1],))
    rows(
        db,
        """INSERT INTO messages_index (rowid, content, owner)
           SELECT pos, content, owner FROM searched_messages WHERE pos >= ?""",
        (taken[0],),
    )
    return len(taken) == INDEX_MESSAGES or len(taken) < len(next_ones)


def search(db: sqlite3.Connection, wanted: Search) -> Page[Hit]:
    """The best first. Later pages have the order of the first one, without what has come since then."""
    newest, last, passed = _place(db, wanted.after)
    expression = _expression(db, wanted)
    if expression is None:
        return Page([])
    ranked = _ranked(db, expression, newest, wanted.session_id)
    start = ranked.index(last) + 1 if last in ranked else passed  # not there any more: deleted
    page = ranked[start : start + wanted.limit]
    end = start + len(page)
    return Page(_hits(db, expression, page), f"{newest}-{page[-1]}-{end}" if end < len(ranked) else None)


def _place(db: sqlite3.Connection, after: str | None) -> tuple[int, int, int]:
    """The newest position that counts, the last one that was shown, and how many were."""
    if after is None:
        [(newest,)] = rows(db, "SELECT coalesce(max(pos), 0) FROM messages")
        return newest, 0, 0
    match = _CURSOR.fullmatch(after)
    if match is None or not after.isascii():
        raise ChatError("invalid_request", "after is not a cursor of this search.")
    return int(match[1]), int(match[2]), int(match[3])


def _expression(db: sqlite3.Connection, wanted: Search) -> str | None:
    """The search in FTS5's language; None if nobody can have said it."""
    words = " ".join(f'"{word.replace(chr(34), chr(34) * 2)}"' for word in wanted.words)
    if _may_be_a_beginning(wanted.words[-1]):
        words += " *"
    user_id = wanted.user_id
    if wanted.session_id is not None:
        found = rows(db, "SELECT user_id FROM sessions WHERE id = ?", (wanted.session_id,))
        if not found or user_id not in (None, found[0][0]):
            return None
        user_id = found[0][0]
    whose = "" if user_id is None else f'owner : "u{user_id.encode().hex()}" AND '
    return f"{whose}content : ({words})"


def _may_be_a_beginning(word: str) -> bool:
    parts = ["".join(part) for searchable, part in groupby(word, is_searchable) if searchable]
    return len(parts[-1].encode()) >= PREFIX_BYTES


def _ranked(db: sqlite3.Connection, expression: str, newest: int, session_id: str | None) -> list[int]:
    # Of bm25's weights the second is nothing: whose a message is says nothing of how well it matches. It also counts in
    # how many messages each word is, whoever's: 15 ms for one that 100,000 have.
    found = rows(
        db,
        """SELECT pos FROM (
                SELECT rowid AS pos, bm25(messages_index, 1.0, 0.0) AS score FROM messages_index
                WHERE messages_index MATCH :expression AND rowid <= :newest
                      AND (:session_id IS NULL
                           OR :session_id = (SELECT session_id FROM messages WHERE pos = messages_index.rowid))
                ORDER BY rowid DESC LIMIT :ranked)
            ORDER BY score, pos DESC""",
        {"expression": expression, "newest": newest, "session_id": session_id, "ranked": RANKED},
    )
    return [pos for (pos,) in found]


def _hits(db: sqlite3.Connection, expression: str, page: Sequence[int]) -> list[Hit]:
    if not page:
        return []
    mark = secrets.token_hex(8)  # nobody who writes a message can know it
    # Walks through the matches once more, and cuts out of those of this page only. The plus keeps SQLite from beginning
    # the search anew for each of them.
    found = rows(
        db,
        """SELECT messages.pos, messages.session_id, messages.id, messages.role, messages.created_at,
                  snippet(messages_index, 0, :mark, :mark, '…', :words)
           FROM messages_index CROSS JOIN messages ON messages.pos = messages_index.rowid
           WHERE messages_index MATCH :expression AND messages_index.rowid BETWEEN :first AND :last
                 AND +messages_index.rowid IN (SELECT value FROM json_each(:page))""",
        {
            "expression": expression,
            "first": min(page),
            "last": max(page),
            "page": json.dumps(page),
            "mark": mark,
            "words": SNIPPET_WORDS,
        },
    )
    hits = {
        pos: Hit(session_id, message_id, role, *_marked(snippet, mark), created_at)
        for pos, session_id, message_id, role, created_at, snippet in found
    }
    return [hits[pos] for pos in page]


def _marked(snippet: str, mark: str) -> tuple[str, Sequence[tuple[int, int]]]:
    """The text without the marks, at most so long, and where they were."""
    matches: list[tuple[int, int]] = []
    text = ""
    for number, part in enumerate(snippet.split(mark)):
        if number % 2:
            matches.append((len(text), len(text) + len(part)))
        text += part
    begin = max(0, min(matches[0][0] - SNIPPET_CHARS // 4, len(text) - SNIPPET_CHARS)) if matches else 0
    end = begin + SNIPPET_CHARS
    before, after = "…" if begin else "", "…" if end < len(text) else ""
    shift = len(before) - begin
    inside = [(start + shift, min(stop, end) + shift) for start, stop in matches if start < end]
    return f"{before}{text[begin:end]}{after}", inside
