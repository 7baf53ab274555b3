"""A folder's files become documents, once."""

import os
import pty
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from chat.documents import Chunk
from chat.errors import StoreNewerError, StoreUnavailableError
from chat.intake import Intake
from knowledge.folder_command import main
from store.sqlite import SqliteStore
from tests.patience import PATIENCE

SERVER = Path(__file__).parents[2] / "server.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With some files that are known, and some that are not."""
    folder = tmp_path / "handbook"
    for path, data in {
        "b.md": b"# Tea\n\nIt is free.",
        "a/hours.TXT": "Zürich opens at nine.".encode(),
        "a/page.html": b"<p>Prices",
        ".hidden.md": b"no",
        ".git/notes.md": b"no",
        "picture.png": b"no",
        "README": b"no",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "link").symlink_to(folder / "a")
    (folder / "gone.md").symlink_to(tmp_path / "nothing.md")
    return folder


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "parley.db"


def command(folder: Path, database: Path, *arguments: str) -> list[str]:
    return [
        sys.executable, str(SERVER), "import-docs", str(folder), "--database-url", f"sqlite:///{database}", *arguments
    ]  # fmt: skip


def run(folder: Path, database: Path, *arguments: str) -> tuple[int, str, list[str]]:
    """Exit status, what it said in the end, and the progress in some order."""
    ended = subprocess.run(
        command(folder, database, *arguments), capture_output=True, text=True, timeout=PATIENCE * 2, check=False
    )
    return ended.returncode, ended.stdout, sorted(line.partition(" ")[2] for line in ended.stderr.splitlines())


def documents(database: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT title, collection, user_id FROM documents ORDER BY title, pos").fetchall()


def test_folder_is_imported_and_nothing_twice(folder: Path, database: Path) -> None:
    status, summary, progress = run(folder, database)
    assert (status, summary) == (0, "3 imported, 0 refused, 0 unchanged.\n")
    assert progress == ["a/hours.TXT: 1 passage", "a/page.html: 1 passage", "b.md: 1 passage"]
    there = [(title, "handbook", None) for title in ("a/hours.TXT", "a/page.html", "b.md")]
    assert documents(database) == there
    assert run(folder, database)[:2] == (0, "0 imported, 0 refused, 3 unchanged.\n")
    assert documents(database) == there
    assert run(folder, database, "--user", "ann@example.org", "--collection", "other")[0] == 0
    assert documents(database)[1::2] == [(title, "other", "ann@example.org") for title, *_ in there]


def test_file_that_has_changed_is_imported_beside_or_instead(folder: Path, database: Path) -> None:
    run(folder, database)
    (folder / "b.md").write_text("# Milk")
    assert run(folder, database)[:2] == (0, "1 imported, 0 refused, 2 unchanged.\n")
    assert [title for title, *_ in documents(database)].count("b.md") == 2
    (folder / "b.md").write_text("# Coffee")
    replaced = "1 imported, 0 refused, 2 unchanged, 2 earlier versions deleted.\n"
    assert run(folder, database, "--replace")[:2] == (0, replaced)
    assert [title for title, *_ in documents(database)].count("b.md") == 1
    assert run(folder, database, "--replace")[:2] == (0, "0 imported, 0 refused, 3 unchanged.\n")


def test_earlier_version_that_was_left_behind_is_replaced_later(folder: Path, database: Path) -> None:
    run(folder, database)
    (folder / "b.md").write_text("# Milk")
    run(folder, database)  # as if the next line's had been cut off between the new one and the old
    left = "0 imported, 0 refused, 3 unchanged, 1 earlier versions deleted.\n"
    assert run(folder, database, "--replace")[:2] == (0, left)
    assert [title for title, *_ in documents(database)].count("b.md") == 1


def test_files_that_are_refused_are_named_and_end_nothing(folder: Path, database: Path) -> None:
    (folder / "a" / "empty.md").write_bytes(b" \n")
    (folder / "a" / "latin\x1b[31m.txt").write_bytes(b"Z\xfcrich")
    (folder / os.fsdecode(b"h\xff.txt")).write_bytes(b"a\0b")
    (folder / "large.md").write_bytes(b"x" * 10_000_001)
    status, summary, _ = run(folder, database)
    lines = summary.splitlines()
    assert (status, lines[-1]) == (1, "3 imported, 4 refused, 0 unchanged.")
    assert sorted(lines[:-1]) == [
        "refused: a/empty.md: There is no text in the document.",
        "refused: a/latin\ufffd[31m.txt: This is no text. It is not UTF-8.",
        "refused: h\ufffd.txt: There is a NUL in the document: it is no text, or in UTF-16 without a byte order mark.",
        "refused: large.md: A document may have 10,000,000 bytes at most; this one has 10,000,001.",
    ]


def test_interrupted_import_goes_on_with_what_is_left(tmp_path: Path, database: Path) -> None:
    folder, count = tmp_path / "many", 40
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:02}.md").write_text(f"Tea {number}")
    importing = subprocess.Popen(command(folder, database), stdout=-1, stderr=-1, text=True)
    assert importing.stderr is not None
    for line in importing.stderr:
        if line.startswith("3/"):
            break
    importing.send_signal(signal.SIGINT)
    summary, rest = importing.communicate(timeout=PATIENCE * 2)
    assert importing.returncode == 130
    assert "Run the same command again" in rest.splitlines()[-1]
    before = len(documents(database))
    assert 3 <= before < count
    assert int(summary.partition(" ")[0]) in (before, before - 1, before - 2)  # those that were being stored
    assert run(folder, database)[:2] == (0, f"{count - before} imported, 0 refused, {before} unchanged.\n")
    assert [title for title, *_ in documents(database)] == [f"{number:02}.md" for number in range(count)]


