import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from chat.events import Event, RunCancelled, TextDelta, ToolApproval, ToolCalled, ToolStarted
from chat.steps import Call
from chat.terms import Terms, ToolSpec
from store import sqlite_database
from tests.store.files import opened_store, started
from tests.store.sites import said


@pytest.mark.parametrize("sweeps", [0, 3], ids=["just asked", "put aside"])
async def test_what_waits_for_a_yes_when_the_service_is_upgraded_is_told_in_full(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweeps: int
) -> None:
    called: list[Event] = [TextDelta("{"), ToolStarted("1", "f"), ToolCalled("1", "f", '{"☃": 1}'), ToolApproval("1")]
    async with opened_store(file) as store:
        run, other = await started(store), await started(store, "ses_2")
        await store.commit([said(run, *called)])
        for _ in range(sweeps):
            await store.commit([said(other, RunCancelled("requested"))])
            other = await started(store, "ses_2")
            await store.sweep(3600)
    [migration] = sqlite_database._MIGRATIONS.glob("*_waiting_calls.sql")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("ALTER TABLE approvals DROP COLUMN name")
        connection.execute("ALTER TABLE approvals DROP COLUMN arguments")
        connection.execute(f"PRAGMA user_version = {int(migration.name[:4]) - 1}")
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(migration, only)
    monkeypatch.setattr(sqlite_database, "_MIGRATIONS", only)
    async with opened_store(file) as store:
        found = await store.run(run.id)
    assert found is not None
    assert found.waiting == (Call("1", "f", '{"☃": 1}'),)


async def test_terms_that_an_earlier_version_has_stored_are_read(file: Path) -> None:
    tools = [{"name": "look", "description": "Looks.", "parameters": {"type": "object"}}]
    async with opened_store(file) as store:
        run = await started(store)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("UPDATE runs SET terms = ?", (json.dumps({"tools": tools, "options": {"n": 1}}),))
            connection.commit()
        assert await store.terms(run.id) == Terms(None, [ToolSpec("look", "Looks.", {"type": "object"})], {"n": 1})
