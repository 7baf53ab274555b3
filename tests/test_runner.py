import asyncio
import logging
from pathlib import Path

import pytest

from chat import patience, runner
from chat.commands import OnBusy
from chat.context import Context
from chat.engine import Engine
from chat.errors import StoreUnavailableError
from chat.events import (
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    Seam,
    TextDelta,
    completed,
)
from chat.policy import CrashRecovery, Policy
from chat.runs import Run, RunStatus
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel, engine_on, everything, follow, message, opened, uncounted, unsteady
from tests.store.sites import said

HI, THERE = TextDelta("Hi "), TextDelta("there")


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SETTLE_PAUSES", (0.001, 0.01))
    monkeypatch.setattr(runner, "SETTLE_WAIT", 0.05)


async def started(engine: Engine, session_id: str = "ses_1") -> Run:
    return (await engine.start(message(session_id=session_id))).run


async def shown(engine: Engine, run_id: str, count: int = 1) -> None:
    """Returns when so many events of the run are visible."""
    async with asyncio.timeout(10):
        async for batch in follow(engine, run_id, 0):
            if batch.first_seq + len(batch.events) > count:
                return


# --- it belongs to the process


async def test_run_goes_on_when_nobody_follows(engine: Engine, gate: asyncio.Event) -> None:
    run = await started(engine)
    await shown(engine, run.id)
    gate.set()
    assert await everything(engine, run.id) == [HI, THERE, completed("Hi there", "stop", None)]


async def test_every_end_is_logged_once(engine: Engine, gate: asyncio.Event, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "chat.runner"):
        run = await started(engine)
        gate.set()
        await everything(engine, run.id)
        await soon(engine.drain(1))
    [record] = [record for record in caplog.records if record.message == "run ended"]
    assert (record.__dict__["run_id"], record.__dict__["outcome"]) == (run.id, "RunCompleted")


# --- stops


async def test_stopped_run_keeps_what_it_said_and_closes_its_upstream(engine: Engine, model: ScriptedModel) -> None:
    run = await started(engine)
    await shown(engine, run.id)
    assert engine._runner.stop(run.id, "requested")
    assert engine._runner.stop(run.id, "another reason")
    assert await everything(engine, run.id) == [HI, RunCancelled("requested")]
    assert model.requests[0].closed.is_set()
    assert not engine._runner.stop("run_unknown", "requested")
    ended = await engine.run(run.id)
    assert (ended.status, (await engine.answer(ended)).content) == (RunStatus.CANCELLED, "Hi ")


async def test_run_can_be_stopped_before_it_takes_its_first_step(engine: Engine, model: ScriptedModel) -> None:
    started = await engine._start(message())
    assert engine._runner.stop(started.run.id, "requested")
    assert await everything(engine, started.run.id) == [RunCancelled("requested")]
    assert model.requests == []


async def test_run_that_is_ending_ends_as_it_was_about_to(
    engine: Engine, gate: asyncio.Event, model: ScriptedModel
) -> None:
    model.scripts = (["Hi ", gate, STOP],)
    run = await started(engine)
    await shown(engine, run.id)
    store = unsteady(engine)
    store.begun.clear()
    store.gate.clear()
    gate.set()
    await soon(store.begun.wait())
    assert engine._runner.stop(run.id, "too late")
    store.gate.set()
    assert await everything(engine, run.id) == [HI, completed("Hi ", "stop", None)]


# --- what goes wrong


