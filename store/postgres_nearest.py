"""The chunks whose vectors may be near one, with pgvector. Every function works inside a given transaction.

Its index is over the signs, as what is kept in memory elsewhere: see :mod:`store.nearest`.
"""

import logging
from collections.abc import Sequence

from chat.embeddings import Nearness
from chat.vectors import dimensions
from store.embeddings import READABLE
from store.rows import Rows

LEAST_VERSION = (0, 8)
"""Of pgvector: from this one on an index is read until enough is found of what may be read, and not just asked once."""

INDEXED_AT_ONCE = 5_000
"""Chunks for which an index is made by the way, within a second. With more it takes minutes, and is the operator's."""

MOST_BITS = 64_000
"""That pgvector can index."""

logger = logging.getLogger(__name__)


async def index(db: Rows, bits: int) -> None:
    """Make the index for vectors of so many dimensions, where there is pgvector and not much to be indexed yet."""
    found = await db.rows("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    if not found or _version(found[0][0]) < LEAST_VERSION or bits > MOST_BITS:
        return
    await db.lock("index of signs")
    if await _is_indexed(db, bits):
        return
    statement = f"""CREATE INDEX {_name(bits)} ON embedding_signs
        USING hnsw ((CAST(signs AS BIT({bits}))) bit_hamming_ops)"""
    [(count,)] = await db.rows(
        "SELECT count(*) FROM (SELECT 1 FROM embedding_signs LIMIT ?) AS few", (INDEXED_AT_ONCE + 1,)
    )
    if count > INDEXED_AT_ONCE:
        unsampled = f"ALTER INDEX {_name(bits)} ALTER COLUMN 1 SET STATISTICS 0"
        logger.warning("pgvector has no index. Make one: %s; %s", " ".join(statement.split()), unsampled)
        return
    for (name,) in await db.rows("SELECT indexname FROM pg_indexes WHERE indexname LIKE 'embedding_signs_near_%'"):
        await db.rows(f"DROP INDEX {name}")  # of another model's dimensions
    await db.rows(statement)
    await db.rows(f"ALTER INDEX {_name(bits)} ALTER COLUMN 1 SET STATISTICS 0")  # they would outlive what is deleted


async def scan(db: Rows, wanted: Nearness, chunks: int) -> Sequence[int] | None:
    """The positions of the chunks whose signs differ least, of ``chunks`` that may be read; None without an index."""
    from store.nearest import CANDIDATES, signs  # here, because who embeds nothing needs no NumPy

    bits = dimensions(wanted.vector)
    if not await _is_indexed(db, bits):
        return None
    await db.rows(
        """SELECT set_config('hnsw.iterative_scan', 'strict_order', TRUE), set_config('hnsw.ef_search', ?, TRUE)""",
        (str(CANDIDATES),),
    )
    values = {
        "collection": wanted.collection,
        "user_id": wanted.user_id,
        "signs": signs(wanted.vector),
        "limit": CANDIDATES,
    }
    statement = f"""
        SELECT embedding_signs.pos FROM embedding_signs
            JOIN chunks ON chunks.pos = embedding_signs.pos JOIN documents ON documents.id = chunks.document_id
        WHERE {READABLE}
        ORDER BY CAST(signs AS BIT({bits})) <~> CAST(CAST(:signs AS BIT VARYING) AS BIT({bits})) LIMIT :limit"""  # noqa: S608  # nosec B608  # no value
    found = await db.rows(statement, values)
    if len(found) < min(CANDIDATES, chunks):
        # What others have is nearer, and more than the index goes through for what may be read: so all of that.
        await db.rows("SELECT set_config('enable_indexscan', 'off', TRUE)")
        found = await db.rows(statement, values)
    return [pos for (pos,) in found]


async def _is_indexed(db: Rows, bits: int) -> bool:
    [(there,)] = await db.rows("SELECT to_regclass(?) IS NOT NULL", (_name(bits),))
    return bool(there)


def _name(bits: int) -> str:
    return f"embedding_signs_near_{bits}"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])
