"""What is deleted is in no byte of SQLite's files any more, once the upkeep has been there."""

import random
import re
import sqlite3
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from chat.commits import Append
from chat.documents import Chunk, Lookup, NewDocument
from chat.embeddings import Nearness
from chat.events import RunCancelled, TextDelta
from chat.imports import NewImport, Refusal
from chat.intake import File
from chat.search import Search
from chat.sessions import NewSession
from store import sqlite as sqlite_store
from store import sqlite_database, sqlite_search
from store.rows import Rows
from store.sqlite import SqliteStore
from tests.embedding import toward
from tests.scripted import message
from tests.store.files import opened_store
from tests.store.sites import said
from tests.store.test_store_contract_users import asks_for_a_yes, everything, gone, live, talk

CANARY = "canaryzephyr"
"""In lower case, as the index for searches has it."""

OTHERS = 120
"""Sessions that stay: so many that the index is in several pieces, and its tree has pages inside."""


def found_in(file: Path) -> dict[str, int]:
    """How often the canary is in each of the files."""
    files = [file, *(file.with_name(f"{file.name}-{end}") for end in ("wal", "shm"))]
    assert all(part.exists() for part in files)
    return {part.name: count for part in files if (count := part.read_bytes().lower().count(CANARY.encode()))}


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqliteStore]:
    """In it somebody has said the canary, among many others and in every place that there is for it."""
    async with opened_store(file) as store:
        for number in range(OTHERS):
            await talk(store, "bob", f"bobs_{number}", f"Number {number} of many words " * 20)
            if number % 10 == 0:  # each a piece of the other index
                chunk = Chunk("all of it", f"Number {number} of many words")
                await store.add_document(NewDocument(f"doc_{number}", "bob", "c", "Title", "text/plain", 9, [chunk]), 0)
                await store.sweep(3600)
            if number == OTHERS // 2:
                await live(store, "ann", f"the {CANARY} of ann, {CANARY * 40}")
                await talk(store, CANARY, CANARY, CANARY)
                await asks_for_a_yes(store, CANARY, f"{CANARY}-2", CANARY)
                await store.update_session(f"{CANARY}-2", {"title": CANARY, "metadata": {CANARY: [CANARY]}})
        for _ in range(3):
            await store.sweep(3600)
        # What is in the journal only, and what is not in the index yet.
        run = (await store.start_run(message(CANARY, session=NewSession(f"{CANARY}-3", CANARY)))).run
        await store.commit([Append(run, 1, [TextDelta(f"{CANARY} "), TextDelta("and more")])])
        assert found_in(file)
        assert (await store.search(Search([CANARY], None))).items
        yield store


async def others_are_there(store: SqliteStore) -> None:
    assert len((await store.search(Search(["many", "words"], "bob", limit=500))).items) == OTHERS * 2
    checked = await store._database.write(lambda db: db.rows("PRAGMA integrity_check"), durable=False)
    assert [tuple(row) for row in checked] == [("ok",)]
    assert len(await store.passages(Lookup(["many"], "c", "bob", limit=500))) == OTHERS // 10

    async def check(db: Rows) -> None:
        for index in ("messages_index", "chunks_index"):
            await db.rows(f"INSERT INTO {index} ({index}, rank) VALUES ('integrity-check', 1)")

    await store._database.write(check, durable=False)


async def everybody_goes(store: SqliteStore) -> None:
    await gone(store, "ann")
    await gone(store, CANARY)


async def test_deleted_users_are_in_no_byte_of_the_files(store: SqliteStore, file: Path) -> None:
    await everybody_goes(store)
    assert found_in(file)  # or there would be nothing for the sweep to do
    await store.sweep(3600)
    assert found_in(file) == {}
    await others_are_there(store)


async def test_deleted_vectors_are_in_no_byte_of_the_files(file: Path) -> None:
    vector = toward(*[1 / (number + 2) for number in range(300)])
    async with opened_store(file) as store:
        await store.want_embeddings("model")
        for user in ("ann", "bob"):
            chunks = [Chunk("all of it", "Tea") for _ in range(50)]
            new = NewDocument(f"doc_{user}", user, "c", "Title", "text/plain", 9, chunks)
            await store.add_document(new, 0)
        waiting = await store.unembedded("model", 200, 10_000, 60)
        other = toward(*range(300))
        await store.embed("model", [(chunk, vector if chunk.document == "doc_ann" else other) for chunk in waiting])
        assert any(vector in name.read_bytes() for name in file.parent.iterdir())
        await store.delete_document("doc_ann")
        for _ in range(2):
            await store.sweep(3600)
        assert not any(vector[16:] in name.read_bytes() for name in file.parent.iterdir())
        assert len(await store.nearest(Nearness(other, "model", "c", "bob", 100))) == 50


