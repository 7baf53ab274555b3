"""Passages with PostgreSQL's text search vectors. Every function works inside a transaction that it is given."""

import asyncio
import json
from collections.abc import Sequence

from chat.documents import Lookup, Passage
from store.documents import next_chunks
from store.postgres_search import vector, word_of
from store.rarity import COMMON_CHUNKS, longest, rarest
from store.rows import Rows
from store.snippets import words_in

RANKED_CHUNKS = 2_500
"""Chunks that one search finds: some 5 us each, with what follows."""

SAMPLE = 64
"""Chunks, each of another document, that are read to learn how frequent words are: PostgreSQL cannot count quickly."""

RANKED_TERMS = 4_000
"""Words of chunks that are ranked, of all chunks together: some 3 us each, for the vector is unpacked each time."""

# The readable documents of the collection.
_READABLE = "FROM documents WHERE collection = :collection AND (user_id IS NULL OR user_id = :user_id)"

# The digest of its id decides whether a document is looked at, and which of its chunks: it is the same one each time.
_FREQUENCIES = f"""
    WITH sampled AS (
        SELECT id, 1 + CAST(CAST('x' || substr(md5(id), 1, 7) AS BIT(28)) AS INTEGER) % chunks AS number
        {_READABLE} ORDER BY md5(id) LIMIT :sample)
    SELECT word, count(*), (SELECT count(*) FROM sampled)
    FROM sampled JOIN chunks ON chunks.document_id = sampled.id AND chunks.number = sampled.number
        JOIN chunk_words USING (pos), unnest(tsvector_to_array(words)) AS word
    WHERE word IN (SELECT value FROM ({{terms}}) AS listed (value))
    GROUP BY word
"""  # noqa: S608  # nosec B608  # no value

# How many chunks have a word counts, as in BM25, of which ts_rank knows nothing: without that a question's "the" would
# be worth as much as its nouns. First come those chunks whose words are worth most, which needs no look into a vector;
# of these ts_rank of one word, which grows with its number in the chunk, up to 1.6 times; 1 divides it by the logarithm
# of the chunk's length. Each part is worked out once: the planner, which knows nothing of how many there are, would do
# it for each chunk again.
_BEST = f"""
    WITH terms AS MATERIALIZED (
        SELECT row_number() OVER () AS which, CAST(term AS tsquery) AS term FROM ({{terms}}) AS listed (term)),
    found AS MATERIALIZED (
        SELECT which, pos FROM terms, LATERAL (
            SELECT pos FROM chunk_words WHERE words @@ (CAST(CAST(:scope AS TEXT) AS tsquery) && term) LIMIT :most
        ) AS hit),
    total AS MATERIALIZED (SELECT coalesce(sum(chunks), 0) AS chunks {_READABLE}),
    weights AS MATERIALIZED (
        SELECT which, CAST(ln(1 + (greatest(chunks - hits, 0) + 0.5) / (hits + 0.5)) AS DOUBLE PRECISION) AS weight
        FROM total, (SELECT which, count(*) AS hits FROM found GROUP BY which) AS counted),
    worth AS MATERIALIZED (
        SELECT pos FROM found JOIN weights USING (which)
        GROUP BY pos ORDER BY sum(weight) DESC, pos LIMIT CAST(:ranked AS BIGINT)),
    best AS MATERIALIZED (
        SELECT pos, sum(weight * ts_rank(words, term, 1)) AS score
        FROM found JOIN worth USING (pos) JOIN chunk_words USING (pos)
            JOIN weights USING (which) JOIN terms USING (which)
        GROUP BY pos ORDER BY score DESC, pos LIMIT :limit)
    SELECT documents.id, documents.title, chunks.number, chunks.place, chunks.text, best.score
    FROM best JOIN chunks ON chunks.pos = best.pos JOIN documents ON documents.id = chunks.document_id
    ORDER BY best.score DESC, best.pos
"""  # noqa: S608  # nosec B608  # no value


async def index(db: Rows) -> bool:
    """Add some chunks to the index; False when there are no more."""
    await db.lock("index of chunks")
    taken, more = await next_chunks(db)
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
    return more


async def find(db: Rows, wanted: Lookup) -> Sequence[Passage]:
    scopes = [_scope(wanted.collection, None)]
    scopes += [] if wanted.user_id is None else [_scope(wanted.collection, wanted.user_id)]
    for terms, most in await searches(db, wanted):
        found = await db.rows(
            _BEST.format(terms=db.listed(":terms")),
            {
                "scope": " | ".join(scopes),
                "terms": json.dumps(terms),
                "collection": wanted.collection,
                "user_id": wanted.user_id,
                "most": most,
                "ranked": max(RANKED_TERMS // len(terms), wanted.limit),
                "limit": wanted.limit,
            },
        )
        if found:
            return [Passage(*row) for row in found]
    return []


async def searches(db: Rows, wanted: Lookup) -> Sequence[tuple[Sequence[str], int]]:
    """What chunks may have, as PostgreSQL writes it, and how many are taken that have one of that.

    The first that finds something is the right one.
    """
    words = sorted({part.text for word in wanted.words for part in words_in(word)})
    whose = {"collection": wanted.collection, "user_id": wanted.user_id}
    [(chunks,)] = await db.rows(f"SELECT coalesce(sum(chunks), 0) {_READABLE}", whose)  # nosec B608  # no value
    if chunks < RANKED_CHUNKS:
        return [([f"'{word}'" for word in words], RANKED_CHUNKS)] if words else []
    found = await db.rows(
        _FREQUENCIES.format(terms=db.listed(":terms")), {"terms": json.dumps(words), "sample": SAMPLE, **whose}
    )
    seen = {word: count * chunks // size for word, count, size in found}
    unseen = max(chunks // SAMPLE // 2, 1)  # or a word that was just missed would be taken for the rarest
    rare, _ = rarest({word: seen.get(word, unseen) for word in words}, RANKED_CHUNKS)
    common = [f"'{word}'" for word in longest([word for word in seen if word not in rare])]
    either = [([" & ".join(common)], COMMON_CHUNKS), (common, COMMON_CHUNKS)] if common else []
    return [([f"'{word}'" for word in rare], RANKED_CHUNKS), *either] if rare else either


def _scope(collection: str, user_id: str | None) -> str:
    """A word that nobody can say. No collection's name has a space in it."""
    return word_of(collection if user_id is None else f"{collection} {user_id}")
