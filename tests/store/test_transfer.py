"""Everything moves from one kind of database to the other, as lines that are the same in both."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.commands import Claim, NewRetry, NewSideRun, OnBusy
from chat.commits import Append
from chat.documents import Chunk, Lookup, NewDocument
from chat.events import (
    Event,
    ImportStarted,
    RunCompleted,
    TextDelta,
    ToolApproval,
    ToolCalled,
    ToolDecided,
    ToolFinished,
    ToolStarted,
    Usage,
)
from chat.records import Record
from chat.runs import Run, RunKind
from chat.search import Search
from chat.sessions import NewSession
from chat.steps import Call
from chat.terms import Terms, ToolSpec
from chat.usage import UsageBy, UsageQuery
from store import transfer
from store.journal import PAGE_EVENTS
from store.postgres_database import Database as PostgresDatabase
from store.rows import Rows
from store.sqlite_database import Database as SqliteDatabase
from store.transfer import FORMAT, KINDS, NUMBER, PAGE_ROWS, SMALL, TEXT, TransferError
from store.transfer_command import main
from tests.embedding import about
from tests.importing import INTAKE, files
from tests.postgres import emptied, opened_store, rows
from tests.scripted import message
from tests.store.files import opened_store as opened_file
from tests.store.sites import logged, said

Lines = list[bytes]


@asynccontextmanager
async def opened(place: Path | str) -> AsyncIterator[Any]:
    database = SqliteDatabase(place) if isinstance(place, Path) else PostgresDatabase(place)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def lines_of(place: Path | str) -> Lines:
    async def work(db: Rows) -> Lines:
        return [line async for _, line in transfer.exported(db, "1.2.3")]

    async with opened(place) as database:
        lines: Lines = await database.read(work)
    return lines


async def put_into(place: Path | str, lines: Iterable[bytes]) -> int:
    async def work(db: Rows) -> int:
        return len([kind async for kind in transfer.imported(db, lines)])

    async with opened(place) as database:
        count: int = await database.write(work, durable=False)
    return count


# --- the same lines


values: dict[str, st.SearchStrategy[Any]] = {
    TEXT: st.text(max_size=12) | st.sampled_from(["\0", "\uffff", "\uffff0", "\u2028\r\n", '"\\', "🌍" * 9]),
    SMALL: st.integers(0, 2**31 - 1),
    NUMBER: st.integers(-(2**63), 2**63 - 1),
}
ids = st.integers(0, 5)


@st.composite
def conversations(draw: st.DrawFn) -> Lines:
    """The lines of a database, each kind's with any values in its columns, apart from those that have to fit."""

    def row(kind: str, **fixed: object) -> dict[str, object]:
        columns = KINDS[kind].columns
        drawn = {
            name: fixed[name]
            if name in fixed
            else draw(
                values[wanted.removesuffix(" or null")] | (st.none() if wanted.endswith("null") else st.nothing())
            )
            for name, wanted in columns.items()
        }
        lines.append(json.dumps({kind: drawn}, ensure_ascii=draw(st.booleans())).encode() + b"\n")
        return drawn

    lines = [b'{"parley":{"format":%d,"version":"0.0.1"}}\n' % FORMAT]
    sessions = [f"s{n}" for n in draw(st.permutations(range(draw(ids))))]
    for session in sessions:
        row("session", id=session)
    some = st.sampled_from(sessions) if sessions else st.nothing()
    for number in range(draw(ids) if sessions else 0):
        row("message", id=f"m{number}", session_id=draw(some))
    runs = [f"r{n}" for n in draw(st.permutations(range(draw(ids) if sessions else 0)))]
    for run in runs:
        folded = draw(st.booleans())
        row("run", id=run, session_id=draw(some), status="completed", folded=int(folded), finished_at=1)
        for first in range(0 if folded else draw(ids)):
            row("page", run_id=run, first_seq=first + 1)
    for run in draw(st.lists(st.sampled_from(runs), unique=True)) if runs else ():
        row("claim", run_id=run, key=f"{run}-key")
        row("approval", run_id=run, call_id="call")
        row("file", run_id=run, number=1)
    for number in range(draw(ids)):
        row("record", id=f"rec{number}")
        row("usage", run_id=f"gone{number}", model="echo")
    documents = [f"d{n}" for n in draw(st.permutations(range(draw(ids))))]
    for document in documents:
        row("document", id=document)
    for document, number in product(documents, range(draw(ids))):
        row("chunk", document_id=document, number=number + 1)
    lines.append(b'{"end":{"lines":%d}}\n' % (len(lines) + 1))
    return lines


