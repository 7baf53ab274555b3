"""Documents and their chunks: SQL beside the row mapping. Every function works inside a given transaction."""

from collections.abc import Sequence
from typing import Any

from chat.commands import Claim
from chat.documents import Document, KnownDocument, NewDocument
from chat.errors import ChatError
from chat.sessions import Page
from store.rows import Rows, now_ms, page_below
from store.runs import check_fingerprint, lock_key, run_of_key
from store.search import INDEX_CHARS, INDEX_MESSAGES, next_ones

_DOCUMENT = "SELECT id, user_id, collection, title, media_type, bytes, chunks, created_at, embedded"


async def add_once(db: Rows, new: NewDocument, most: int, claim: Claim | None) -> Document:
    """The new document, or that of the claim, which somebody may make at the same time."""
    if claim is None:
        return await add_document(db, new, most)
    await lock_key(db, claim)
    if (before := await find_claimed(db, claim)) is not None:
        return before
    if await run_of_key(db, claim.key) is not None:
        raise ChatError("idempotency_conflict", "An import was started with this idempotency key just now.")
    document = await add_document(db, new, most)
    await db.rows(
        "INSERT INTO document_claims (key, fingerprint, document_id, created_at) VALUES (?, ?, ?, ?)",
        (claim.key, claim.fingerprint, document.id, document.created_at),
    )
    return document


async def find_claimed(db: Rows, claim: Claim) -> Document | None:
    found = await db.rows("SELECT fingerprint, document_id FROM document_claims WHERE key = ?", (claim.key,))
    if not found:
        return None
    fingerprint, document_id = found[0]
    check_fingerprint(claim, fingerprint)
    return await find_document(db, document_id)


async def add_document(db: Rows, new: NewDocument, most: int) -> Document:
    await db.lock(f"documents of {new.user_id or ''}")
    whose = "user_id IS NULL" if new.user_id is None else "user_id = :user_id"
    [(count,)] = await db.rows(f"SELECT count(*) FROM documents WHERE {whose}", {"user_id": new.user_id})  # noqa: S608  # nosec B608  # no value
    if most and count >= most:
        raise ChatError("too_many_documents", f"There are {count:,} documents already, and may be {most:,}.")
    await db.rows(
        """INSERT INTO documents (id, user_id, collection, title, media_type, bytes, chunks, digest, created_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            new.id,
            new.user_id,
            new.collection,
            new.title,
            new.media_type,
            new.bytes,
            len(new.chunks),
            new.digest,
            now_ms(),
        ),
    )
    await db.each(
        "INSERT INTO chunks (document_id, number, place, text) VALUES (?, ?, ?, ?)",
        [(new.id, number, chunk.place, chunk.text) for number, chunk in enumerate(new.chunks, 1)],
    )
    document = await find_document(db, new.id)
    assert document is not None
    return document


async def is_behind(db: Rows) -> bool:
    """Whether there are chunks that the index of passages does not have."""
    return bool(await db.rows("SELECT 1 FROM unindexed_chunks LIMIT 1"))


async def next_chunks(db: Rows) -> tuple[Sequence[int], bool]:
    """The chunks that the index takes at once, in order, and whether there may be more."""
    waiting = await db.rows(
        "SELECT pos, length(text) FROM unindexed_chunks JOIN chunks USING (pos) ORDER BY pos LIMIT ?",
        (INDEX_MESSAGES,),
    )
    taken = next_ones(waiting, INDEX_CHARS)
    return taken, len(taken) == INDEX_MESSAGES or len(taken) < len(waiting)


async def find_document(db: Rows, document_id: str) -> Document | None:
    found = await db.rows(f"{_DOCUMENT} FROM documents WHERE id = ?", (document_id,))
    return Document(*found[0]) if found else None


async def list_documents(
    db: Rows, user_id: str | None, collection: str | None, limit: int, after: str | None
) -> Page[Document]:
    whose = "" if user_id is None else "AND (user_id = :user_id OR user_id IS NULL)"
    which = "" if collection is None else "AND collection = :collection"
    found = await db.rows(
        f"{_DOCUMENT}, pos FROM documents WHERE pos < :below {whose} {which} ORDER BY pos DESC LIMIT :limit",
        {"below": page_below(after), "user_id": user_id, "collection": collection, "limit": limit + 1},
    )
    rows: Sequence[Any] = found[:limit]
    return Page([Document(*tuple(row)[:-1]) for row in rows], str(rows[-1][-1]) if len(found) > limit else None)


async def list_known(db: Rows, user_id: str | None, collection: str) -> list[KnownDocument]:
    whose = "user_id IS NULL" if user_id is None else "user_id = :user_id"
    found = await db.rows(
        f"SELECT id, title, digest FROM documents WHERE {whose} AND collection = :collection ORDER BY pos",  # noqa: S608  # nosec B608  # no value
        {"user_id": user_id, "collection": collection},
    )
    return [KnownDocument(*row) for row in found]


async def delete_document(db: Rows, document_id: str) -> bool:
    """The foreign keys take the chunks along, and these what the index has of them."""
    return bool(await db.rows("DELETE FROM documents WHERE id = ? RETURNING id", (document_id,)))
