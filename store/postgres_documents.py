"""Passages with PostgreSQL's text search vectors. Every function works inside a transaction that it is given."""

import asyncio
import json
from collections.abc import Sequence

from chat.documents import Lookup, Passage
from store.postgres_search import vector, word_of
from store.rows import Rows
from store.search import INDEX_CHARS, INDEX_MESSAGES, next_ones
from store.snippets import words_in

# How many chunks have a word counts, as in BM25, of which ts_rank knows nothing: without that a question's "the" would
# be worth as much as its nouns. ts_rank of one word grows with its number in the chunk, up to 1.6 times; 1 divides it
# by the logarithm of the chunk's length.
_BEST = """
    WITH found AS MATERIALIZED (
        SELECT pos, words FROM chunk_words WHERE words @@ CAST(CAST(:which AS TEXT) AS tsquery)),
    terms AS (SELECT CAST(term AS tsquery) AS term FROM ({terms}) AS listed (term)),
    total AS (
        SELECT coalesce(sum(chunks), 0) AS chunks FROM documents
        WHERE collection = :collection AND (user_id IS NULL OR user_id = :user_id)),
    weights AS (
        SELECT term, ln(1 + (greatest(total.chunks - hits, 0) + 0.5) / (hits + 0.5)) AS weight
        FROM total, terms, LATERAL (SELECT count(*) AS hits FROM found WHERE words @@ term) AS counted),
    best AS (
        SELECT pos, CAST(sum(weight * ts_rank(words, term, 1)) AS DOUBLE PRECISION) AS score
        FROM found JOIN weights ON words @@ term GROUP BY pos ORDER BY score DESC, pos LIMIT :limit)
    SELECT documents.id, documents.title, chunks.number, chunks.place, chunks.text, best.score
    FROM best JOIN chunks ON chunks.pos = best.pos JOIN documents ON documents.id = chunks.document_id
    ORDER BY best.score DESC, best.pos
"""


async def behind(db: Rows) -> bool:
    """Whether there are chunks that the index does not have."""
    return bool(await db.rows("SELECT 1 FROM unindexed_chunks LIMIT 1"))


async def index(db: Rows) -> bool:
    """Add some chunks to the index; False when there are no more."""
    await db.lock("index of chunks")
    waiting = await db.rows(
        "SELECT pos, length(text) FROM unindexed_chunks JOIN chunks USING (pos) ORDER BY pos LIMIT ?",
        (INDEX_MESSAGES,),
    )
    taken = next_ones(waiting, INDEX_CHARS)
    if not taken:
        return False
    found = await db.rows(
        """SELECT chunks.pos, collection, user_id, title, place, text
           FROM chunks JOIN documents ON documents.id = document_id
           WHERE chunks.pos BETWEEN ? AND ? FOR KEY SHARE OF chunks""",
        (taken[0], taken[-1]),
    )
    wanted = set(taken)
    vectors = await asyncio.to_thread(
        lambda: [
            (pos, vector(_scope(collection, user_id), f"{title} {place}\n{text}"))
            for pos, collection, user_id, title, place, text in found
            if pos in wanted
        ]
    )
    await db.each(
        "INSERT INTO chunk_words VALUES (?, CAST(CAST(? AS TEXT) AS tsvector)) ON CONFLICT DO NOTHING", vectors
    )
    await db.each("DELETE FROM unindexed_chunks WHERE pos = ?", [(pos,) for pos in taken])
    return len(taken) == INDEX_MESSAGES or len(taken) < len(waiting)


async def passages(db: Rows, wanted: Lookup) -> Sequence[Passage]:
    terms = sorted({f"'{part.text}'" for word in wanted.words for part in words_in(word)})
    scopes = [_scope(wanted.collection, None)]
    scopes += [] if wanted.user_id is None else [_scope(wanted.collection, wanted.user_id)]
    found = await db.rows(
        _BEST.format(terms=db.listed(":terms")),
        {
            "which": f"({' | '.join(scopes)}) & ({' | '.join(terms)})",
            "terms": json.dumps(terms),
            "collection": wanted.collection,
            "user_id": wanted.user_id,
            "limit": wanted.limit,
        },
    )
    return [Passage(*row) for row in found]


def _scope(collection: str, user_id: str | None) -> str:
    """A word that nobody can say. No collection's name has a space in it."""
    return word_of(collection if user_id is None else f"{collection} {user_id}")