def meaning(lines: Lines) -> list[str]:
    """What the lines say, however it is written, in any order; but for who wrote them."""
    return sorted(json.dumps(json.loads(line)) for line in lines[1:])


@settings(max_examples=15)
@given(conversations())
def test_lines_are_the_same_from_either_database(
    tmp_path_factory: pytest.TempPathFactory, url: str, lines: Lines
) -> None:
    async def go() -> None:
        folder = tmp_path_factory.mktemp("transfer")
        assert await put_into(folder / "one.db", lines) == len(lines) - 2
        first = await lines_of(folder / "one.db")
        assert meaning(first) == meaning(lines)
        await emptied(url)
        await put_into(url, first)
        assert await lines_of(url) == first
        await put_into(folder / "two.db", first)
        assert await lines_of(folder / "two.db") == first

    asyncio.run(go())


OWN = {"sessions": {"touched"}, "runs": {"owner", "journal_from"}, "documents": {"embedded"}}
"""What every database says for itself; besides, positions."""

MADE_AGAIN = ("embedding_model", "embedding_signs", "embeddings", "unembedded_chunks")
"""Tables of what comes from a model, which is asked again."""


async def test_every_column_moves(file: Path, url: str) -> None:
    """Whoever adds a table or a column says here whether it moves, and with it which format it is."""
    async with opened(file):
        pass
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute(
            """SELECT tables.name, columns.name FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns
               WHERE tables.type = 'table' AND tables.name NOT LIKE '%s_index%' AND columns.name <> 'pos'
                   AND tables.name NOT IN ('owners', 'journal', 'keys', 'secrets', 'erasures', 'sqlite_sequence')"""
        ).fetchall()
    found = [(table, column) for table, column in found if table not in MADE_AGAIN]
    moved = {(kind.table, column) for kind in KINDS.values() for column in [*kind.columns, *OWN.get(kind.table, ())]}
    assert set(found) == moved
    there = await rows(
        url,
        """SELECT table_name::text, column_name::text FROM information_schema.columns
           WHERE table_schema = 'public' AND column_name <> 'pos'
               AND table_name NOT IN ('owners', 'journal', 'keys', 'secrets', 'parley_schema')
               AND table_name NOT IN ('message_words', 'unsearched', 'chunk_words', 'unindexed_chunks')""",
    )
    assert {(table, column) for table, column in there if table not in MADE_AGAIN} == moved


@pytest.mark.parametrize("back", [False, True])
async def test_vectors_do_not_move_and_are_made_again(file: Path, url: str, back: bool) -> None:
    source, target = (url, file) if back else (file, url)
    async with store_at(source) as store:
        await store.add_document(NewDocument("doc_1", None, "c", "T", "text/plain", 1, [Chunk("p", "tea")]), 0)
        await store.want_embeddings("model")
        chunks = await store.unembedded("model", 9, 99, 9)
        await store.embed("model", [(chunk, about("tea")) for chunk in chunks])
        assert (await store.document("doc_1")).embedded == 1
    await put_into(target, await lines_of(source))
    async with store_at(target) as store:
        assert (await store.document("doc_1")).embedded == 0
        await store.want_embeddings("model")
        assert await store.unembedded("model", 9, 99, 9) == chunks


# --- conversations


