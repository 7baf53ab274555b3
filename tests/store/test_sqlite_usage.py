import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from chat.commands import NewRun
from chat.events import Event, RunCancelled, TextDelta, Usage, completed
from chat.usage import UsageBy, UsageQuery, UsageSum
from store import sqlite_database
from tests.scripted import message
from tests.store.files import opened_database, opened_store
from tests.store.sites import said


async def test_what_was_reported_before_there_were_sums_is_in_them(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Event] = [completed("Hi", "stop", Usage(3, 2)), completed("Hi", "stop", None), RunCancelled("requested")]
    news: list[NewRun] = [message(session_id=f"ses_{number}") for number in range(len(ends))]
    async with opened_store(file) as store:
        for new, end in zip(news, ends, strict=True):
            await store.commit([said((await store.start_run(new)).run, TextDelta("Hi"), end)])
        await store.start_run(message(session_id="ses_running"))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TABLE usage")
        connection.execute("PRAGMA user_version = 2")
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(sqlite_database._MIGRATIONS / "0003_usage.sql", only)
    monkeypatch.setattr(sqlite_database, "_MIGRATIONS", only)
    async with opened_store(file) as store:
        found = (await store.usage(UsageQuery(UsageBy.SESSION, limit=10))).items
        assert found == [UsageSum("ses_0", 1, 3, 2, 0, 0, 0, 0, None, 5)]
        run = await store.run(news[0].id)
    assert run is not None
    assert run.terminal == ends[0]


async def test_what_was_used_before_it_was_by_model_is_the_runs_own_models(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations, before = sqlite_database._MIGRATIONS, tmp_path / "before"
    before.mkdir()
    for migration in sorted(migrations.glob("*.sql")):
        if migration.name.endswith("_usage_by_model.sql"):
            break
        shutil.copy(migration, before)
    monkeypatch.setattr(sqlite_database, "_MIGRATIONS", before)
    async with opened_database(file):
        pass
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("INSERT INTO usage VALUES ('run_1', 's', 'ann', 'gpt', 20778, 30, 20, 10, 5, 1, 700)")
        connection.commit()
    monkeypatch.setattr(sqlite_database, "_MIGRATIONS", migrations)
    async with opened_store(file) as store:
        found = (await store.usage(UsageQuery(UsageBy.MODEL, limit=10))).items
    assert found == [UsageSum("gpt", 1, 30, 20, 10, 5, 1, 50, 700, 0)]
