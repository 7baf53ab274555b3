"""Search with FTS5. Every function works inside a transaction that it is given."""

import json
from collections.abc import Sequence

from chat.search import Hit, Search
from chat.sessions import Page
from store import search as searching
from store.rows import Rows
from store.search import INDEX_CHARS, INDEX_MESSAGES, RANKED, may_be_a_beginning, next_ones
from store.snippets import snippet, terms_of

MERGE_PAGES = 64
"""Pages of 4 KB that one transaction merges: some milliseconds for which commits wait."""

_MERGES = (
    "INSERT INTO messages_index (messages_index, rank) VALUES ('merge', ?)",
    "INSERT INTO chunks_index (chunks_index, rank) VALUES ('merge', ?)",
)


async def behind(db: Rows) -> bool:
    """Whether there are messages that the index does not have."""
    return bool(await db.rows("SELECT 1 FROM messages JOIN messages_indexed ON pos > up_to LIMIT 1"))


async def index(db: Rows) -> bool:
    """Add some messages to the index; False when there are no more."""
    waiting = await db.rows(
        """SELECT pos, length(content) FROM messages WHERE pos > (SELECT up_to FROM messages_indexed)
           ORDER BY pos LIMIT ?""",
        (INDEX_MESSAGES,),
    )
    taken = next_ones(waiting, INDEX_CHARS)
    if not taken:
        return False
    await db.rows("UPDATE messages_indexed SET up_to = ?", (taken[-1],))
    await db.rows(
        """INSERT INTO messages_index (rowid, content, owner)
           SELECT pos, content, owner FROM searched_messages WHERE pos >= ?""",
        (taken[0],),
    )
    return len(taken) == INDEX_MESSAGES or len(taken) < len(waiting)


async def begin_merging(db: Rows) -> None:
    """Have all of each index merged into one piece. What was deleted is marked as such in one and still in another."""
    for merging in _MERGES:
        await db.rows(merging, (-MERGE_PAGES,))


async def merge(db: Rows) -> bool:
    """Go on with that; False when it is done. https://www.sqlite.org/fts5.html#the_merge_command"""
    for merging in _MERGES:
        [(before,)] = await db.rows("SELECT total_changes()")
        await db.rows(merging, (MERGE_PAGES,))
        [(after,)] = await db.rows("SELECT total_changes()")
        if after - before >= 2:
            return True
    return False


async def search(db: Rows, wanted: Search) -> Page[Hit]:
    return await searching.search(db, wanted, _ranked, _hits)


def _expression(wanted: Search) -> str:
    """The search in FTS5's language."""
    words = " ".join(f'"{word.replace(chr(34), chr(34) * 2)}"' for word in wanted.words)
    if may_be_a_beginning(wanted.words[-1]):
        words += " *"
    whose = "" if wanted.user_id is None else f'owner : "u{wanted.user_id.encode().hex()}" AND '
    return f"{whose}content : ({words})"


async def _ranked(db: Rows, wanted: Search, newest: int) -> list[int]:
    # Of bm25's weights the second is nothing: whose a message is says nothing of how well it matches. It also counts in
    # how many messages each word is, whoever's: 15 ms for one that 100,000 have.
    found = await db.rows(
        """SELECT pos FROM (
                SELECT rowid AS pos, bm25(messages_index, 1.0, 0.0) AS score FROM messages_index
                WHERE messages_index MATCH :expression AND rowid <= :newest
                      AND (:session_id IS NULL
                           OR :session_id = (SELECT session_id FROM messages WHERE pos = messages_index.rowid))
                ORDER BY rowid DESC LIMIT :ranked)
            ORDER BY score, pos DESC""",
        {"expression": _expression(wanted), "newest": newest, "session_id": wanted.session_id, "ranked": RANKED},
    )
    return [pos for (pos,) in found]


async def _hits(db: Rows, wanted: Search, page: Sequence[int]) -> list[Hit]:
    found = await db.rows(
        """SELECT pos, session_id, id, role, created_at, content FROM messages
           WHERE pos IN (SELECT value FROM json_each(?))""",
        (json.dumps(page),),
    )
    terms, beginning = terms_of(wanted), may_be_a_beginning(wanted.words[-1])
    hits = {
        pos: Hit(session_id, message_id, role, *snippet(content, terms, beginning=beginning), created_at)
        for pos, session_id, message_id, role, created_at, content in found
    }
    return [hits[pos] for pos in page]