async def talk(store: Any) -> Run:
    """A conversation with one of everything. The run that waits for somebody's yes is still going."""
    session = NewSession(
        "ses_1", "ann", "Tea", {"colour": "red"}, template="brief", variables={"tone": "dry"}, collection="handbook"
    )
    await store.create_session(session)
    done = (await store.start_run(message("Héllo \0 there", claim=Claim("key", "print")))).run
    usage = Usage(7, 3, "reported", 2, 1)
    await store.commit([said(done, TextDelta("Hi "), TextDelta("\uffff"), RunCompleted("stop", 2, "00", usage))])
    terms = Terms("Be brief.", [ToolSpec("weather", "", {})], {"temperature": 0.5})
    summary = await store.start_side_run(NewSideRun("run_s", RunKind.SUMMARY, "ses_1", done.answer_id, "echo", None))
    assert summary is not None
    await store.commit([said(summary, TextDelta("They met."), RunCompleted("stop", 1, "00"))])
    waiting: Run = (await store.start_run(message("And tea?", terms=terms, claim=Claim("other", "print")))).run
    await store.start_run(message("Later.", on_busy=OnBusy.QUEUE))
    call: list[Event] = [ToolStarted("c1", "order"), ToolCalled("c1", "order", '{"n": 1}'), ToolApproval("c1")]
    await store.commit([Append(waiting, 1, [TextDelta("Of course. "), *call], durable=True)])
    await store.save_record(Record("rec_1", "order", "ses_1", "ann", done.id, {"n": 1}, 0))
    for user_id in ("ann", None):
        chunks = [Chunk("Drinks, paragraph 1", "Tea is at four."), Chunk("Drinks, paragraph 2", "Or at five.")]
        new = NewDocument(f"doc_{user_id}", user_id, "handbook", "Handbook", "text/plain", 26, chunks)
        await store.add_document(new, 0, Claim(f"document of {user_id}", "print"))
    return waiting


@asynccontextmanager
async def store_at(place: Path | str) -> AsyncIterator[Any]:
    opening = opened_file(place) if isinstance(place, Path) else opened_store(place)
    async with opening as store:
        yield store


async def seen(store: Any, run_ids: list[str]) -> list[object]:
    """What clients can see."""
    page = await store.messages("ses_1", 100, None)
    return [
        await store.session("ses_1") and (await store.sessions("ann", 10, None)).items[0].metadata,
        page.items,
        [await store.terms(run_id) for run_id in run_ids],
        [await logged(store, run_id, after) for run_id in run_ids for after in (0, 1)],
        (await store.records(None, None, None, 10, None)).items,
        (await store.usage(UsageQuery(UsageBy.MODEL, limit=10))).items,
        await store.summary(str(page.items[-1].id)),
        [await store.run_of_key(key) for key in ("key", "other")],
        (await store.documents(None, None, 10, None)).items,
    ]


@pytest.mark.parametrize("back", [False, True], ids=["to_postgres", "to_sqlite"])
async def test_conversation_goes_on_in_the_other_database(file: Path, url: str, back: bool) -> None:
    here, there = (url, file) if back else (file, url)
    async with store_at(here) as store:
        waiting = await talk(store)
        runs = [str(await store.run_of_key("key")), waiting.id]
        before = await seen(store, runs)
        lines = await lines_of(here)  # while the store is open
    await put_into(there, lines)
    assert await lines_of(there) == lines
    async with store_at(there) as store:
        assert await seen(store, runs) == before
        [taken] = await store.claim()
        assert (taken.id, taken.epoch) == (waiting.id, waiting.epoch + 1)
        assert taken.waiting == (Call("c1", "order", '{"n": 1}'),)
        await store.decide(waiting.id, "c1", approved=True)
        log = await logged(store, waiting.id)
        more: list[Event] = [ToolDecided("c1", approved=True), ToolFinished("c1", "done"), TextDelta("It comes.")]
        end = RunCompleted("stop", 1, "00")
        assert not (await store.commit([said(taken, *more, end, before=log)])).lost
        assert await logged(store, waiting.id) == [*log, *more, end]
        [queued] = await store.claim()
        assert queued.message_id in {found.id for found in (await store.messages("ses_1", 100, None)).items}
        found = (await store.search(Search(["hello"], "ann", None, 10))).items
        assert [hit.role for hit in found] == ["user"]
        passages = await store.passages(Lookup(["four"], "handbook", "ann", 10))
        assert {(passage.document, passage.number) for passage in passages} == {("doc_ann", 1), ("doc_None", 1)}
        again = await store.start_run(message("Héllo \0 there", claim=Claim("key", "print")))
        assert (again.replayed, again.run.id) == (True, runs[0])
        await store.retry_run(NewRetry("run_r", runs[0], "echo", on_busy=OnBusy.QUEUE))