async def test_deleted_sessions_are_in_no_byte_of_the_files(store: SqliteStore, file: Path) -> None:
    for user in ("ann", CANARY):
        for session in (await store.sessions(user, 100, None, beside=True)).items:
            assert await store.delete_session(session.id, idle=0 if user == "ann" else None)
    await store.sweep(3600)
    left = await everything(store)
    assert {table for table, rows in left.items() if CANARY in repr(rows)} == {
        "records",
        "usage",
        "documents",
        "document_claims",
        "chunks",
    }
    await gone(store, "ann")
    await gone(store, CANARY)
    await store.sweep(3600)
    assert found_in(file) == {}


@pytest.mark.parametrize("refused", [False, True])
async def test_file_that_becomes_no_document_is_in_no_byte_of_the_files(file: Path, refused: bool) -> None:
    async with opened_store(file) as store:
        brought = File("a.txt", "a.txt", "text/plain", CANARY.encode())
        new = NewImport("run_1", NewSession("ses_1", "ann"), "ann", "c", [(brought, None), (brought, None)])
        run = (await store.start_import(new)).run
        stored = b64encode(CANARY.encode())  # in whole groups of three
        written = [file, file.with_name(f"{file.name}-wal")]
        assert any(stored in part.read_bytes() for part in written)
        if refused:
            for number in (1, 2):
                await store.import_refused(run, number, Refusal("document_unreadable", "No."))
        else:
            await store.commit([said(run, RunCancelled("requested"))])
        await store.sweep(3600)
        assert not any(stored in part.read_bytes() for part in written)


async def test_it_is_in_no_byte_after_a_crash_before_the_sweep(store: SqliteStore, file: Path, tmp_path: Path) -> None:
    await everybody_goes(store)
    moved = tmp_path / "moved.db"
    for end in ("", "-wal"):
        moved.with_name(f"moved.db{end}").write_bytes(file.with_name(f"chat.db{end}").read_bytes())
    async with opened_store(moved) as after:
        assert found_in(moved)
        await after.sweep(3600)
        assert found_in(moved) == {}


async def test_a_large_index_is_merged_over_many_sweeps(
    store: SqliteStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "ERASE_MERGES", 1)
    monkeypatch.setattr(sqlite_search, "MERGE_PAGES", 1)
    await everybody_goes(store)
    sweeps = 0
    while found_in(file):
        await store.sweep(3600)
        sweeps += 1
        assert sweeps < 200
    assert sweeps > 1
    await others_are_there(store)


async def test_what_is_deleted_while_it_is_merged_is_for_the_next_time(
    store: SqliteStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as slow:
        slow.setattr(sqlite_store, "ERASE_MERGES", 1)
        slow.setattr(sqlite_search, "MERGE_PAGES", 1)
        await gone(store, "ann")
        await store.sweep(3600)
        await store.sweep(3600)
    await gone(store, CANARY)
    await store.sweep(3600)
    await store.sweep(3600)
    assert found_in(file) == {}


async def test_rows_that_were_moved_leave_no_copies(file: Path) -> None:
    """Rows move when their neighbours are deleted, and what is deleted is only overwritten where it lies."""
    rng = random.Random(4)
    async with opened_store(file) as store:
        there: set[str] = set()
        for turn in range(20):
            for number in range(20):
                session = f"{CANARY}-{turn:02}-{number:02}"
                there.add(session)
                for message in range(rng.choice([1, 1, 2, 4])):
                    await talk(store, f"user_{number}", session, f"{session} " * rng.choice([1, 5, 30, 200]), message)
            for session in rng.sample(sorted(there), 12):
                there.remove(session)
                await store.delete_session(session)
        for number in range(20):
            while await store.forget_user(f"user_{number}"):
                pass
        assert copies(file) > there  # at least in the -wal file
        await store.sweep(0)
        assert copies(file) == there


def copies(file: Path) -> set[str]:
    """All sessions of whose names and words there is something."""
    data = b"".join(file.with_name(f"chat.db{end}").read_bytes() for end in ("", "-wal", "-shm"))
    return {match.decode() for match in re.findall(rb"canaryzephyr-\d\d-\d\d", data)}


async def test_a_large_file_is_not_written_anew(
    store: SqliteStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_database, "REWRITE_UP_TO", file.stat().st_size - 1)
    await everybody_goes(store)
    await store.sweep(3600)
    [(free,)] = await store._database.write(lambda db: db.rows("PRAGMA freelist_count"), durable=False)
    assert free > 0
    assert found_in(file) == {}


async def test_who_reads_for_long_holds_up_only_the_erasing(store: SqliteStore, file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchall()
        await everybody_goes(store)
        await store.sweep(3600)
        assert f"{file.name}" in found_in(file)  # what the reader may yet ask for
        await talk(store, "bob", "goes-on")
    await store.sweep(3600)
    assert found_in(file) == {}


async def test_nothing_is_erased_where_nothing_was_deleted(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> bool:
        raise AssertionError("the log is emptied for nothing")

    monkeypatch.setattr(store._database, "empty_log", fail)
    await talk(store, "ann", "another")
    await store.sweep(0)
    await store.delete_session("another")
    with pytest.raises(AssertionError, match="for nothing"):
        await store.sweep(0)