async def test_generation_that_breaks_is_an_internal_failure(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with engine_on(file, ScriptedModel(["Hi ", ZeroDivisionError("my secret")])) as engine:
        run = await started(engine)
        assert await everything(engine, run.id) == [HI, RunFailed("internal", "Internal error", retryable=True)]
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (record.message, record.__dict__["run_id"]) == ("a generation broke", run.id)
    assert record.exc_info is not None


async def test_generation_that_breaks_after_a_crash_ends_too(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors = iter([RuntimeError(), StoreUnavailableError(), RuntimeError()])

    async def broken(*_: object) -> None:
        raise next(errors)

    async with opened(file) as store:
        run = (await store.start_run(message())).run
        await store.commit([said(run, HI)])
    monkeypatch.setattr(Context, "messages", broken)
    async with engine_on(file, ScriptedModel()) as engine:
        log = await soon(everything(engine, run.id))
    assert log == [HI, Seam(2), RunFailed("internal", "Internal error", retryable=True)]
    assert "what a run's end lacks could not be added" in caplog.messages


async def test_answer_that_cannot_be_stored_is_stopped_and_settled_when_the_store_is_back(
    engine: Engine, model: ScriptedModel, gate: asyncio.Event
) -> None:
    run = await started(engine)
    await shown(engine, run.id)
    store = unsteady(engine)
    store.fault = StoreUnavailableError()
    following = asyncio.create_task(everything(engine, run.id, 1))
    model.scripts = (["never asked"],)
    gate.set()
    with pytest.raises(StoreUnavailableError):
        await following  # is told at once
    await soon(model.requests[0].closed.wait())
    store.begun.clear()
    await soon(store.begun.wait())  # tried again
    assert (await engine.run(run.id)).status is RunStatus.RUNNING
    store.fault = None
    ended = await soon(settled(engine, run.id))
    assert isinstance(ended.terminal, RunFailed | RunCompleted)
    log = await everything(engine, run.id)
    assert log[0] == HI
    assert log[-1] == uncounted(ended.terminal)
    assert len(model.requests) == 1


async def settled(engine: Engine, run_id: str) -> Run:
    while True:
        try:
            return await engine.result(run_id)
        except StoreUnavailableError:
            await asyncio.sleep(0.001)


async def test_upstream_is_closed_when_its_words_cannot_be_stored_even_if_it_is_silent(file: Path) -> None:
    gate = asyncio.Event()
    model = ScriptedModel(["Hi ", gate, "there", asyncio.Event()])
    async with engine_on(file, model) as engine:
        run = await started(engine)
        await shown(engine, run.id)
        unsteady(engine).fault = StoreUnavailableError()
        gate.set()
        await soon(model.requests[0].closed.wait())
        unsteady(engine).fault = None
        ended = await soon(settled(engine, run.id))
        assert isinstance(ended.terminal, RunFailed)
        assert (ended.terminal.code, (await engine.answer(ended)).content) == ("store_unavailable", "Hi there")


async def test_run_whose_history_cannot_be_read_for_long_has_failed(
    engine: Engine, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object) -> None:
        raise StoreUnavailableError

    monkeypatch.setattr(patience, "READ_SECONDS", 0)
    monkeypatch.setattr(engine.store, "branch", gone)
    run = await started(engine)
    [end] = await everything(engine, run.id)
    assert isinstance(end, RunFailed)
    assert (end.code, end.retryable) == ("store_unavailable", True)
    assert model.requests == []


@pytest.mark.parametrize("name", ["terms", "branch"])
async def test_run_waits_for_a_store_that_is_gone_for_a_moment(
    engine: Engine, gate: asyncio.Event, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read, faults = getattr(engine.store, name), [StoreUnavailableError()] * 3

    async def gone_for_a_moment(*args: object) -> object:
        if faults:
            raise faults.pop()
        return await read(*args)

    monkeypatch.setattr(patience, "READ_PAUSE", 0.001)
    monkeypatch.setattr(engine.store, name, gone_for_a_moment)
    gate.set()
    run = await started(engine)
    assert await everything(engine, run.id) == [HI, THERE, completed("Hi there", "stop", None)]
    assert caplog.messages.count("a run waits for the store: store_unavailable") == 1


async def test_run_that_cannot_be_settled_does_not_hold_the_process(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chat.runner")
    async with engine_on(file, ScriptedModel(["Hi ", STOP])) as engine:
        unsteady(engine).fault = StoreUnavailableError()
        run = await started(engine)
        with pytest.raises(StoreUnavailableError):
            await everything(engine, run.id)
        async with asyncio.timeout(10):
            await engine.drain(0)
    assert "a run's end waits for the store: store_unavailable" in caplog.messages
    assert "run ended" not in caplog.messages
    async with engine_on(file, ScriptedModel(["Hi ", STOP])) as engine:  # the next start does it
        assert (await everything(engine, run.id))[-1] == completed("Hi ", "stop", None)


async def test_store_that_is_gone_at_the_end_is_not_waited_for(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone() -> None:
        raise StoreUnavailableError

    async with engine_on(file, ScriptedModel()) as engine:
        monkeypatch.setattr(engine.store, "hand_back", gone)
    assert "could not hand the runs back: store_unavailable" in caplog.messages


# --- the end of the process


async def test_running_answers_get_their_time_when_the_process_ends(engine: Engine, gate: asyncio.Event) -> None:
    run = await started(engine)
    await shown(engine, run.id)
    draining = asyncio.create_task(engine.drain(10))
    await asyncio.sleep(0)
    gate.set()
    await soon(draining)
    assert (await engine.run(run.id)).status is RunStatus.COMPLETED


async def test_answer_goes_on_in_another_process_where_it_was_cut(
    file: Path, engine: Engine, model: ScriptedModel
) -> None:
    run = await started(engine)
    await shown(engine, run.id)
    await soon(engine.drain(0))
    assert model.requests[0].closed.is_set()
    next_model = ScriptedModel(["there", STOP])
    async with engine_on(file, next_model) as successor:
        log = await everything(successor, run.id)
    assert log == [HI, Seam(2), THERE, completed("Hi there", "stop", None)]
    assert next_model.requests[0].request.prefix == "Hi "


async def test_last_words_are_stored_before_the_run_is_handed_back(engine: Engine, model: ScriptedModel) -> None:
    model.scripts = (["Hi ", asyncio.Event()],)
    store = unsteady(engine)
    store.gate.clear()
    run = await started(engine)
    await soon(store.begun.wait())
    draining = asyncio.create_task(engine.drain(0))
    await asyncio.wait({draining}, timeout=0.02)
    assert not draining.done()
    store.gate.set()
    await soon(draining)
    assert list((await engine.store.events(run.id, 0, 10)).events) == [HI]


async def test_answer_of_which_nothing_was_shown_begins_again_elsewhere(file: Path, engine: Engine) -> None:
    held = unsteady(engine)
    held.gate.clear()
    run = await started(engine)
    following = asyncio.create_task(everything(engine, run.id))
    await soon(held.begun.wait())
    held._owners.close()  # as if it were killed: the kernel lets go of its lock
    async with engine_on(file, ScriptedModel(["Ho", STOP])) as successor:
        assert await everything(successor, run.id) == [TextDelta("Ho"), completed("Ho", "stop", None)]
        held.gate.set()
        assert await following == []  # nothing of what was not stored


async def test_run_that_is_stopped_before_its_new_process_has_read_it_keeps_what_was_shown(file: Path) -> None:
    async with engine_on(file, ScriptedModel(), lease=3600) as engine:
        first = await started(engine)
        await everything(engine, first.id)  # the upkeep has claimed by now, and will not again
        async with opened(file) as dead:
            run = (await dead.start_run(message(session_id="ses_2"))).run
            await dead.commit([said(run, HI)])
        [taken] = await engine.store.claim()
        engine._runner.launch(taken)
        engine._runner.stop(run.id, "requested")
        assert await everything(engine, run.id) == [HI, RunCancelled("requested")]
        assert (await engine.answer(taken)).content == "Hi "


async def test_answer_is_interrupted_instead_if_that_is_the_policy(file: Path, engine: Engine) -> None:
    run = await started(engine)
    await shown(engine, run.id)
    await soon(engine.drain(0))
    model = ScriptedModel()
    async with engine_on(file, model, Policy(crash_recovery=CrashRecovery.INTERRUPT)) as successor:
        [first, last] = await everything(successor, run.id)
    assert first == HI
    assert isinstance(last, RunInterrupted)
    assert model.requests == []


# --- taken over


async def test_process_that_lost_its_run_shows_nothing_of_it_any_more(
    file: Path, engine: Engine, gate: asyncio.Event, model: ScriptedModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chat.runner")
    run = await started(engine)
    await shown(engine, run.id)
    following = asyncio.create_task(everything(engine, run.id, 1))
    unsteady(engine)._owners.close()
    async with opened(file) as other:
        [taken] = await other.claim()
        gate.set()
        assert await following == []  # goes on elsewhere: nothing more, and no end
        await soon(model.requests[0].closed.wait())
        await soon(engine.drain(0))
        assert (await other.run(run.id)) == taken
        assert list((await other.events(run.id, 0, 10)).events) == [HI]
    assert "run ended" not in caplog.messages


async def test_process_that_was_frozen_goes_on_with_its_own_run(
    engine: Engine, gate: asyncio.Event, model: ScriptedModel
) -> None:
    model.scripts = (["Hi ", gate, "never stored", STOP], ["there", STOP])
    run = await started(engine)
    await shown(engine, run.id)
    following = asyncio.create_task(everything(engine, run.id, 1))
    store = unsteady(engine)
    await store._database.write(store._owners.resign, durable=False)  # buried by another process, which then died
    [taken] = await store.claim()
    engine._runner.launch(taken)
    assert await following == []
    assert await everything(engine, run.id) == [HI, Seam(2), THERE, completed("Hi there", "stop", None)]
    await soon(model.requests[0].closed.wait())


async def test_run_that_waits_can_be_ended_without_being_begun(engine: Engine, model: ScriptedModel) -> None:
    first = await started(engine)
    await shown(engine, first.id)
    second = (await engine.start(message("More", on_busy=OnBusy.QUEUE))).run
    adopted = await engine.store.adopt(second.id)
    assert adopted is not None
    engine._runner.end(adopted, RunCancelled("requested"))
    assert await everything(engine, second.id) == [RunCancelled("requested")]
    assert len(model.requests) == 1
