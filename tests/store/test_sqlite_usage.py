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
from tests.store.files import opened_store
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
        assert found == [UsageSum("ses_0", 1, 3, 2, 0, 0, 0, 0, None)]
        run = await store.run(news[0].id)
    assert run is not None
    assert run.terminal == ends[0]
