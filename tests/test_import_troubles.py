"""Imports that something goes wrong with: the store, its log, a single file."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from chat import importing, patience, runner
from chat.commits import Append, Committed
from chat.engine import Engine
from chat.errors import ChatError, StoreUnavailableError
from chat.events import (
    ImportStarted,
    RunCancelled,
    RunCompleted,
    Seam,
)
from chat.intake import Intake
from chat.runs import Run
from tests.importing import Gated, documents, files, said, shown
from tests.patience import PATIENCE, soon
from tests.scripted import ScriptedModel, engine_on, everything, unsteady


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SETTLE_PAUSES", (0.001, 0.01))


@pytest.fixture
def reader() -> Gated:
    return Gated()


@pytest.fixture
def intake(reader: Gated) -> Intake:
    return Intake(reader, 100, 5)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "READ_SECONDS", 0.0)


async def log_of(engine: Engine, run_id: str) -> list[object]:
    """What it says up to its end; who follows a run in trouble is sent away."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return said(await everything(engine, run_id))
            except StoreUnavailableError:
                await asyncio.sleep(0.01)


@pytest.mark.usefixtures("_impatient")
async def test_import_waits_for_its_files_as_long_as_it_takes(
    file: Path, model: ScriptedModel, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        for name in ("import_files", "import_content", "import_document", "import_refused"):
            monkeypatch.setattr(engine.store, name, failing(getattr(engine.store, name), StoreUnavailableError(), 3))
        monkeypatch.setattr(engine.store, "beat", failing(engine.store.beat, StoreUnavailableError(), 3))
        run = (await engine.start(files("Tea", "bad", "Milk"))).run
        assert await log_of(engine, run.id) == [
            ImportStarted, "1.txt", ("2.txt", "document_unreadable"), "3.txt", RunCompleted,
        ]  # fmt: skip
        assert await documents(engine) == ["1.txt", "3.txt"]


def failing(method: Any, error: Exception, times: int) -> Any:
    """The method, which fails at first."""
    left = [error] * times

    async def fails(*arguments: Any) -> Any:
        if left:
            raise left.pop()
        return await method(*arguments)

    return fails


async def in_trouble(engine: Engine, reader: Gated, *, done_anyway: bool = False) -> Run:
    """An import of three files whose first is told of, and whose second is stored and cannot be told of."""
    store = unsteady(engine)
    run = (await engine.start(files("Tea", "wait", "Milk"))).run
    await soon(reader.waiting.wait())
    await shown(engine, run.id, 2)
    store.begun.clear()
    store.fault, store.done_anyway = StoreUnavailableError(), done_anyway
    reader.gate.set()
    await soon(store.begun.wait())
    return run


@pytest.mark.parametrize("done_anyway", [False, True])
async def test_import_whose_log_cannot_be_written_goes_on_when_it_can(
    file: Path, model: ScriptedModel, reader: Gated, intake: Intake, done_anyway: bool
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        run = await in_trouble(engine, reader, done_anyway=done_anyway)
        unsteady(engine).fault = None
        assert await log_of(engine, run.id) == [ImportStarted, "1.txt", "2.txt", "3.txt", RunCompleted]
        assert await documents(engine) == ["1.txt", "2.txt", "3.txt"]


async def test_import_whose_log_cannot_be_written_for_long_goes_on_all_the_same(
    file: Path, model: ScriptedModel, reader: Gated, intake: Intake
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        run = await in_trouble(engine, reader)
        store = unsteady(engine)
        for _ in range(3):
            store.begun.clear()
            await soon(store.begun.wait())
        store.fault = None
        assert await log_of(engine, run.id) == [ImportStarted, "1.txt", "2.txt", "3.txt", RunCompleted]


async def test_import_that_waits_for_the_store_can_be_stopped(
    file: Path, model: ScriptedModel, reader: Gated, intake: Intake
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        run = await in_trouble(engine, reader)
        store = unsteady(engine)
        store.begun.clear()
        await soon(store.begun.wait())  # it has tried again
        assert engine._runner.stop(run.id, "requested")
        store.fault = None
        assert await log_of(engine, run.id) == [ImportStarted, "1.txt", "2.txt", RunCancelled]
        assert await documents(engine) == ["1.txt", "2.txt"]


async def test_import_that_waits_for_the_store_when_its_process_stops_goes_on_in_the_next(
    file: Path, model: ScriptedModel, reader: Gated, intake: Intake
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        run = await in_trouble(engine, reader)
    async with engine_on(file, model, intake=intake) as engine:
        assert await log_of(engine, run.id) == [ImportStarted, "1.txt", Seam, "2.txt", "3.txt", RunCompleted]


@pytest.mark.parametrize("error", [RuntimeError("a mistake"), ChatError("service_full", "There is no process.")])
@pytest.mark.parametrize("times", [1, 2])
async def test_file_that_nobody_can_take_apart_does_not_take_the_others_along(
    file: Path,
    model: ScriptedModel,
    reader: Gated,
    intake: Intake,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    times: int,
) -> None:
    monkeypatch.setattr(reader, "chunks", failing(reader.chunks, error, times))
    async with engine_on(file, model, intake=intake) as engine:
        run = (await engine.start(files("Tea", "Milk"))).run
        first = "1.txt" if times < importing.TRIES else ("1.txt", "internal")
        assert said(await everything(engine, run.id)) == [ImportStarted, first, "2.txt", RunCompleted]


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("error", [RuntimeError("deadlock"), StoreUnavailableError()])
@pytest.mark.parametrize("times", [1, 2])
async def test_file_that_the_store_does_not_take_does_not_take_the_others_along(
    file: Path,
    model: ScriptedModel,
    intake: Intake,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    times: int,
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        monkeypatch.setattr(engine.store, "import_document", failing(engine.store.import_document, error, times))
        run = (await engine.start(files("Tea", "Milk"))).run
        first = "1.txt" if times < importing.TRIES else ("1.txt", "internal")
        assert said(await everything(engine, run.id)) == [ImportStarted, first, "2.txt", RunCompleted]
    assert caplog.messages.count("file 1 of an import broke") == times


async def test_document_that_is_being_stored_is_waited_for_however_often_its_import_is_cancelled(
    file: Path, model: ScriptedModel, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        storing, gate, store = asyncio.Event(), asyncio.Event(), engine.store.import_document

        async def slow(*arguments: Any) -> object:
            storing.set()
            await gate.wait()
            return await store(*arguments)

        monkeypatch.setattr(engine.store, "import_document", slow)
        run = (await engine.start(files("Tea", "Milk"))).run
        await soon(storing.wait())
        job = engine._runner._jobs[run.id]
        assert engine._runner.stop(run.id, "requested")
        for _ in range(3):
            await asyncio.sleep(0)
            assert job.generating.cancel()
        await asyncio.sleep(0)
        assert not job.generating.done()
        gate.set()
        assert said(await everything(engine, run.id)) == [ImportStarted, "1.txt", RunCancelled]


@pytest.mark.parametrize("done_anyway", [False, True])
async def test_import_whose_end_cannot_be_stored_ends_once(
    file: Path, model: ScriptedModel, intake: Intake, monkeypatch: pytest.MonkeyPatch, done_anyway: bool
) -> None:
    async with engine_on(file, model, intake=intake) as engine:
        failures, commit = [StoreUnavailableError()], engine.store.commit

        async def unsure(batch: Sequence[Append]) -> Committed:
            ending = any(append.settlement is not None for append in batch)
            if not ending or not failures:
                return await commit(batch)
            if done_anyway:
                await commit(batch)
            raise failures.pop()

        monkeypatch.setattr(engine.store, "commit", unsure)
        run = (await engine.start(files("Tea"))).run
        assert await log_of(engine, run.id) == [ImportStarted, "1.txt", RunCompleted]
        assert failures == []
