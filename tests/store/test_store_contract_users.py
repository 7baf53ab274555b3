"""What is one user's: told, deleted, and deleted by itself when nothing happens any more. For every store."""

import json
from pathlib import Path
from typing import Any

import pytest

from chat.commands import Claim, NewSideRun
from chat.commits import Append
from chat.documents import Chunk, NewDocument
from chat.events import Event, Source, TextDelta, ToolApproval, ToolCalled, ToolStarted, Usage, completed
from chat.ids import new_id
from chat.imports import NewImport
from chat.intake import File
from chat.ports import Store
from chat.records import Record
from chat.runs import Run, RunKind
from chat.search import Search
from chat.sessions import NewSession
from chat.usage import UsageBy, UsageQuery
from store import sessions, transfer, users
from store.rows import Rows
from store.sql import SqlStore
from store.transfer import imported
from tests.scripted import message
from tests.store.files import opened_database
from tests.store.sites import said


async def talk(store: Store, user: str, session: str, text: str = "Hello", number: int = 1) -> Run:
    """Somebody says something, and is answered."""
    new = message(
        text,
        session=NewSession(session, user, f"About {text}", {"label": text}),
        claim=Claim(f"{user} {session} {number}", "print"),
    )
    run = (await store.start_run(new)).run
    answer: list[Event] = [TextDelta(f"{text}, "), TextDelta("really"), Source("https://example.org", text)]
    end = completed(f"{text}, really", "stop", Usage(3, 2))
    await store.commit([said(run, *answer, end)])
    return run


async def summed(store: Store, run: Run, text: str) -> None:
    new = NewSideRun(new_id("run"), RunKind.SUMMARY, run.session_id, run.answer_id, "scripted", None)
    beside = await store.start_side_run(new)
    assert beside is not None
    await store.commit([said(beside, TextDelta(text), completed(text, "stop", None))])


async def asks_for_a_yes(store: Store, user: str, session: str, text: str) -> Run:
    run = (await store.start_run(message(text, session=NewSession(session, user)))).run
    call: list[Event] = [ToolStarted("call_1", "send"), ToolCalled("call_1", "send", json.dumps({"what": text}))]
    await store.commit([Append(run, 1, [*call, ToolApproval("call_1")])])
    return run


async def live(store: Store, user: str, text: str = "Hello") -> None:
    """All that one can leave behind."""
    run = await talk(store, user, f"{user}s", text)
    await talk(store, user, f"{user}s", text, 2)
    await summed(store, run, text)
    await asks_for_a_yes(store, user, f"{user}s-other", text)
    await store.save_record(Record(f"rec_{user}", "note", f"{user}s", user, run.id, {"text": text}, 0))
    chunks = [Chunk("paragraph 1", text), Chunk("paragraph 2", "tea")]
    assert isinstance(store, SqlStore)
    brought = File(f"{text[:30]}.txt", text[:30], "text/plain", text.encode())
    session = NewSession(f"{user}s-import", user)
    await store.start_import(NewImport(new_id("run"), session, user, "notes", [(brought, None)]))
    new = NewDocument(f"doc_{user}", user, "notes", text, "text/plain", 9, chunks)
    await store.add_document(new, 0, Claim(f"{user} {text[:9]}", text))


async def told(store: Store, user: str) -> list[tuple[str, dict[str, Any]]]:
    lines = [line async for some in store.export_user(user, "1.2.3") for line in some]
    return [(name, members) for line in lines for name, members in json.loads(line).items()]


async def everything(store: Store) -> dict[str, list[Any]]:
    """All rows of all tables, in the order of their keys."""
    assert isinstance(store, SqlStore)

    async def read(db: Rows) -> dict[str, list[Any]]:
        tables = [kind.table for kind in transfer.KINDS.values()] + ["journal"]
        return {
            table: [tuple(row) for row in await db.rows(f"SELECT * FROM {table} ORDER BY 1, 2")] for table in tables
        }

    return await store._database.read(read)


