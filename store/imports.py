"""The files of imports, and what becomes of them. Every function works inside a transaction that it is given."""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from chat.commands import Started
from chat.documents import NewDocument
from chat.errors import ChatError
from chat.imports import ImportFile, NewImport, Refusal
from chat.runs import Run, RunKind, RunStatus
from store.documents import add_document, find_claimed
from store.rows import Rows, now_ms
from store.runs import claimed, find_run, insert_claim, insert_run, lock_key
from store.sessions import insert_session

_FILE = """
    SELECT number, name, title, media_type, bytes, collection, user_id, document_id, chunks, code, message
    FROM import_files
"""


def _to_file(row: Sequence[Any]) -> ImportFile:
    *members, code, message = row
    file = ImportFile(*members)
    return file if code is None else replace(file, refusal=Refusal(code, message))


async def start_import(db: Rows, new: NewImport, owner: int) -> Started:
    await lock_key(db, new.claim)
    if new.claim is not None and (replayed := await claimed(db, new.claim)) is not None:
        return replayed
    if new.claim is not None and await find_claimed(db, new.claim) is not None:
        raise ChatError("idempotency_conflict", "A document was stored with this idempotency key just now.")
    await insert_session(db, new.session)
    await insert_run(
        db,
        {
            "id": new.id,
            "kind": RunKind.IMPORT,
            "session_id": new.session.id,
            "message_id": "",
            "answer_id": "",
            "status": RunStatus.RUNNING,
            "model": "",
            "trace": new.trace,
            "owner": owner,
            "epoch": 1,
            "now": now_ms(),
        },
    )
    await db.each(
        """INSERT INTO import_files (run_id, number, name, title, media_type, bytes, collection, user_id, content,
                                     code, message)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        [
            (
                new.id,
                number,
                file.name,
                file.title,
                file.media_type,
                len(file.data),
                new.collection,
                new.user_id,
                b64encode(file.data).decode() if refusal is None else None,
                None if refusal is None else refusal.code,
                None if refusal is None else refusal.message,
            )
            for number, (file, refusal) in enumerate(new.files, 1)
        ],
    )
    await insert_claim(db, new.claim, new.id)
    run = await find_run(db, new.id)
    assert run is not None
    return Started(run)


async def list_files(db: Rows, run_id: str) -> list[ImportFile]:
    found = await db.rows(f"{_FILE} WHERE run_id = ? ORDER BY number", (run_id,))
    return [_to_file(row) for row in found]


async def find_content(db: Rows, run_id: str, number: int) -> bytes:
    found = await db.rows(
        "SELECT content FROM import_files WHERE run_id = ? AND number = ? AND content IS NOT NULL", (run_id, number)
    )
    if not found:
        raise _taken()
    return b64decode(found[0][0])


async def store_document(db: Rows, run: Run, number: int, new: NewDocument, most: int) -> ImportFile:
    file = await _open_file(db, run, number)
    if file.done:
        return file
    document = await add_document(db, new, most)
    return await _close_file(db, run, number, (document.id, document.chunks, None, None))


async def store_refusal(db: Rows, run: Run, number: int, refusal: Refusal) -> ImportFile:
    file = await _open_file(db, run, number)
    return file if file.done else await _close_file(db, run, number, (None, 0, refusal.code, refusal.message))


async def _open_file(db: Rows, run: Run, number: int) -> ImportFile:
    """The file, of a run that this process has until the transaction ends: who takes it over, or deletes it, waits."""
    await db.lock(run.session_id)
    alive = await db.rows(f"SELECT 1 FROM owners WHERE id = ? {db.shared}", (run.owner,))  # noqa: S608  # nosec B608  # no value
    ours = "SELECT 1 FROM runs WHERE id = ? AND owner = ? AND epoch = ? AND status = 'running'"
    found = await db.rows(f"{_FILE} WHERE run_id = ? AND number = ?", (run.id, number))
    if not (alive and found and await db.rows(ours, (run.id, run.owner, run.epoch))):
        raise _taken()
    return _to_file(found[0])


async def _close_file(db: Rows, run: Run, number: int, outcome: Sequence[object]) -> ImportFile:
    await db.rows(
        """UPDATE import_files SET content = NULL, document_id = ?, chunks = ?, code = ?, message = ?
           WHERE run_id = ? AND number = ?""",
        (*outcome, run.id, number),
    )
    [row] = await db.rows(f"{_FILE} WHERE run_id = ? AND number = ?", (run.id, number))
    return _to_file(row)


async def drop_files(db: Rows, run_ids: Sequence[str]) -> None:
    """Of imports that have ended: what has become of each file is in the log."""
    await db.each("DELETE FROM import_files WHERE run_id = ?", [(run_id,) for run_id in run_ids])


def _taken() -> ChatError:
    return ChatError("run_taken", "Another process has taken this import over, or it is gone.")
