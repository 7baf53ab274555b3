"""What is SQLite's own: the index, and how it comes to be."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.errors import StoreNewerError
from chat.events import TextDelta, completed
from chat.ids import new_id
from chat.search import Search
from store import sqlite_database, sqlite_search
from store.sqlite import SqliteStore
from tests.scripted import message
from tests.store.files import opened_store
from tests.store.sites import said


async def answered(store: SqliteStore, text: str, answer: str, session_id: str) -> None:
    run = (await store.start_run(message(text, session_id))).run
    await store.commit([said(run, TextDelta(answer), completed(answer, "stop", None))])


def indexed(file: Path) -> set[str]:
    """The words that the index has, after its own check against the messages."""
    with closing(sqlite3.connect(file)) as db:
        db.execute("INSERT INTO messages_index (messages_index, rank) VALUES ('integrity-check', 1)")
        db.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, messages_index, 'col')")
        return {word for (word,) in db.execute("SELECT term FROM vocabulary WHERE col = 'content'")}


async def test_deleted_session_leaves_no_word_in_the_index(file: Path) -> None:
    async with opened_store(file) as store:
        await answered(store, "one secret", "kept well", "ses_1")
        await answered(store, "one more", "answer", "ses_2")
        assert indexed(file) == set()  # not yet
        await store.sweep(0)
        assert indexed(file) == {"one", "secret", "kept", "well", "more", "answer"}
        await store.delete_session("ses_1")
        assert indexed(file) == {"one", "more", "answer"}
        await store.delete_session("ses_2")
        assert indexed(file) == set()


async def test_changed_message_is_found_by_what_it_says_now(file: Path) -> None:
    async with opened_store(file) as store:
        await answered(store, "one", "two", "ses_1")
        await store.sweep(0)
        await answered(store, "four", "two", "ses_2")
        with closing(sqlite3.connect(file, isolation_level=None)) as db:
            db.execute("UPDATE messages SET content = 'three' WHERE content = 'two'")
        assert indexed(file) == {"one", "three"}
        assert len((await store.search(Search(["three"]))).items) == 2
        assert indexed(file) == {"one", "three", "four"}


async def test_messages_of_before_are_indexed_by_the_migration(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations = sqlite_database._MIGRATIONS
    folder = tmp_path / "migrations"
    folder.mkdir()
    shutil.copy(migrations / "0001_foundation.sql", folder)
    with closing(sqlite3.connect(file)) as db:
        db.executescript((folder / "0001_foundation.sql").read_text())
        db.execute("PRAGMA user_version=1")
        db.execute(
            """INSERT INTO sessions (id, user_id, metadata, created_at, updated_at, touched)
               VALUES ('ses_1', 'ann', '{}', 0, 0, 1)"""
        )
        db.execute(
            """INSERT INTO messages (id, session_id, role, content, status, created_at)
               VALUES ('msg_1', 'ses_1', 'user', 'said long ago', 'completed', 0)"""
        )
        db.commit()
    async with opened_store(file) as store:
        [hit] = (await store.search(Search(["long"], user_id="ann"))).items
        assert hit.message_id == "msg_1"
        session = await store.session("ses_1")
        assert session is not None
        assert (session.template, session.variables) == (None, {})
    assert indexed(file) == {"said", "long", "ago"}
    monkeypatch.setattr(sqlite_database, "_MIGRATIONS", folder)
    content = file.read_bytes()
    with pytest.raises(StoreNewerError):  # the version of before does not understand it any more
        await SqliteStore(file).open()
    assert file.read_bytes() == content


async def test_sweep_indexes_in_small_steps(sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_search, "INDEX_MESSAGES", 4)
    monkeypatch.setattr(sqlite_search, "INDEX_CHARS", 10)
    for number in range(5):
        await answered(sqlite, "tea " * number, "tea", f"ses_{number}")
    steps = []
    while await sqlite._database.write(sqlite_search.index, durable=False):
        steps.append(await sqlite._database.read(lambda db: db.rows("SELECT up_to FROM messages_indexed")))
    assert steps == [[(4,)], [(6,)], [(7,)], [(9,)]]
    assert not await sqlite._database.read(sqlite_search.behind)
    assert len((await sqlite.search(Search(["tea"]))).items) == 9


@settings(max_examples=60)
@given(st.lists(st.none() | st.integers(0, 3), max_size=14))
async def test_index_has_every_message_once_whatever_comes_and_goes(file: Path, steps: list[int | None]) -> None:
    """Positions are given out again, and the index is behind at times: neither leaves a trace."""
    async with opened_store(file) as store:
        there: list[str] = []
        for number, step in enumerate(steps):
            if step is None:
                await store.sweep(0)
            elif step < len(there):
                assert await store.delete_session(there.pop(-1 - step))
            else:
                there.append(new_id("ses"))
                await answered(store, f"tea{number}", "milk", there[-1])
        hits = (await store.search(Search(["milk"], limit=50))).items
        assert sorted(hit.session_id for hit in hits) == sorted(there)
        assert len(indexed(file)) == (len(there) + 1 if there else 0)
        for session_id in there:
            await store.delete_session(session_id)
        assert indexed(file) == set()


async def test_of_very_many_matches_the_newest_are_ranked(sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_search, "RANKED", 2)
    for number in range(3):
        await answered(sqlite, f"tea {number}", "", f"ses_{number}")
    page = await sqlite.search(Search(["tea"]))
    assert {hit.session_id for hit in page.items} == {"ses_1", "ses_2"}