@pytest.mark.parametrize("back", [False, True], ids=["to_postgres", "to_sqlite"])
async def test_import_goes_on_in_the_other_database(file: Path, url: str, back: bool) -> None:
    here, there = (url, file) if back else (file, url)
    async with store_at(here) as store:
        run = (await store.start_import(files("Tea", "x" * 101, "Milk\uffff"))).run
        await store.commit([Append(run, 1, [ImportStarted(3, 200)])])
        await store.import_document(run, 1, await INTAKE.document(*files("Tea").files[0][:1], "box", "ann"), 0)
        left = await store.import_files(run.id)
        lines = await lines_of(here)
    await put_into(there, lines)
    assert await lines_of(there) == lines
    async with store_at(there) as store:
        assert await store.import_files(run.id) == left
        assert [one.done for one in left] == [True, True, False]
        assert await store.import_content(run.id, 3) == "Milk\uffff".encode()
        [taken] = await store.claim()
        assert (taken.id, taken.kind, taken.user_id) == (run.id, RunKind.IMPORT, "ann")
        assert await logged(store, run.id) == [ImportStarted(3, 200)]


async def test_what_was_said_since_the_last_page_moves_too(file: Path, url: str) -> None:
    """Of a run that waits the upkeep has made pages; what came behind them is in the journal."""
    async with opened_file(file) as store:
        waiting = await talk(store)
        await store.sweep(1000)
        log = await logged(store, waiting.id)
        behind = [TextDelta(f"{n} ") for n in range(PAGE_EVENTS + 1)]
        await store.commit([Append(waiting, len(log) + 1, behind)])
        lines = await lines_of(file)
    await put_into(url, lines)
    async with opened_store(url) as store:
        assert await logged(store, waiting.id, limit=1000) == [*log, *behind]
    assert await lines_of(url) == lines


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_export_is_of_one_moment(file: Path, url: str, kind: str) -> None:
    """What others commit meanwhile is not in it, and they do not wait."""
    place = file if kind == "sqlite" else url
    await put_into(place, ended(a_session(), a_session(id="s0")).splitlines(keepends=True))
    rename = "UPDATE sessions SET user_id = 'bob' WHERE id = 's0'"

    async def work(db: Rows) -> list[object]:
        users: list[object] = []
        async for name, line in transfer.exported(db, "1.2.3"):
            if name == "session":
                users.append(json.loads(line)["session"]["user_id"])
            elif name == "parley" and kind == "sqlite":
                await db.rows("SELECT 1 FROM sessions")
                with closing(sqlite3.connect(file)) as connection, connection:
                    connection.execute(rename)
            elif name == "parley":
                await db.rows("SELECT 1 FROM sessions")
                await rows(url, rename)
        return users

    async with opened(place) as database:
        assert await database.read(work) == ["ann", "ann"]
    assert b'"bob"' in b"".join(await lines_of(place))


async def test_more_rows_than_are_read_at_once(file: Path, url: str) -> None:
    async with opened_file(file) as store:
        for number in range(PAGE_ROWS * 2 + 1):
            await store.create_session(NewSession(f"ses_{number}", "ann"))
    lines = await lines_of(file)
    await put_into(url, lines)
    async with opened_store(url) as store:
        listed = (await store.sessions("ann", 1000, None)).items
        assert [session.id for session in listed] == [f"ses_{n}" for n in reversed(range(PAGE_ROWS * 2 + 1))]


# --- what is wrong with a file


HEADER = b'{"parley":{"format":1,"version":"1.2.3"}}\n'
SESSION = {
    "id": "s1", "user_id": "ann", "title": None, "metadata": "{}", "template": None, "variables": None,
    "leaf_id": None, "message_count": 0, "created_at": 1, "updated_at": 1,
}  # fmt: skip


