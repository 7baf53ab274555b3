"""Which processes live, as far as SQLite's store can tell: locks and beats."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from chat.errors import ChatError, StoreUnavailableError
from chat.events import TextDelta
from store.sqlite import SqliteStore
from tests.patience import soon
from tests.store.files import locked, opened_store, started
from tests.store.sites import said

ROOT = Path(__file__).parents[2]


def owners_of(file: Path) -> list[Path]:
    return sorted(file.parent.glob(f"{file.name}-owner_*"))


async def test_owner_is_seen_by_its_lock_file_as_long_as_it_lives(file: Path) -> None:
    async with opened_store(file):
        [first] = owners_of(file)
        async with opened_store(file):
            assert len(owners_of(file)) == 2
        assert owners_of(file) == [first]
    assert owners_of(file) == []


async def test_killed_process_loses_its_runs_at_once(file: Path, sqlite: SqliteStore) -> None:
    code = f"""
import asyncio, pathlib
from store.sqlite import SqliteStore
from tests.scripted import message
async def main():
    store = SqliteStore(pathlib.Path({str(file)!r}))
    await store.open()
    print((await store.start_run(message())).run.id, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    run_id = (await soon(process.stdout.readline())).decode().strip()
    assert list(await sqlite.claim()) == []
    process.send_signal(signal.SIGKILL)
    await soon(process.wait())
    [taken] = await sqlite.claim()
    assert (taken.id, taken.epoch) == (run_id, 2)
    assert len(owners_of(file)) == 1  # the dead one's lock file is cleared away


async def test_frozen_process_loses_its_runs_when_its_beats_stand_still(file: Path, sqlite: SqliteStore) -> None:
    run = await started(sqlite)
    async with opened_store(file, lease=0) as other:
        assert list(await other.claim()) == []  # the first sight of it
        await sqlite.beat()
        assert list(await other.claim()) == []
        await sqlite.claim()
        assert list(await other.claim()) == []
        [taken] = await other.claim()
        assert (taken.id, taken.epoch) == (run.id, 2)
        assert (await sqlite.commit([said(run, TextDelta("Hi"))])).lost == {run.id}


async def test_lease_is_not_over_before_its_time(file: Path, sqlite: SqliteStore) -> None:
    await started(sqlite)
    async with opened_store(file, lease=60) as other:
        for _ in range(5):
            assert list(await other.claim()) == []


@pytest.mark.usefixtures("impatient")
async def test_silence_does_not_count_while_nobody_can_write(file: Path, sqlite: SqliteStore) -> None:
    run = await started(sqlite)
    async with opened_store(file, lease=0) as other:
        assert list(await other.claim()) == []
        with locked(file), pytest.raises(StoreUnavailableError):
            await other.claim()
        assert list(await other.claim()) == []
        assert [taken.id for taken in await other.claim()] == [run.id]


async def test_owner_that_was_buried_comes_back_even_when_its_first_work_is_refused(
    file: Path, sqlite: SqliteStore
) -> None:
    run = await started(sqlite)
    async with opened_store(file, lease=0) as other:
        await other.claim()
        [taken] = await other.claim()
        for _ in range(2):
            with pytest.raises(ChatError, match="run_in_progress"):
                await started(sqlite)
        fresh = await started(sqlite, "ses_2")
        assert fresh.owner not in (None, run.owner, taken.owner)
        assert len(owners_of(file)) == 2


async def test_owner_whose_lock_cannot_be_made_is_no_owner(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / ("x" * 240))  # with the owner's id behind it, no name for a file
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await store.open()
        with pytest.raises(StoreUnavailableError):
            await store.check()
