"""Embeddings of chunks: SQL beside the row mapping. Every function works inside a given transaction.

``signs`` are those of a vector's numbers, see :mod:`store.nearest`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TypeAlias

from chat.documents import Passage
from chat.embeddings import Nearness, Unembedded
from chat.vectors import Vector, dimensions
from store.rows import Rows, now_ms
from store.search import next_ones

Entry: TypeAlias = tuple[Unembedded, Vector, bytes]
"""A chunk, its vector, and the signs of that."""

READABLE = "documents.collection = :collection AND (documents.user_id IS NULL OR documents.user_id = :user_id)"
"""Which documents a search looks in."""


async def want(db: Rows, model: str) -> bool:
    """Make this the model whose embeddings are made and compared; False if it has been."""
    await db.lock("embedding model")
    if await is_wanted(db, model):
        return False
    await db.rows("DELETE FROM embedding_model")
    await db.rows("INSERT INTO embedding_model VALUES (?)", (model,))
    # The vectors stay until others take their place: signs are small, and all that is compared.
    await db.rows("DELETE FROM embedding_signs")
    await db.rows("UPDATE documents SET embedded = 0 WHERE embedded > 0")
    await db.rows("DELETE FROM unembedded_chunks")
    await db.rows("INSERT INTO unembedded_chunks (pos) SELECT pos FROM chunks")
    return True


async def is_wanted(db: Rows, model: str) -> bool:
    return bool(await db.rows("SELECT 1 FROM embedding_model WHERE name = ?", (model,)))


async def is_waiting(db: Rows, model: str) -> bool:
    """Whether there is something for this model to do. Cheap."""
    found = await db.rows("SELECT 1 FROM unembedded_chunks WHERE due <= ? LIMIT 1", (now_ms(),))
    return bool(found) and await is_wanted(db, model)


async def claim(db: Rows, model: str, texts: int, chars: int, seconds: float) -> Sequence[Unembedded]:
    await db.lock("embedding model")
    if not await is_wanted(db, model):
        return []
    waiting = await db.rows(
        """SELECT unembedded_chunks.pos, length(text) FROM unembedded_chunks
               JOIN chunks ON chunks.pos = unembedded_chunks.pos
           WHERE due <= ? ORDER BY due, unembedded_chunks.pos LIMIT ?""",
        (now_ms(), texts),
    )
    taken = json.dumps(next_ones(waiting, chars))
    await db.rows(
        f"UPDATE unembedded_chunks SET due = :until WHERE pos IN ({db.numbers(':taken')})",  # noqa: S608  # nosec B608  # no value
        {"until": _in(seconds), "taken": taken},
    )
    found = await db.rows(
        f"""SELECT document_id, number, title, place, text FROM chunks
                JOIN documents ON documents.id = document_id
            WHERE chunks.pos IN ({db.numbers(":taken")}) ORDER BY chunks.pos""",  # noqa: S608  # nosec B608  # no value
        {"taken": taken},
    )
    return [Unembedded(*row) for row in found]


async def put_off(db: Rows, chunks: Iterable[Unembedded], seconds: float | None) -> None:
    due = None if seconds is None else _in(seconds)
    await db.each(
        """UPDATE unembedded_chunks SET due = ?
           WHERE pos = (SELECT pos FROM chunks WHERE document_id = ? AND number = ?)""",
        [(due, chunk.document, chunk.number) for chunk in chunks],
    )


async def keep(db: Rows, model: str, entries: Sequence[Entry]) -> None:
    """A chunk that has its embedding already, or is not there any more, is passed over."""
    await db.lock("embedding model")
    if not await is_wanted(db, model):
        return
    # In order, and a document before what is in it: so does who deletes it, and nobody waits for each other.
    for document, group in groupby(sorted(entries, key=_place), lambda entry: entry[0].document):
        if await db.rows(f"SELECT 1 FROM documents WHERE id = ? {db.shared}", (document,)):  # noqa: S608  # nosec B608  # no value
            await _keep_of(db, model, document, list(group))


async def _keep_of(db: Rows, model: str, document: str, entries: Sequence[Entry]) -> None:
    by_number = {chunk.number: (vector, signs) for chunk, vector, signs in entries}
    taken = await db.many(
        """DELETE FROM unembedded_chunks
           WHERE pos = (SELECT pos FROM chunks WHERE document_id = ? AND number = ?)
           RETURNING pos, (SELECT number FROM chunks WHERE chunks.pos = unembedded_chunks.pos)""",
        [(document, number) for number in by_number],
    )
    await db.each(
        """INSERT INTO embeddings (pos, model, dimensions, vector) VALUES (?, ?, ?, ?)
           ON CONFLICT (pos) DO UPDATE SET model = excluded.model, dimensions = excluded.dimensions,
               vector = excluded.vector""",
        [(pos, model, dimensions(by_number[number][0]), by_number[number][0]) for pos, number in taken],
    )
    await db.each(
        "INSERT INTO embedding_signs (pos, signs) VALUES (?, ?)",
        [(pos, by_number[number][1]) for pos, number in taken],
    )
    await db.rows("UPDATE documents SET embedded = embedded + ? WHERE id = ?", (len(taken), document))


async def readable(db: Rows, wanted: Nearness) -> Mapping[str | None, Mapping[str, int]]:
    """The documents that are searched, with the number of their chunks that can be found, by whose they are.

    None where another model is wanted.
    """
    if not await is_wanted(db, wanted.model):
        return {}
    found = await db.rows(
        f"SELECT user_id, id, embedded FROM documents WHERE {READABLE} AND embedded > 0",  # noqa: S608  # nosec B608  # no value
        {"collection": wanted.collection, "user_id": wanted.user_id},
    )
    whose: dict[str | None, dict[str, int]] = {}
    for user_id, document, embedded in found:
        whose.setdefault(user_id, {})[document] = embedded
    return whose


async def signs_of(db: Rows, documents: Sequence[str]) -> Sequence[tuple[str, int, bytes]]:
    """Document, position and signs of all chunks that have some, document by document."""
    found = await db.rows(
        f"""SELECT chunks.document_id, chunks.pos, signs FROM chunks
                JOIN embedding_signs ON embedding_signs.pos = chunks.pos
            WHERE chunks.document_id IN ({db.listed(":documents")}) ORDER BY chunks.document_id""",  # noqa: S608  # nosec B608  # no value
        {"documents": json.dumps(list(documents))},
    )
    return [(document, pos, signs) for document, pos, signs in found]


async def vectors_at(db: Rows, wanted: Nearness, positions: Sequence[int]) -> Sequence[tuple[int, Vector]]:
    """Those of these positions that the user may read."""
    found = await db.rows(
        f"""SELECT embeddings.pos, vector FROM embeddings
                JOIN chunks ON chunks.pos = embeddings.pos JOIN documents ON documents.id = document_id
            WHERE embeddings.pos IN ({db.numbers(":positions")}) AND model = :model AND dimensions = :dimensions
                AND {READABLE}""",  # noqa: S608  # nosec B608  # no value
        {
            "positions": json.dumps(list(positions)),
            "model": wanted.model,
            "dimensions": dimensions(wanted.vector),
            "collection": wanted.collection,
            "user_id": wanted.user_id,
        },
    )
    return [(pos, bytes(vector)) for pos, vector in found]


async def passages_at(db: Rows, scores: Mapping[int, float]) -> Sequence[Passage]:
    """The passages at these positions, the best first."""
    found = await db.rows(
        f"""SELECT chunks.pos, documents.id, title, number, place, text
            FROM chunks JOIN documents ON documents.id = document_id
            WHERE chunks.pos IN ({db.numbers(":positions")})""",  # noqa: S608  # nosec B608  # no value
        {"positions": json.dumps(list(scores))},
    )
    best = sorted(found, key=lambda row: (-scores[row[0]], row[0]))
    return [
        Passage(document, title, number, place, text, scores[pos]) for pos, document, title, number, place, text in best
    ]


def _place(entry: Entry) -> tuple[str, int]:
    return entry[0].document, entry[0].number


def _in(seconds: float) -> int:
    return now_ms() + int(seconds * 1000)