def a_session(**other: object) -> bytes:
    return json.dumps({"session": SESSION | other}).encode() + b"\n"


def ended(*lines: bytes) -> bytes:
    return b"".join([HEADER, *lines, b'{"end":{"lines":%d}}\n' % (len(lines) + 2)])


WRONG = {
    "empty": (b"", "The file is empty."),
    "other": (b"\x89PNG\n\x1a\n", "This is no export of Parley."),
    "other JSON": (b'{"id": 1}\n', "This is no export of Parley."),
    "deep": (b"[" * 100_000 + b"\n", "This is no export of Parley."),
    "list": (b"[1]\n", "This is no export of Parley."),
    "no number": (b'{"parley":{"format":"x"}}\n', "This is no export of Parley."),
    "newer": (
        b'{"parley":{"format":%d,"version":"9.0"}}\n' % (FORMAT + 1),
        f"by a later version of Parley, 9.0, in format {FORMAT + 1}. This one reads formats up to {FORMAT}: import it",
    ),
    "only a header": (HEADER, "The file is cut off in or behind line 1."),
    "cut off behind a line": (HEADER + a_session(), "cut off in or behind line 2."),
    "cut off in a line": (HEADER + a_session()[:-9], "cut off in or behind line 2."),
    "cut off before the last newline": (ended(a_session())[:-1], "cut off in or behind line 3."),
    "line gone": (ended(a_session(), b"")[:], "Lines are missing: there are 3, and were 4."),
    "goes on": (ended() + a_session(), "Line 3 stands behind the end."),
    "no JSON": (ended(b"{\n"), "Line 2 is no object with a member that is one."),
    "no object": (ended(b'{"session":1}\n'), "Line 2 is no object with a member that is one."),
    "unknown kind": (ended(b'{"sessions":{}}\n'), "Line 2: there is no kind named sessions."),
    "unknown member": (ended(a_session(colour="red")), "of a session these members are missing or unknown: colour."),
    "half a character": (ended(a_session(title="\ud800")), "Line 2: title of this session has to be text or null."),
    "no text": (ended(a_session(id=None)), "Line 2: id of this session has to be text."),
    "too large": (ended(a_session(message_count=2**31)), "message_count of this session has to be a number of 32"),
    "no number either": (ended(a_session(created_at=True)), "created_at of this session has to be a number of 64"),
    "twice": (ended(a_session(), a_session()), "Lines of the file contradict each other"),
}  # fmt: skip


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs a command on a database, and returns its exit status and what it said."""
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the tests' own process

    def run(name: str, file: Path, place: Path | str) -> tuple[int, str]:
        status = main([name, str(file)], lambda _: place, "1.2.3")
        return status, capsys.readouterr().err

    return run


Command = Callable[[str, Path, "Path | str"], tuple[int, str]]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_wrong_file_is_refused_and_leaves_nothing(
    command: Command, tmp_path: Path, file: Path, request: pytest.FixtureRequest, wrong: str, kind: str
) -> None:
    place: Path | str = file if kind == "sqlite" else request.getfixturevalue("url")
    empty = asyncio.run(lines_of(place))
    content, sentence = WRONG[wrong]
    (tmp_path / "export").write_bytes(content)
    status, told = command("import", tmp_path / "export", place)
    assert status == 1
    assert told.startswith("Nothing was imported: ")
    assert sentence in told
    assert asyncio.run(lines_of(place)) == empty


def test_database_with_something_in_it_is_left_as_it_is(command: Command, tmp_path: Path, file: Path) -> None:
    (tmp_path / "export").write_bytes(ended(a_session()))
    assert command("import", tmp_path / "export", file)[0] == 0
    (tmp_path / "export").write_bytes(ended(a_session(id="s2")))
    status, told = command("import", tmp_path / "export", file)
    assert (status, told) == (
        1,
        "Nothing was imported: There is something in the database already. Import into an empty one.\n",
    )
    assert len(asyncio.run(lines_of(file))) == 3


# --- what earlier versions wrote

MESSAGE = {
    "id": "m1", "session_id": "s1", "parent_id": None, "role": "user", "content": "Hello", "steps": None,
    "status": "completed", "run_id": None, "created_at": 1,
}  # fmt: skip


async def test_message_of_before_there_were_sources_is_read(file: Path) -> None:
    message = json.dumps({"message": MESSAGE}).encode() + b"\n"
    await put_into(file, ended(a_session(), message).splitlines(keepends=True))
    [line] = [json.loads(line)["message"] for line in await lines_of(file) if line.startswith(b'{"message"')]
    assert line == MESSAGE | {"sources": None}


async def test_message_of_today_has_to_say_that_it_has_no_sources(file: Path) -> None:
    message = json.dumps({"message": MESSAGE}).encode() + b"\n"
    lines = ended(a_session(), message).replace(b'"format":1', b'"format":2').splitlines(keepends=True)
    with pytest.raises(TransferError, match="members are missing or unknown: sources"):
        await put_into(file, lines)


# --- the commands


def test_commands_say_what_they_did(command: Command, tmp_path: Path, file: Path, url: str) -> None:
    async def fill() -> None:
        async with opened_file(file) as store:
            await talk(store)

    asyncio.run(fill())
    export, again = tmp_path / "export", tmp_path / "again"
    told = (
        "1 session, 4 messages, 4 runs, 3 pages, 2 claims, 1 approval, 0 files, 1 record, 2 documents, 4 chunks, "
        "2 document claims, 1 usage.\n"
    )
    assert command("export", export, file) == (0, f"Exported to {export}: {told}")
    assert export.stat().st_mode & 0o777 == 0o600
    status, said_ = command("import", export, url)
    assert status == 0
    assert said_.startswith(f"Imported from {export}: {told}Making the index for searches.")
    assert asyncio.run(rows(url, "SELECT count(*) FROM unsearched")) == [(0,)]
    command("export", again, url)
    assert again.read_bytes() == export.read_bytes()


def test_file_that_is_there_is_not_replaced(command: Command, tmp_path: Path, file: Path) -> None:
    export = tmp_path / "export"
    export.write_text("mine")
    asyncio.run(put_into(file, ended().splitlines(keepends=True)))
    assert command("export", export, file) == (1, f"Nothing was exported: File exists: {export}.\n")
    assert export.read_text() == "mine"


def test_nothing_is_made_where_nothing_is(command: Command, tmp_path: Path, file: Path) -> None:
    assert command("export", tmp_path / "export", file) == (
        1,
        f"Nothing was exported: There is no database at {file}.\n",
    )
    assert list(tmp_path.iterdir()) == []
    status, told = command("import", tmp_path / "export", file)
    assert (status, told) == (1, f"Nothing was imported: No such file or directory: {tmp_path / 'export'}.\n")


def test_half_an_export_does_not_stay(command: Command, tmp_path: Path, file: Path) -> None:
    file.write_bytes(b"no database" * 100)
    status, told = command("export", tmp_path / "export", file)
    assert status == 1
    assert told.endswith("Nothing was exported: The database is damaged.\n")
    assert not (tmp_path / "export").exists()


def test_database_that_is_not_there_is_said(command: Command, tmp_path: Path) -> None:
    status, told = command("export", tmp_path / "export", "postgresql://127.0.0.1:9/parley")
    assert status == 1
    assert told.endswith("Nothing was exported: The database cannot be used now.\n")


def test_database_of_a_later_version_is_left_alone(command: Command, tmp_path: Path, file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 999")
    status, told = command("export", tmp_path / "export", file)
    assert (status, told) == (
        1,
        "Nothing was exported: The database belongs to a later version of Parley. Use that one.\n",
    )


async def test_import_stops_at_the_first_wrong_line(file: Path) -> None:
    def lines() -> Iterable[bytes]:
        yield HEADER
        yield b"{}\n"
        pytest.fail("read on")

    with pytest.raises(TransferError, match="Line 2"):
        await put_into(file, lines())
