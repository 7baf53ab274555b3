"""What comes back from disks: events and pages of logs, and the files that are imported."""

import asyncio
import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.errors import ChatError
from chat.events import dump, load
from chat.search import Search, words_of
from store.rows import Rows
from store.sqlite_database import Database
from store.sqlite_search import _expression
from store.transfer import FORMAT, KINDS, TransferError, exported, imported
from tests import strategies as drawn
from tests.fuzz.strategies import nearly, odd_texts, spliced, written


@given(drawn.events)
def test_an_event_is_read_as_it_was_stored(event: Any) -> None:
    assert load(*dump(event)) == event


class Files:
    """Databases that are made once: to make the tables takes longer than to fill them."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.runner.__enter__()
        self.database = Database(Path(self._folder.name) / "chat.db")
        self.runner.run(self.database.open())

    def close(self) -> None:
        self.runner.run(self.database.close())
        self.runner.__exit__(None, None, None)
        self._folder.cleanup()


@cache
def files() -> Files:
    return Files()


@pytest.fixture(scope="module", autouse=True)
def _closed_in_the_end() -> Iterator[None]:
    yield
    if files.cache_info().currsize:
        files().close()
        files.cache_clear()


class UndoneError(Exception):
    """So that the next import finds nothing."""


def _row(name: str) -> dict[str, Any]:
    return {
        column: {"text": "x", "a number of 32 bits": 1, "a number of 64 bits": 2}[kind.removesuffix(" or null")]
        for column, kind in KINDS[name].columns.items()
    }


HEADER = {"parley": {"format": FORMAT, "version": "1"}}
ALL = [HEADER, *({name: _row(name)} for name in KINDS), {"end": {"lines": len(KINDS) + 2}}]
WHOLE = b"".join(written(line) + b"\n" for line in ALL)

odd_lines = st.lists(
    st.sampled_from(ALL).flatmap(lambda line: nearly(st.just(line))).map(lambda line: written(line) + b"\n"), max_size=6
)


@settings(max_examples=80)
@given(st.one_of(odd_lines, spliced({"whole": WHOLE}).map(lambda data: data.splitlines(keepends=True)),
                 st.lists(st.binary(max_size=20).map(lambda line: line + b"\n"), max_size=3)))  # fmt: skip
def test_a_file_is_imported_or_refused(lines: list[bytes]) -> None:
    """Nothing is exported again that did not stand in it."""
    again: list[bytes] = []

    async def work(db: Rows) -> None:
        async for _ in imported(db, lines):
            pass
        again.extend([line async for _, line in exported(db, "1")])
        raise UndoneError

    database = files().database
    try:
        files().runner.run(database.write(work, durable=False))
    except (UndoneError, TransferError):
        pass
    except database.contradicted:
        return  # a key twice, as the command says it
    if again and json.loads(lines[0]) == HEADER:
        given_lines = [json.loads(line) for line in lines]
        for line in again[1:-1]:
            assert json.loads(line) in given_lines


@settings(max_examples=60)
@given(odd_texts, st.text(max_size=30))
def test_no_word_is_a_command_to_the_index(typed: str, said: str) -> None:
    """The expression goes into FTS5 as it is made: a quote that is not doubled would be its syntax."""
    try:
        words = words_of(typed)
    except ChatError as error:
        assert error.code == "invalid_request"
        return
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE VIRTUAL TABLE t USING fts5(content, owner)")
        connection.execute("INSERT INTO t VALUES (?, 'u61')", (f"{typed} {said}".replace("\0", " "),))
        sql = "SELECT owner FROM t WHERE t MATCH ?"
        assert connection.execute(sql, (_expression(Search(words, "a")),)).fetchall() == [("u61",)]
        assert connection.execute(sql, (_expression(Search(words, "b")),)).fetchall() == []  # another user's
