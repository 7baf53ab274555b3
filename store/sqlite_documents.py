"""Passages with FTS5. Every function works inside a transaction that it is given."""

from collections.abc import Sequence

from chat.documents import Lookup, Passage
from chat.embeddings import Nearness
from store.embeddings import READABLE
from store.rows import Rows
from store.search import INDEX_CHARS, INDEX_MESSAGES, next_ones


async def behind(db: Rows) -> bool:
    """Whether there are chunks that the index does not have."""
    return bool(await db.rows("SELECT 1 FROM unindexed_chunks LIMIT 1"))


async def index(db: Rows) -> bool:
    """Add some chunks to the index; False when there are no more."""
    waiting = await db.rows(
        "SELECT pos, length(text) FROM unindexed_chunks JOIN chunks USING (pos) ORDER BY pos LIMIT ?",
        (INDEX_MESSAGES,),
    )
    taken = next_ones(waiting, INDEX_CHARS)
    if not taken:
        return False
    await db.rows(
        """INSERT INTO chunks_index (rowid, text, heading, scope)
           SELECT pos, text, heading, scope FROM searched_chunks
           WHERE pos IN (SELECT pos FROM unindexed_chunks WHERE pos <= ?)""",
        (taken[-1],),
    )
    await db.rows("DELETE FROM unindexed_chunks WHERE pos <= ?", (taken[-1],))
    return len(taken) == INDEX_MESSAGES or len(taken) < len(waiting)


async def passages(db: Rows, wanted: Lookup) -> Sequence[Passage]:
    # A heading counts half as much as the text below it, and whose a chunk is nothing.
    found = await db.rows(
        """SELECT documents.id, documents.title, chunks.number, chunks.place, chunks.text, best.score
           FROM (SELECT rowid AS pos, -bm25(chunks_index, 1.0, 0.5, 0.0) AS score FROM chunks_index
                 WHERE chunks_index MATCH :expression ORDER BY score DESC, rowid LIMIT :limit) AS best
               JOIN chunks ON chunks.pos = best.pos JOIN documents ON documents.id = chunks.document_id
           ORDER BY best.score DESC, best.pos""",
        {"expression": _expression(wanted), "limit": wanted.limit},
    )
    return [Passage(*row) for row in found]


async def scan(db: Rows, wanted: Nearness, signs: bytes, limit: int) -> Sequence[int]:
    """The positions of the chunks whose signs differ least, with sqlite-vec's functions."""
    found = await db.rows(
        f"""SELECT chunks.pos FROM documents JOIN chunks ON chunks.document_id = documents.id
                JOIN embedding_signs ON embedding_signs.pos = chunks.pos
            WHERE {READABLE} AND length(signs) = length(:signs)
            ORDER BY vec_distance_hamming(vec_bit(signs), vec_bit(:signs)) LIMIT :limit""",  # noqa: S608  # nosec B608  # no value
        {"collection": wanted.collection, "user_id": wanted.user_id, "signs": signs, "limit": limit},
    )
    return [pos for (pos,) in found]


def _expression(wanted: Lookup) -> str:
    """The search in FTS5's language. The words have no quotes in them."""
    collection = f"{wanted.collection.encode().hex()}x"
    scopes = [collection] if wanted.user_id is None else [collection, f"{collection}u{wanted.user_id.encode().hex()}"]
    return f"scope : ({_any(scopes)}) AND {{text heading}} : ({_any(wanted.words)})"


def _any(words: Sequence[str]) -> str:
    return " OR ".join(f'"{word}"' for word in words)
