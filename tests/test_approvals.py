"""Calls that wait for somebody's yes."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from chat.approvals import Approvals
from chat.engine import Engine
from chat.errors import ChatError, StoreUnavailableError
from chat.events import (
    Event,
    RunCancelled,
    RunFailed,
    Seam,
    TextDelta,
    ToolApproval,
    ToolCalled,
    ToolDecided,
    ToolDelta,
    ToolFinished,
    ToolStarted,
)
from chat.functions import tool_of
from chat.generation import DENIED, Generation
from chat.journal import Journal
from chat.live import LiveRun
from chat.policy import CrashRecovery, Policy
from chat.ports import Part
from chat.runs import Run, RunStatus
from chat.terms import Terms, ToolSpec
from chat.tools import Toolbox
from tests.ledger import running
from tests.patience import PATIENCE, soon
from tests.scripted import STOP, ScriptedModel, UnsteadyStore, engine_on, follow, message, opened, uncounted, unsteady
from tests.shop import CALLS, Shop, crashed, log_of, order, ordered, started
from tests.store.sites import logged


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def careful(shop: Shop) -> Toolbox:
    """A shop that asks before it orders, and not before it takes a note."""
    return Toolbox([tool_of(shop.order, approval=True), tool_of(shop.note)])


async def until(engine: Engine, run: Run, event: Event) -> list[Event]:
    """What the log says up to this event, when it is there."""
    seen: list[Event] = []
    async with asyncio.timeout(PATIENCE), aclosing(follow(engine, run.id, 0)) as batches:
        async for batch in batches:
            seen += batch.events
            if event in seen:
                return seen
    raise AssertionError(seen)


@pytest.mark.parametrize("approved", [True, False])
async def test_call_waits_for_a_yes(file: Path, shop: Shop, careful: Toolbox, *, approved: bool) -> None:
    model = ScriptedModel([[*order("bread"), CALLS]], ["Done.", STOP])
    async with engine_on(file, model, Policy(run_seconds=0.3), tools=careful) as engine:
        run = await started(engine)
        seen = await until(engine, run, ToolApproval("call_1"))
        assert seen == [*ordered("bread"), ToolApproval("call_1")]
        await asyncio.sleep(0.4)  # longer than a run may take: people take their time
        assert shop.calls == []
        await engine.approve(run.id, "call_1", approved=approved)
        log = await log_of(engine, run)
        answer = ToolFinished("call_1", "bread is on its way") if approved else ToolFinished("call_1", error=DENIED)
        assert log[4:-1] == [ToolDecided("call_1", approved), answer, TextDelta("Done.")]
        assert shop.calls == (["bread"] if approved else [])
        await engine_refuses(engine, run.id, "call_1", "already_decided", approved=not approved)
        await engine.approve(run.id, "call_1", approved=approved)  # the same again


async def engine_refuses(engine: Engine, run_id: str, call_id: str, code: str, *, approved: bool = True) -> None:
    with pytest.raises(ChatError) as caught:
        await engine.approve(run_id, call_id, approved=approved)
    assert caught.value.code == code


async def test_only_calls_that_wait_can_be_decided_about(file: Path, shop: Shop, careful: Toolbox) -> None:
    note: list[Part] = [ToolStarted("call_2", "note"), ToolDelta("call_2", '{"text": "Hi"}')]
    model = ScriptedModel([[*order("bread"), *note, CALLS]], ["Done.", STOP])
    async with engine_on(file, model, tools=careful) as engine:
        run = await started(engine)
        await until(engine, run, ToolApproval("call_1"))
        await engine_refuses(engine, run.id, "call_2", "not_found")  # it does not ask
        await engine_refuses(engine, "run_unknown", "call_1", "not_found")
        await soon(engine.cancel(run.id, "requested"))
        await engine_refuses(engine, run.id, "call_1", "already_decided")  # too late
        assert shop.calls == []


async def test_run_that_takes_too_long_after_a_yes_is_stopped(file: Path, shop: Shop, careful: Toolbox) -> None:
    model = ScriptedModel([[*order("bread"), CALLS]], [asyncio.Event()])
    async with engine_on(file, model, Policy(run_seconds=0.2), tools=careful) as engine:
        run = await started(engine)
        await until(engine, run, ToolApproval("call_1"))
        await engine.approve(run.id, "call_1", approved=True)
        terminal = (await soon(engine.result(run.id))).terminal
        assert isinstance(terminal, RunFailed)
        assert terminal.code == "run_timeout"


async def test_call_is_never_stored_without_its_wait_for_a_yes(file: Path, shop: Shop, careful: Toolbox) -> None:
    model = ScriptedModel([[*order("bread"), *order("cake", "call_2"), CALLS]])
    async with engine_on(file, model, tools=careful) as engine:
        run = await started(engine)
        await until(engine, run, ToolApproval("call_2"))
        appends = [append.events for batch in unsteady(engine).commits for append in batch]
        [called] = [events for events in appends if any(isinstance(event, ToolCalled) for event in events)]
        assert [event for event in called if isinstance(event, ToolApproval)] == [
            ToolApproval("call_1"), ToolApproval("call_2"),
        ]  # fmt: skip


async def test_call_that_was_said_to_wait_does_so_though_its_tool_asks_no_more(file: Path, shop: Shop) -> None:
    asking = Toolbox([tool_of(shop.order, approval=True)])
    run = await crashed(file, ScriptedModel([[*order("bread"), CALLS]]), asking, 4)
    async with engine_on(file, ScriptedModel(["Done.", STOP]), tools=shop.box) as engine:
        await until(engine, run, Seam(2))
        await engine.approve(run.id, "call_1", approved=False)
        log = await log_of(engine, run)
    assert shop.calls == []
    assert log[5:7] == [ToolDecided("call_1", approved=False), ToolFinished("call_1", error=DENIED)]


@pytest.mark.parametrize("recovery", CrashRecovery)
@pytest.mark.parametrize("when", ["between", "after the restart"])
async def test_call_waits_over_a_restart(
    file: Path, shop: Shop, careful: Toolbox, when: str, recovery: CrashRecovery
) -> None:
    run = await crashed(file, ScriptedModel([[*order("bread"), CALLS]]), careful, 4)
    if when == "between":
        async with opened(file) as store:
            await store.sweep(3600)  # which puts its log aside
            await store.decide(run.id, "call_1", approved=True)
    model = ScriptedModel(["Done.", STOP])
    async with engine_on(file, model, Policy(takeovers=1, crash_recovery=recovery), tools=careful) as engine:
        if when != "between":
            await until(engine, run, Seam(2))
            assert shop.calls == []
            await engine.approve(run.id, "call_1", approved=True)
        log = await log_of(engine, run)
    assert shop.calls == ["bread"]
    assert log[3:7] == [
        ToolApproval("call_1"),
        Seam(2),
        ToolDecided("call_1", approved=True),
        ToolFinished("call_1", "bread is on its way"),
    ]
    [step] = model.requests[0].request.steps
    assert [call.result for call in step.calls] == ["bread is on its way"]


async def test_call_beside_one_that_waits_is_made_once(file: Path, shop: Shop, careful: Toolbox) -> None:
    note: list[Part] = [ToolStarted("call_2", "note"), ToolDelta("call_2", '{"text": "Hi"}')]
    run = await crashed(file, ScriptedModel([[*order("bread"), *note, CALLS]]), careful, 8)
    model = ScriptedModel(["Done.", STOP])
    async with engine_on(file, model, tools=careful) as engine:
        await engine.approve(run.id, "call_1", approved=True)
        await log_of(engine, run)
        assert len((await engine.store.records(None, None, None, 10, None)).items) == 1
    [step] = model.requests[0].request.steps
    assert [call.answered for call in step.calls] == [True, True]


async def test_no_that_a_crash_cut_off_stays_a_no(file: Path, shop: Shop, careful: Toolbox) -> None:
    live = LiveRun(running(epoch=2), owned=True)
    live.feed(1, [*ordered("bread"), ToolApproval("call_1"), ToolDecided("call_1", approved=False)])
    store = UnsteadyStore(file)
    Generation(store, Journal(store), ScriptedModel(), Policy(), careful).resume(live)
    assert live.pending == [Seam(2), ToolFinished("call_1", error=DENIED)]


async def test_run_that_only_waits_is_handed_over_at_once(file: Path, shop: Shop, careful: Toolbox) -> None:
    gate = asyncio.Event()
    model = ScriptedModel([[*order("bread"), CALLS]], ["Hi ", gate, "there", STOP])
    async with engine_on(file, model, tools=careful) as engine, opened(file) as other:
        run = await started(engine)
        await until(engine, run, ToolApproval("call_1"))
        busy = (await engine.start(message("Hello", "ses_2"))).run
        await model.asked(1)
        following = asyncio.create_task(log_of(engine, run))
        draining = asyncio.create_task(engine.drain(PATIENCE))
        assert await soon(following) == [*ordered("bread"), ToolApproval("call_1")]  # it goes on elsewhere
        [taken] = await claimed(other)
        assert (taken.id, taken.epoch) == (run.id, 2)
        assert not draining.done()
        gate.set()
        await soon(draining)
        assert (await engine.run(busy.id)).status is RunStatus.COMPLETED
    async with engine_on(file, ScriptedModel(["Done.", STOP]), tools=careful) as engine:
        await engine.approve(run.id, "call_1", approved=True)
        log = await log_of(engine, run)
    assert log[4:7] == [Seam(3), ToolDecided("call_1", approved=True), ToolFinished("call_1", "bread is on its way")]
    assert shop.calls == ["bread"]


async def test_run_that_waits_is_handed_from_process_to_process(file: Path, shop: Shop, careful: Toolbox) -> None:
    run = await crashed(file, ScriptedModel([[*order("bread"), CALLS]]), careful, 4)
    for epoch in (2, 3):
        async with engine_on(file, ScriptedModel(), tools=careful) as engine:
            await until(engine, run, Seam(epoch))
            await soon(engine.drain(PATIENCE))
            assert await last(engine, run) == Seam(epoch)
    assert shop.calls == []


async def claimed(store: UnsteadyStore) -> Sequence[Run]:
    """What can be taken over, as soon as there is something."""
    async with asyncio.timeout(PATIENCE):
        while not (runs := await store.claim()):  # noqa: ASYNC110  # what is waited for is done by another store
            await asyncio.sleep(0.001)
    return runs


async def last(engine: Engine, run: Run) -> Event:
    """The last event that is stored."""
    return (await logged(engine.store, run.id))[-1]


async def test_call_beside_one_that_waits_is_finished_before_the_run_is_handed_over(file: Path, shop: Shop) -> None:
    tools = Toolbox([tool_of(shop.order), tool_of(shop.note, approval=True)])
    note: list[Part] = [ToolStarted("call_2", "note"), ToolDelta("call_2", '{"text": "Hi"}')]
    async with engine_on(file, ScriptedModel([[*order("tea"), *note, CALLS]]), tools=tools) as engine:
        run = await started(engine)
        await until(engine, run, ToolApproval("call_2"))
        await soon(shop.begun.wait())
        draining = asyncio.create_task(engine.drain(PATIENCE))
        await asyncio.sleep(0)
        shop.gates["tea"].set()
        await soon(draining)
        assert await last(engine, run) == ToolFinished("call_1", "tea is on its way")


async def test_call_that_comes_to_wait_while_the_process_ends_is_put_off_too(
    file: Path, shop: Shop, careful: Toolbox
) -> None:
    gate = asyncio.Event()
    async with engine_on(file, ScriptedModel([gate, [*order("bread"), CALLS]]), tools=careful) as engine:
        run = await started(engine)
        draining = asyncio.create_task(engine.drain(PATIENCE))
        await asyncio.sleep(0)
        gate.set()
        await soon(draining)
        assert await last(engine, run) == ToolApproval("call_1")


async def test_stop_of_a_run_that_is_just_put_off_is_not_lost(file: Path, shop: Shop, careful: Toolbox) -> None:
    async with engine_on(file, ScriptedModel([[*order("bread"), CALLS]]), tools=careful) as engine:
        run = await started(engine)
        await until(engine, run, ToolApproval("call_1"))
        [job] = engine._runner._jobs.values()
        job.generating.add_done_callback(lambda _: engine._runner.stop(run.id, "requested"))
        await soon(engine.drain(PATIENCE))
        assert uncounted((await engine.run(run.id)).terminal) == RunCancelled("requested")


async def test_stop_of_a_run_that_is_being_handed_over_reaches_its_next_owner(
    file: Path, shop: Shop, careful: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_on(file, ScriptedModel([[*order("bread"), CALLS]]), tools=careful) as engine:
        run = await started(engine)
        await until(engine, run, ToolApproval("call_1"))
        begun, gate, release = asyncio.Event(), asyncio.Event(), engine.store.release

        async def held(run_id: str) -> None:
            begun.set()
            await gate.wait()
            await release(run_id)

        monkeypatch.setattr(engine.store, "release", held)
        draining = asyncio.create_task(engine.drain(PATIENCE))
        await soon(begun.wait())
        assert not engine._runner.stop(run.id, "requested")
        gate.set()
        await soon(draining)


async def test_run_that_cannot_be_handed_over_now_is_when_the_process_ends(
    file: Path, shop: Shop, careful: Toolbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def gone(_: str) -> None:
        raise StoreUnavailableError

    async with engine_on(file, ScriptedModel([[*order("bread"), CALLS]]), tools=careful) as engine:
        run = await started(engine)
        await until(engine, run, ToolApproval("call_1"))
        monkeypatch.setattr(engine.store, "release", gone)
        await soon(engine.drain(PATIENCE))
        async with opened(file) as other:
            assert [taken.id for taken in await other.claim()] == [run.id]
    assert "could not hand a run back: store_unavailable" in caplog.messages


async def test_decision_in_another_process_is_heard(file: Path, shop: Shop, careful: Toolbox) -> None:
    model = ScriptedModel([[*order("bread"), CALLS]], ["Done.", STOP])
    async with engine_on(file, model, tools=careful) as engine, opened(file) as other:
        run = await started(engine)
        await until(engine, run, ToolApproval("call_1"))
        await other.decide(run.id, "call_1", approved=True)
        await log_of(engine, run)
    assert shop.calls == ["bread"]


async def test_approval_waits_for_the_store(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.approvals.RETRY_PAUSE", 0.01)
    answers: list[Exception | None] = [StoreUnavailableError(), None]
    asked = asyncio.Event()

    class Failing(UnsteadyStore):
        async def decision(self, run_id: str, call_id: str) -> bool | None:
            answer = answers.pop(0)
            if answer is not None:
                raise answer
            asked.set()
            return None

        async def decisions(self) -> Sequence[tuple[str, str, bool]]:
            return [("run_1", "call_1", True), ("run_1", "call_1", True), ("run_2", "call_1", False)]

    approvals = Approvals(Failing(file))
    await approvals.look()  # nobody waits, and the store is not asked
    waiting = asyncio.create_task(approvals.decided("run_1", "call_1"))
    await soon(asked.wait())
    approvals.tell("run_2", "call_1", approved=False)
    await asyncio.sleep(0)
    assert not waiting.done()
    await approvals.look()
    approvals.put_off()  # too late
    assert await soon(waiting) is True


async def test_nobody_is_asked_about_a_call_that_is_the_clients(file: Path, careful: Toolbox) -> None:
    # A server whose tools all ask may have one of this name, and not be there yet.
    terms = Terms(tools=[ToolSpec("order", "The client's own.", {"type": "object"})])
    model = ScriptedModel([[*order("bread"), CALLS]])
    async with engine_on(file, model, tools=careful) as engine:
        run = (await engine.start(message(terms=terms))).run
        assert (await log_of(engine, run))[:-1] == ordered("bread")
