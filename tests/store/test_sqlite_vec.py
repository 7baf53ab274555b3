"""sqlite-vec, for what there is no room for in memory. Some Pythons may not load extensions: then another one does."""

import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store import nearest
from store.sqlite import SqliteStore
from tests.programs import ROOT, START
from tests.store.test_store_contract_embeddings import add, embed_all, near, texts_of

LOADS = "import sqlite3, sys; sys.exit(not hasattr(sqlite3.Connection, 'enable_load_extension'))"

loading = pytest.mark.skipif(
    not hasattr(sqlite3.Connection, "enable_load_extension"), reason="this Python loads no extensions of SQLite"
)


@pytest.fixture
async def store(file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStore]:
    monkeypatch.setattr(nearest, "KEPT_BYTES", 0)
    monkeypatch.setattr(nearest.Shelf, "nearest", None)  # nothing may be looked up in memory
    store = SqliteStore(file, near=True)
    await store.open()
    yield store
    await store.close()


@loading
async def test_database_says_which_are_near_of_what_may_be_read(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "CANDIDATES", 2)
    await add(store, "tea", "tea dog", "dog", "car rain book", user_id="ann")
    await add(store, "tea", "tea", "tea", user_id="bob")
    await add(store, "tea", "tea", collection="other")
    await embed_all(store)
    assert texts_of(await near(store, "tea", user_id="ann")) == ["tea", "tea dog"]
    assert await near(store, "tea") == []


@loading
async def test_extension_cannot_be_loaded_by_a_statement(store: SqliteStore) -> None:
    with pytest.raises(sqlite3.OperationalError, match="not authorized"):
        await store._database.read(lambda db: db.rows("SELECT load_extension('anything')"))


@pytest.mark.skipif(hasattr(sqlite3.Connection, "enable_load_extension"), reason="it is shown above")
def test_with_a_python_that_loads_extensions() -> None:
    version = f"python3.{sys.version_info.minor}"
    others = [f"/usr/bin/{version}", shutil.which(version)]
    python = next((one for one in others if one and Path(one).exists() and not _fails(one)), None)
    if python is None:
        pytest.skip(f"No {version} whose sqlite3 loads extensions: apt-get install {version}")
    done = subprocess.run(
        [python, "-m", "pytest", "-q", __file__],
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": sysconfig.get_path("purelib"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=START,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed, 1 skipped" in done.stdout


def _fails(python: str) -> bool:
    return subprocess.run([python, "-c", LOADS], check=False, timeout=START).returncode != 0


async def test_what_cannot_be_loaded_is_done_without(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "KEPT_BYTES", 0)
    monkeypatch.setattr("store.sqlite_database.find_spec", lambda _: None)
    store = SqliteStore(file, near=True)
    await store.open()
    try:
        await add(store, "tea", "dog")
        await embed_all(store)
        assert texts_of(await near(store, "dog", limit=1)) == ["dog"]
    finally:
        await store.close()