def test_terminal_shows_a_bar(folder: Path, database: Path) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        try:
            ended = subprocess.run(
                command(folder, database), stdout=-1, stderr=theirs, timeout=PATIENCE * 2, check=True
            )
        finally:
            os.close(theirs)
        assert ended.stdout == b"3 imported, 0 refused, 0 unchanged.\n"
        shown = screen.read(4_096)
    assert b"\r\x1b[K[####################..........] 2/3" in shown
    assert b"[##############################] 3/3" in shown


def test_folder_without_a_file_that_is_known_is_an_error(tmp_path: Path, database: Path) -> None:
    (tmp_path / "empty").mkdir()
    status, summary, said = run(tmp_path / "empty", database)
    assert (status, summary) == (1, "0 imported, 0 refused, 0 unchanged.\n")
    assert "is no file in" in said[0]


@pytest.mark.parametrize(
    ("name", "arguments", "wrong"),
    [
        ("nothing", [], "is no folder"),
        ("some notes", [], "argument --collection: name one"),
        ("notes", ["--collection", "a/b"], "argument --collection: name one"),
        ("notes", ["--user", "a b"], "argument --user"),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, arguments: list[str], wrong: str
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "some notes").mkdir()
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / name), *arguments], lambda _: pytest.fail("The settings were read."))
    assert ended.value.code == 2
    assert wrong in capsys.readouterr().err


class Whole:
    """Takes every text for one chunk."""

    media_types: Sequence[str] = ("text/plain", "text/markdown", "text/html")

    async def chunks(self, data: bytes, media_type: str) -> Sequence[Chunk]:
        return [Chunk("paragraph 1", data.decode())]


def test_no_more_are_imported_than_a_user_may_have(
    folder: Path, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder)], lambda _: (SqliteStore(database), Intake(Whole(), 100, 2))) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "2 imported, 1 refused, 0 unchanged."
    assert said[0].endswith("There are 2 documents already, and may be 2.")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(StoreUnavailableError, "cannot be used now"), (StoreNewerError, "a later version of Parley")],
)
def test_database_that_cannot_be_used_is_an_error(
    folder: Path, database: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    error: type[StoreUnavailableError], sentence: str,
) -> None:  # fmt: skip
    async def broken(*_: object) -> None:
        raise error

    for name in ("add_document", "open"):  # in the middle, and at the beginning
        monkeypatch.setattr(SqliteStore, name, broken)
        assert main([str(folder)], lambda _: (SqliteStore(database), Intake(Whole(), 100, 0))) == 1
        assert sentence in capsys.readouterr().err