async def gone(store: Store, user: str) -> None:
    for session in (await store.sessions(user, 100, None, beside=True)).items:
        assert await store.delete_session(session.id)
    while await store.forget_user(user):
        pass


async def test_all_that_is_a_users_is_told_and_nothing_else(store: Store) -> None:
    await live(store, "bob", "Bobs words")
    await live(store, "ann", "Anns words")
    lines = await told(store, "ann")
    assert lines[0] == ("parley", {"format": transfer.FORMAT, "version": "1.2.3", "user_id": "ann"})
    assert lines[-1] == ("end", {"lines": len(lines)})
    count = {name: [kind for kind, _ in lines].count(name) for name in transfer.KINDS}
    assert count == {
        "session": 3,
        "message": 5,
        "run": 5,
        "page": 4,
        "document": 1,
        "chunk": 2,
        "document_claim": 1,
        "claim": 2,
        "approval": 1,
        "file": 1,
        "record": 1,
        "usage": 2,
    }
    text = json.dumps(lines)
    assert "bob" not in text.lower()
    assert text.count("Anns words") > 10


async def test_what_is_told_is_an_export(store: Store, tmp_path: Path) -> None:
    await live(store, "bob")
    await live(store, "ann")
    lines = [line async for some in store.export_user("ann", "1.2.3") for line in some]

    async def read(db: Rows) -> list[str]:
        return [kind async for kind in imported(db, lines)]

    async with opened_database(tmp_path / "moved.db") as database:
        assert len(await database.write(read, durable=False)) == len(lines) - 2


async def test_nobody_waits_for_who_reads_slowly(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "LINES_BYTES", 1)
    monkeypatch.setattr(transfer, "PAGE_ROWS", 2)
    for number in range(1, 6):
        await talk(store, "ann", "anns", f"word {number}", number)
    whole = [line for some in [lines async for lines in store.export_user("ann", "1")] for line in some]
    pieces = store.export_user("ann", "1")
    lines = list(await anext(pieces))
    await talk(store, "ann", "later")  # between two transactions, and the list of sessions is made in the second
    await talk(store, "bob", "bobs")
    async for some in pieces:
        assert len(some) == 1
        lines += some
    names = [next(iter(json.loads(line))) for line in lines]
    assert lines[: names.index("session", 2)] == whole[: names.index("session", 2)]
    assert names.count("message") == 12
    assert names[-1] == "end"


async def test_nobody_is_a_user_who_has_nothing(store: Store) -> None:
    await talk(store, "ann", "anns")
    assert await store.knows_user("ann")
    assert not await store.knows_user("an")
    assert not await store.forget_user("an")


async def test_only_sessions_or_records_or_usage_make_a_user_known(store: Store) -> None:
    await store.create_session(NewSession("empty", "carl"))
    assert await store.knows_user("carl")
    run = await talk(store, "ann", "anns")
    await store.delete_session("anns")
    assert await store.knows_user("ann")  # what was used
    await store.forget_user("ann")
    assert not await store.knows_user("ann")
    await store.save_record(Record("rec_1", "note", "anns", "ann", run.id, {}, 0))
    assert await store.knows_user("ann")


async def test_of_who_is_deleted_there_is_no_word_left(store: Store) -> None:
    await live(store, "bob", "Bobs words")
    before = await everything(store)
    await live(store, "ann", "Anns words")
    await store.sweep(3600)
    await store.sweep(3600)
    assert (await store.search(Search(["anns"], None))).items
    await gone(store, "ann")
    assert not await store.knows_user("ann")
    after = await everything(store)
    assert "ann" not in repr(after).lower().replace(users.NOBODY, "")
    for table, rows in before.items():
        if table in ("sessions", "messages", "claims", "approvals", "records"):
            assert after[table] == rows, table
    assert (await store.search(Search(["anns"], None))).items == []
    assert len((await store.search(Search(["bobs"], None))).items) == 5


