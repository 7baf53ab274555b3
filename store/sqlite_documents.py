"""Passages with FTS5. Every function works inside a transaction that it is given."""

from collections.abc import Sequence

from chat.documents import Lookup, Passage
from chat.embeddings import Nearness
from store.documents import next_chunks
from store.embeddings import READABLE
from store.rarity import COMMON_CHUNKS, longest, rarest
from store.rows import Rows

RANKED_CHUNKS = 5_000
"""Chunks that one search ranks: some 2 us each."""

COUNTED_CHUNKS = 50_000
"""Chunks that are counted to learn how rare a question's words are, all of them together: some 130 ns each."""


async def index(db: Rows) -> bool:
    """Add some chunks to the index; False when there are no more."""
    taken, more = await next_chunks(db)
    if not taken:
        return False
    await db.rows(
        """INSERT INTO chunks_index (rowid, text, heading, scope)
           SELECT pos, text, heading, scope FROM searched_chunks
           WHERE pos IN (SELECT pos FROM unindexed_chunks WHERE pos <= ?)""",
        (taken[-1],),
    )
    await db.rows("DELETE FROM unindexed_chunks WHERE pos <= ?", (taken[-1],))
    return more


async def find(db: Rows, wanted: Lookup) -> Sequence[Passage]:
    for expression, most in await searches(db, wanted):
        # A heading counts half as much as the text below it, and whose a chunk is nothing.
        found = await db.rows(
            """SELECT documents.id, documents.title, chunks.number, chunks.place, chunks.text, best.score
               FROM (SELECT pos, score FROM (
                            SELECT rowid AS pos, -bm25(chunks_index, 1.0, 0.5, 0.0) AS score FROM chunks_index
                            WHERE chunks_index MATCH :expression LIMIT :most)
                     ORDER BY score DESC, pos LIMIT :limit) AS best
                   JOIN chunks ON chunks.pos = best.pos JOIN documents ON documents.id = chunks.document_id
               ORDER BY best.score DESC, best.pos""",
            {"expression": expression, "most": most, "limit": wanted.limit},
        )
        if found:
            return [Passage(*row) for row in found]
    return []


async def searches(db: Rows, wanted: Lookup) -> Sequence[tuple[str, int]]:
    """Searches in FTS5's language, and how many chunks each ranks. The first that finds something is the right one."""
    scope, words = _scope(wanted), wanted.words
    if await _count(db, scope, RANKED_CHUNKS) < RANKED_CHUNKS:
        return [(f"{scope} AND {_in_text(_any(words))}", RANKED_CHUNKS)]
    most = min(COUNTED_CHUNKS // len(words), RANKED_CHUNKS)
    counts = {word: await _count(db, f"{scope} AND {_in_text(_any([word]))}", most) for word in words}
    rare, others = rarest({word: count for word, count in counts.items() if count < most}, RANKED_CHUNKS)
    if rare:
        # Each word is there as often as the others, twice, or the rare ones would count more than they should.
        ranked = f"({_any(rare)}) AND ({_any([*rare, *others, *others])})" if others else _any(rare)
        return [(f"{scope} AND {_in_text(ranked)}", RANKED_CHUNKS)]
    common = longest([word for word in words if counts[word]])
    return [(f"{scope} AND {_in_text(joined)}", COMMON_CHUNKS) for joined in (_all(common), _any(common)) if common]


async def _count(db: Rows, expression: str, most: int) -> int:
    """How many chunks match, counted up to ``most``."""
    [(count,)] = await db.rows(
        "SELECT count(*) FROM (SELECT 1 FROM chunks_index WHERE chunks_index MATCH ? LIMIT ?)", (expression, most)
    )
    return int(count)


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


def _scope(wanted: Lookup) -> str:
    """Whose chunks of which collection. No word has a quote in it."""
    collection = f"{wanted.collection.encode().hex()}x"
    scopes = [collection] if wanted.user_id is None else [collection, f"{collection}u{wanted.user_id.encode().hex()}"]
    return f"scope : ({_any(scopes)})"


def _in_text(expression: str) -> str:
    return f"{{text heading}} : ({expression})"


def _any(words: Sequence[str]) -> str:
    return " OR ".join(f'"{word}"' for word in words)


def _all(words: Sequence[str]) -> str:
    return " AND ".join(f'"{word}"' for word in words)
