"""Imports as runs: what they say, what ends them, crashes, and several processes."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from chat import importing
from chat.commands import Claim
from chat.engine import Engine
from chat.errors import ChatError, StoreUnavailableError
from chat.events import (
    Event,
    ImportDocument,
    ImportRefused,
    ImportStarted,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    Seam,
    completed,
)
from chat.imports import Refusal
from chat.intake import File, Intake
from chat.runs import Run, RunKind, RunStatus
from chat.sessions import NewSession
from store.sql import SqlStore
from tests.importing import Gated, documents, files, said, shown
from tests.patience import soon
from tests.scripted import ScriptedModel, engine_on, everything, message, opened
from tests.store import sites

DONE = completed("", "stop")

TOO_LARGE = "A document may have 100 bytes at most; this one has 101."


@pytest.fixture
def reader() -> Gated:
    return Gated()


@pytest.fixture
def intake(reader: Gated) -> Intake:
    return Intake(reader, 100, 5)


async def kept(engine: Engine) -> list[tuple[object, ...]]:
    """What is stored of imports' files."""
    assert isinstance(engine.store, SqlStore)
    return await engine.store._database.read(lambda db: db.rows("SELECT number, content, code FROM import_files"))  # type: ignore[arg-type,return-value]


# --- one process


async def test_files_become_documents_and_the_log_tells_of_each(
    file: Path, model: ScriptedModel, intake: Intake
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        run = (await engine.start(files("Tea", "x" * 101, "bad", " ", "Milk"))).run
        events = await everything(engine, run.id)
        page = await engine.store.documents("ann", "box", 100, None)
        milk, tea = page.items
        assert events == [
            ImportStarted(5, 3 + 101 + 3 + 1 + 4),
            ImportDocument("1.txt", tea.id, 1, 1, 5),
            ImportRefused("2.txt", "document_too_large", TOO_LARGE, 2, 5),
            ImportRefused("3.txt", "document_unreadable", "No.", 3, 5),
            ImportRefused("4.txt", "document_empty", "There is no text in the document.", 4, 5),
            ImportDocument("5.txt", milk.id, 1, 5, 5),
            DONE,
        ]
        ended = await engine.result(run.id)
        assert (ended.kind, ended.status, ended.user_id, ended.terminal) == (
            RunKind.IMPORT, RunStatus.COMPLETED, "ann", DONE,
        )  # fmt: skip
        assert await kept(engine) == []
    assert model.requests == []


async def test_bytes_are_dropped_as_soon_as_their_file_is_done(
    file: Path, model: ScriptedModel, reader: Gated, intake: Intake
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        run = (await engine.start(files("Tea", "bad", "wait"))).run
        await soon(reader.waiting.wait())
        await shown(engine, run.id, 3)
        assert await kept(engine) == [(1, None, None), (2, None, "document_unreadable"), (3, "d2FpdA==", None)]
        reader.gate.set()
        assert said(await everything(engine, run.id))[-2:] == ["3.txt", RunCompleted]


async def test_as_many_documents_as_a_user_may_have_are_imported(
    file: Path, model: ScriptedModel, intake: Intake
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        run = (await engine.start(files(*"abcdefg"))).run
        events = said(await everything(engine, run.id))
        assert events[5:] == ["5.txt", ("6.txt", "too_many_documents"), ("7.txt", "too_many_documents"), RunCompleted]
        assert len(await documents(engine)) == 5


async def test_cancelled_import_keeps_what_is_done_and_drops_the_rest(
    file: Path, model: ScriptedModel, reader: Gated, intake: Intake
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        run = (await engine.start(files("Tea", "wait", "Milk"))).run
        await soon(reader.waiting.wait())
        assert (await soon(engine.cancel(run.id, "requested"))).status is RunStatus.CANCELLED
        assert said(await everything(engine, run.id)) == [ImportStarted, "1.txt", RunCancelled]
        assert await documents(engine) == ["1.txt"]
        assert await kept(engine) == []


async def test_document_that_is_being_stored_when_the_import_is_cancelled_is_told_of(
    file: Path, model: ScriptedModel, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        storing, gate, store = asyncio.Event(), asyncio.Event(), engine.store.import_document

        async def slow(*arguments: object) -> object:
            storing.set()
            await gate.wait()
            return await store(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(engine.store, "import_document", slow)
        run = (await engine.start(files("Tea", "Milk"))).run
        await soon(storing.wait())
        cancelling = asyncio.create_task(engine.cancel(run.id, "requested"))
        await shown(engine, run.id, 1)
        gate.set()
        await soon(cancelling)
        assert said(await everything(engine, run.id)) == [ImportStarted, "1.txt", RunCancelled]
        assert await documents(engine) == ["1.txt"]


async def test_document_that_cannot_be_stored_when_the_import_is_cancelled_is_not_told_of(
    file: Path, model: ScriptedModel, intake: Intake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        storing, gate = asyncio.Event(), asyncio.Event()

        async def broken(*_: object) -> object:
            storing.set()
            await gate.wait()
            raise ChatError("run_taken", "It is gone.")

        monkeypatch.setattr(engine.store, "import_document", broken)
        run = (await engine.start(files("Tea"))).run
        await soon(storing.wait())
        cancelling = asyncio.create_task(engine.cancel(run.id, "requested"))
        await shown(engine, run.id, 1)
        gate.set()
        await soon(cancelling)
        assert said(await everything(engine, run.id)) == [ImportStarted, RunCancelled]
    assert "run_taken" in caplog.text


async def test_import_waits_for_a_store_that_is_out_of_reach(
    file: Path, model: ScriptedModel, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        failures, store = [StoreUnavailableError(), StoreUnavailableError()], engine.store.import_document

        async def unsure(*arguments: object) -> object:
            """It is stored, and who asked does not hear of it."""
            stored = await store(*arguments)  # type: ignore[arg-type]
            if failures:
                raise failures.pop()
            return stored

        monkeypatch.setattr(engine.store, "import_document", unsure)
        run = (await engine.start(files("Tea", "Milk"))).run
        assert said(await everything(engine, run.id)) == [ImportStarted, "1.txt", "2.txt", RunCompleted]
        assert await documents(engine) == ["1.txt", "2.txt"]


async def test_import_whose_files_are_out_of_reach_for_good_fails(
    file: Path, model: ScriptedModel, reader: Gated, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_on(file, model, intake=intake) as engine:

        async def broken(*_: object) -> object:
            raise ChatError("store_corrupt", "Damaged.")

        monkeypatch.setattr(engine.store, "import_document", broken)
        run = (await engine.start(files("Tea"))).run
        assert said(await everything(engine, run.id)) == [ImportStarted, RunFailed]


async def test_process_that_imports_nothing_says_so(file: Path, model: ScriptedModel) -> None:
    async with engine_on(file, model) as engine:
        run = (await engine.start(files("Tea"))).run
        [failed] = await everything(engine, run.id)
        assert isinstance(failed, RunFailed)
        assert failed.code == "internal"


async def test_key_stands_for_one_import(file: Path, model: ScriptedModel, intake: Intake) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        first = await engine.start(replace(files("Tea"), claim=Claim("key", "same")))
        again = await engine.start(replace(files("Tea"), claim=Claim("key", "same")))
        assert (first.run.id, first.created, again.replayed) == (again.run.id, True, True)
        with pytest.raises(ChatError, match="idempotency_conflict"):
            await engine.start(replace(files("Milk"), claim=Claim("key", "other")))
        await everything(engine, first.run.id)
        assert await documents(engine) == ["1.txt"]


# --- its session is no conversation


async def test_import_is_no_conversation(file: Path, model: ScriptedModel, reader: Gated, intake: Intake) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        run = (await engine.start(files("wait"))).run
        await soon(reader.waiting.wait())
        assert await engine.store.session(run.session_id) is None
        assert (await engine.store.sessions("ann", 10, None)).items == []
        with pytest.raises(ChatError, match="session_exists"):
            await engine.store.create_session(NewSession(run.session_id, "ann"))
        with pytest.raises(ChatError, match="not_found"):
            await engine.start(message("Hello", session=NewSession(run.session_id, "ann")))


async def test_user_who_is_deleted_takes_imports_along(
    file: Path, model: ScriptedModel, reader: Gated, intake: Intake
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        ended = (await engine.start(files("Tea"))).run
        await everything(engine, ended.id)
        going = (await engine.start(files("Milk", "wait"))).run
        await soon(reader.waiting.wait())
        assert await soon(engine.delete_user("ann"))
        assert [await engine.store.run(run.id) for run in (ended, going)] == [None, None]
        assert await documents(engine) == []
        assert await kept(engine) == []
        assert not await engine.store.knows_user("ann")


# --- several processes


async def test_import_that_was_handed_back_is_taken_up_where_it_was(
    file: Path, model: ScriptedModel, intake: Intake, reader: Gated
) -> None:
    new = files("Tea", "wait", "Milk")
    async with engine_on(file, model, intake=intake) as engine:
        run = (await engine.start(new)).run
        await soon(reader.waiting.wait())
    reader.gate.set()
    async with engine_on(file, model, intake=intake) as engine:
        assert said(await everything(engine, run.id)) == [
            ImportStarted, "1.txt", Seam, "2.txt", "3.txt", RunCompleted,
        ]  # fmt: skip
        assert await documents(engine) == ["1.txt", "2.txt", "3.txt"]
    assert reader.read == [b"Tea", b"wait", b"Milk"]


async def test_document_of_which_a_crash_left_no_word_is_told_of_and_not_imported_again(
    file: Path, model: ScriptedModel, intake: Intake, reader: Gated
) -> None:
    new = files("wait", "Milk")
    async with engine_on(file, model, intake=intake) as engine:
        run = (await engine.start(new)).run
        await soon(reader.waiting.wait())
        document = await intake.document(File("1.txt", "1.txt", "text/plain", b"Tea"), "box", "ann")
        await engine.store.import_document(run, 1, document, 0)
    async with engine_on(file, model, intake=intake) as engine:
        events = await everything(engine, run.id)
        assert said(events) == [ImportStarted, Seam, "1.txt", "2.txt", RunCompleted]
        assert await documents(engine) == ["1.txt", "2.txt"]


async def test_import_that_was_never_begun_begins(file: Path, model: ScriptedModel, intake: Intake) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        started = await engine.store.start_import(files("Tea"))
        assert started.run.epoch == 1
    async with engine_on(file, model, intake=intake) as engine:
        assert said(await everything(engine, started.run.id)) == [ImportStarted, "1.txt", RunCompleted]


async def test_import_that_gets_no_further_is_given_up(
    file: Path, model: ScriptedModel, reader: Gated, intake: Intake
) -> None:
    run, log = await left_by_a_crash(file, intake)
    for _ in range(importing.TAKEOVERS):
        async with opened(file) as dead:
            [taken] = await dead.claim()
            await dead.commit([sites.said(taken, Seam(taken.epoch), before=log)])
            log.append(Seam(taken.epoch))
    async with engine_on(file, model, intake=intake) as engine:
        events = await everything(engine, run.id)
        assert said(events) == [ImportStarted, *[Seam] * importing.TAKEOVERS, "1.txt", RunInterrupted]
        assert await documents(engine) == ["1.txt"]


async def left_by_a_crash(file: Path, intake: Intake, *log: Event) -> tuple[Run, list[Event]]:
    """An import of two files by a process that died when it had stored the first, and not said so; and its log."""
    log = log or (ImportStarted(2, 7),)
    async with opened(file) as dead:
        run = (await dead.start_import(files("Tea", "Milk"))).run
        document = await intake.document(File("1.txt", "1.txt", "text/plain", b"Tea"), "box", "ann")
        await dead.import_document(run, 1, document, 0)
        await dead.commit([sites.said(run, *log)])
    return run, list(log)


async def test_import_survives_any_number_of_processes_that_are_stopped_in_order(
    file: Path, model: ScriptedModel, reader: Gated, intake: Intake
) -> None:
    new, times = files("Tea", "wait"), importing.TAKEOVERS + 2
    for stopped in range(times):
        async with engine_on(file, model, intake=intake) as engine:
            if not stopped:
                run = (await engine.start(new)).run
            reader.waiting.clear()
            await soon(reader.waiting.wait())
            await shown(engine, run.id, 2 + stopped)
    reader.gate.set()
    async with engine_on(file, model, intake=intake) as engine:
        assert said(await everything(engine, run.id)) == [
            ImportStarted, "1.txt", *[Seam] * times, "2.txt", RunCompleted,
        ]  # fmt: skip


async def test_import_that_is_stopped_as_soon_as_it_is_taken_over_tells_of_what_is_done(
    file: Path, model: ScriptedModel, intake: Intake
) -> None:
    async with engine_on(file, model, intake=intake, lease=3600) as engine:
        first = (await engine.start(files("Milk"))).run
        await everything(engine, first.id)  # the upkeep has claimed by now, and will not again
        run, _ = await left_by_a_crash(file, intake)
        [taken] = await engine.store.claim()
        engine._runner.launch(taken)
        assert engine._runner.stop(run.id, "requested")
        events = await everything(engine, run.id)
        assert said(events) == [ImportStarted, "1.txt", RunCancelled]
        assert isinstance(events[1], ImportDocument)
        assert await engine.store.document(events[1].document) is not None


async def test_import_of_which_nothing_was_said_tells_of_what_is_done_when_it_is_stopped(
    file: Path, model: ScriptedModel, intake: Intake
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        new = files("x" * 101, "Tea")
        started = await engine._start(new)
        assert engine._runner.stop(started.run.id, "requested")
        assert said(await everything(engine, started.run.id)) == [
            ImportStarted, ("1.txt", "document_too_large"), RunCancelled,
        ]  # fmt: skip


async def test_who_has_lost_an_import_stores_nothing_of_it(
    file: Path, model: ScriptedModel, reader: Gated, intake: Intake
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        run = (await engine.start(files("wait"))).run
        await soon(reader.waiting.wait())
        document = await intake.document(File("1.txt", "1.txt", "text/plain", b"Tea"), "box", "ann")
        for theirs in (lost(run, owner=0), lost(run, epoch=2), lost(run, id="run_none")):
            with pytest.raises(ChatError, match="run_taken"):
                await engine.store.import_document(theirs, 1, document, 0)
            with pytest.raises(ChatError, match="run_taken"):
                await engine.store.import_refused(theirs, 1, Refusal("a", "b"))
        with pytest.raises(ChatError, match="run_taken"):
            await engine.store.import_content(run.id, 2)
        assert await documents(engine) == []


def lost(run: Run, **changes: object) -> Run:

    return replace(run, **changes)  # type: ignore[arg-type]