async def test_what_was_used_stays_in_the_sums(store: Store) -> None:
    await live(store, "ann")
    await live(store, "bob")
    days = (await store.usage(UsageQuery(UsageBy.DAY, 10))).items
    await gone(store, "ann")
    assert (await store.usage(UsageQuery(UsageBy.DAY, 10))).items == days
    by_user = (await store.usage(UsageQuery(UsageBy.USER, 10))).items
    assert {(item.key, item.input_tokens) for item in by_user} == {(users.NOBODY, 6), ("bob", 6)}
    by_session = (await store.usage(UsageQuery(UsageBy.SESSION, 10))).items
    assert {item.key for item in by_session} == {users.NOBODY, "bobs"}


async def test_a_user_goes_in_small_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "FORGET_ROWS", 2)
    for number in range(5):
        await store.save_record(Record(f"rec_{number}", "note", "s", "ann", "run", {}, 0))
    steps = [await store.forget_user("ann") for _ in range(4)]
    assert steps == [True, True, True, False]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time of the sessions, in milliseconds."""
    now = [1_000_000]
    monkeypatch.setattr(sessions, "now_ms", lambda: now[0])
    monkeypatch.setattr("store.runs.now_ms", lambda: now[0])
    monkeypatch.setattr("store.journal.now_ms", lambda: now[0])
    return now


async def test_sessions_are_idle_when_nothing_has_happened_for_so_long(store: Store, clock: list[int]) -> None:
    await talk(store, "ann", "oldest")
    clock[0] += 10_000
    await store.create_session(NewSession("older", "bob"))
    clock[0] += 10_000
    await talk(store, "ann", "new")
    assert await store.idle_sessions(20, 10) == ["oldest"]
    assert await store.idle_sessions(10, 10) == ["oldest", "older"]
    assert await store.idle_sessions(10, 1) == ["oldest"]
    await store.update_session("oldest", {"title": "Not forgotten"})
    assert await store.idle_sessions(10, 10) == ["older"]


async def test_a_session_that_answers_is_not_idle_and_one_that_waits_for_a_yes_is(
    store: Store, clock: list[int]
) -> None:
    await store.start_run(message(session_id="answers"))
    await asks_for_a_yes(store, "ann", "waits", "Hello")
    clock[0] += 60_000
    assert await store.idle_sessions(60, 10) == ["waits"]


async def test_what_is_used_again_in_the_last_moment_stays(store: Store, clock: list[int]) -> None:
    await talk(store, "ann", "anns")
    clock[0] += 60_000
    assert await store.idle_sessions(60, 10) == ["anns"]
    await talk(store, "ann", "anns", number=2)
    assert not await store.delete_session("anns", idle=60)
    assert len((await store.messages("anns", 10, None)).items) == 4
    clock[0] += 60_000
    assert await store.delete_session("anns", idle=60)
    assert not await store.delete_session("anns", idle=60)


async def test_what_is_said_between_the_look_and_the_deletion_goes_too(store: Store) -> None:
    """Who deletes looks through the journal first, and holds nobody up with that."""
    assert isinstance(store, SqlStore)
    run = (await store.start_run(message(session_id="anns"))).run
    await store.commit([Append(run, 1, [TextDelta("before")])])
    known = await store._database.read(lambda db: sessions.journal_of(db, "anns"))
    await store.commit([Append(run, 2, [TextDelta("between")])])
    other = (await store.start_run(message(session_id="bobs"))).run
    await store.commit([Append(other, 1, [TextDelta("bobs")])])
    await store.commit([Append(run, 3, [TextDelta("last")])])
    assert await store._database.write(lambda db: sessions.delete_session(db, "anns", known, None), durable=False)
    rows = (await everything(store))["journal"]
    assert [row[2:] for row in rows] == [(1, "text.delta", "bobs"), (3, "text.delta", "")]
