"""Runs in which the model calls tools."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from chat.commands import Matching, NewRetry
from chat.commits import Append
from chat.context import Budgets
from chat.echo import EchoModel
from chat.engine import Engine
from chat.errors import ChatError, StoreUnavailableError
from chat.events import (
    Event,
    RunCancelled,
    RunCompleted,
    RunFailed,
    Seam,
    TextDelta,
    ToolCalled,
    ToolDelta,
    ToolFinished,
    ToolStarted,
    Usage,
)
from chat.functions import tool_of
from chat.generation import LOST, NOT_MADE
from chat.policy import Policy
from chat.ports import Finished, ModelRequest, Part, Store
from chat.runs import Run, RunStatus
from chat.sessions import Turn
from chat.steps import Call, Step
from chat.terms import Terms, ToolSpec
from chat.tools import Cite, Toolbox, no_source
from chat.tracing import NO_SPAN, StepSpan
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel, engine_on, follow, message, opened, unsteady
from tests.scripted import Step as Script
from tests.shop import CALLS, Shop, crashed, log_of, order, ordered, started


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def test_model_is_told_what_the_tool_said_and_goes_on(file: Path, shop: Shop) -> None:
    model = ScriptedModel(["I order. ", [*order("bread"), Finished("tool_calls", Usage(5, 7))]],
                          ["Done.", Finished("stop", Usage(20, 2))])  # fmt: skip
    async with engine_on(file, model, tools=shop.box) as engine:
        run = await started(engine)
        log = await log_of(engine, run)
        assert log[:-1] == [
            TextDelta("I order. "),
            *ordered("bread"),
            ToolFinished("call_1", "bread is on its way"),
            TextDelta("Done."),
        ]
        assert isinstance(log[-1], RunCompleted)
        assert (log[-1].finish_reason, log[-1].text_length) == ("stop", 14)
        assert getattr((await engine.run(run.id)).terminal, "usage", None) == Usage(25, 9)
        step = Step("I order. ", [Call("call_1", "order", '{"article": "bread"}', "bread is on its way")])
        assert model.requests[1].request.steps == [step]
        assert [spec.name for spec in model.requests[0].request.tools] == ["order", "note"]

        # The next turn's model sees it, and so does whoever reads the history.
        model.scripts = ([STOP],)
        await log_of(engine, await started(engine, "And now?"))
        said = model.requests[2].request.messages
        assert [(turn.role, turn.content) for turn in said] == [
            ("user", "Hello"), ("assistant", "I order. Done."), ("user", "And now?"),
        ]  # fmt: skip
        assert said[1].steps == (Step("I order. ", tuple(step.calls)),)
        page = await engine.store.messages("ses_1", 10, None)
        assert page.items[1].steps == said[1].steps


async def test_what_tools_answer_is_sent_within_the_context_and_stored_whole(file: Path) -> None:
    async def read(page: int) -> str:
        """Read a page."""
        return f"{page}" * 60_000 if page < 9 else "short"

    pages: list[Part] = []
    for page in (1, 2, 9):
        pages += [ToolStarted(f"call_{page}", "read"), ToolDelta(f"call_{page}", f'{{"page": {page}}}')]
    model = ScriptedModel([[*pages, CALLS]], ["Done.", STOP])
    policy = Policy(budgets=Budgets(1_000))
    async with engine_on(file, model, policy, tools=Toolbox([tool_of(read)])) as engine:
        log = await log_of(engine, await started(engine, "Read."))
        assert sorted(len(event.result or "") for event in log if isinstance(event, ToolFinished)) == [
            5,
            60_000,
            60_000,
        ]
        [step] = model.requests[1].request.steps
        results = [call.result or "" for call in step.calls]
        assert sum(map(len, results)) in range(1_900, 2_001)  # half of 4,000 bytes
        assert [result.endswith("[Cut. It has 60,000 characters.]") for result in results] == [True, True, False]
        assert results[2] == "short"

        await log_of(engine, await started(engine, "And now?"))
        said = model.requests[2].request.messages
        assert [turn.content for turn in said] == ["Read.", "Done.", "And now?"]
        results = [call.result or "" for call in said[1].steps[0].calls]
        assert sum(map(len, results)) in range(900, 1_001)
        assert results[2] == "short"


async def test_calls_of_one_step_run_side_by_side(file: Path, shop: Shop) -> None:
    model = ScriptedModel([[*order("tea"), *order("milk", "call_2"), CALLS]], ["Done.", STOP])
    async with engine_on(file, model, tools=shop.box) as engine:
        run = await started(engine)
        await soon(shop.both.wait())
        shop.gates["milk"].set()
        async with aclosing(follow(engine, run.id, 6)) as batches:
            first = await soon(anext(batches))
        assert first.events == [ToolFinished("call_2", "milk is on its way")]
        shop.gates["tea"].set()
        log = await log_of(engine, run)
        assert log[7] == ToolFinished("call_1", "tea is on its way")
        assert [call.id for call in model.requests[1].request.steps[0].calls] == ["call_1", "call_2"]


async def test_call_is_committed_before_it_is_made(file: Path, shop: Shop) -> None:
    model = ScriptedModel([[*order("bread"), CALLS]], ["Done.", STOP])
    async with engine_on(file, model, tools=shop.box) as engine:
        store = unsteady(engine)
        store.gate.clear()
        starting = asyncio.create_task(started(engine))
        run = await soon(starting)
        await soon(store.begun.wait())
        for _ in range(50):
            await asyncio.sleep(0)
        assert shop.calls == []
        store.gate.set()
        await log_of(engine, run)
        assert shop.calls == ["bread"]
        durable = [append.durable for batch in store.commits for append in batch]
        assert any(durable)


async def test_no_call_is_made_when_the_log_cannot_be_written(file: Path, shop: Shop) -> None:
    model = ScriptedModel([[*order("bread"), CALLS]])
    async with engine_on(file, model, tools=shop.box) as engine:
        store = unsteady(engine)
        store.fault = StoreUnavailableError()
        run = await started(engine)
        await soon(store.begun.wait())
        with pytest.raises(ChatError):
            await log_of(engine, run)
        store.fault = None
        await soon(settled(engine, run))
        ended = await engine.run(run.id)
        assert (ended.status, shop.calls) == (RunStatus.FAILED, [])


async def settled(engine: Engine, run: Run) -> None:
    while (await engine.run(run.id)).status.active:  # noqa: ASYNC110  # followers are told of the trouble instead
        await asyncio.sleep(0.01)


async def test_records_are_written_down(file: Path, shop: Shop) -> None:
    call: list[Part] = [ToolStarted("1", "note"), ToolDelta("1", '{"text": "Hi"}'), CALLS]
    async with engine_on(file, ScriptedModel([call], [STOP]), tools=shop.box) as engine:
        run = await started(engine)
        await log_of(engine, run)
        [record] = (await engine.store.records(None, None, None, 10, None)).items
        assert (record.kind, record.data, record.run_id, record.user_id) == ("note", {"text": "Hi"}, run.id, "ann")


async def test_stop_in_the_middle_of_a_call_keeps_what_there_is(file: Path, shop: Shop) -> None:
    model = ScriptedModel([[*order("bread", "call_0"), *order("tea"), CALLS]], [STOP])
    async with engine_on(file, model, tools=shop.box) as engine:
        run = await started(engine)
        await soon(shop.begun.wait())
        async with aclosing(follow(engine, run.id, 6)) as batches:
            await soon(anext(batches))  # one of the two has answered
        ended = await soon(engine.cancel(run.id, "requested"))
        assert isinstance(ended.terminal, RunCancelled)
        await log_of(engine, await started(engine, "What now?"))
        [step] = model.requests[-1].request.messages[1].steps
        assert [(call.id, call.result) for call in step.calls] == [
            ("call_0", "bread is on its way"), ("call_1", None),
        ]  # fmt: skip


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_call_that_the_model_was_cut_off_in_is_not_made(file: Path, shop: Shop, reason: str) -> None:
    cut: list[Part] = [ToolStarted("call_2", "order"), Finished(reason)]
    model = ScriptedModel([[*order("bread"), *cut]], [cut])
    async with engine_on(file, model, tools=shop.box) as engine:
        run = await started(engine)
        log = await log_of(engine, run)
        assert shop.calls == ["bread"]
        assert log.count(ToolFinished("call_2", error=NOT_MADE)) == 2
        assert isinstance(log[-1], RunCompleted)
        assert log[-1].finish_reason == reason


async def test_call_that_breaks_the_generation_ends_its_run(file: Path, shop: Shop) -> None:
    class Breaking(Toolbox):
        async def answer(
            self, call: Call, run: Run, store: Store, span: StepSpan = NO_SPAN, cite: Cite = no_source
        ) -> Call:
            raise asyncio.CancelledError

    async with engine_on(file, ScriptedModel([[*order("bread"), CALLS]]), tools=Breaking()) as engine:
        terminal = (await soon(engine.result((await started(engine)).id))).terminal
        assert isinstance(terminal, RunFailed)
        assert terminal.code == "internal"


@pytest.mark.parametrize("steps", [1, 3])
async def test_model_that_calls_for_ever_is_stopped(file: Path, shop: Shop, steps: int) -> None:
    scripts: list[list[Script]] = [[[*order("bread", f"call_{n}"), CALLS]] for n in range(5)]
    model = ScriptedModel(*scripts)
    async with engine_on(file, model, Policy(steps=steps), tools=shop.box) as engine:
        run = await started(engine)
        ended = await soon(engine.result(run.id))
        assert isinstance(ended.terminal, RunFailed)
        assert ended.terminal.code == "too_many_steps"
        assert len(model.requests) == len(shop.calls) == steps


@pytest.mark.parametrize("where", ["model", "tool"])
async def test_run_that_takes_too_long_is_stopped(file: Path, shop: Shop, where: str) -> None:
    script: list[Script] = ["Hi ", asyncio.Event()] if where == "model" else [[*order("tea"), CALLS]]
    async with engine_on(file, ScriptedModel(script), Policy(run_seconds=0.1), tools=shop.box) as engine:
        ended = await soon(engine.result((await started(engine)).id))
        assert isinstance(ended.terminal, RunFailed)
        assert ended.terminal.code == "run_timeout"


async def test_timeout_of_something_else_is_not_the_runs(file: Path, shop: Shop) -> None:
    async with engine_on(file, ScriptedModel([TimeoutError()]), tools=shop.box) as engine:
        ended = await soon(engine.result((await started(engine)).id))
        assert isinstance(ended.terminal, RunFailed)
        assert ended.terminal.code == "internal"


async def test_call_that_has_run_is_not_made_again_after_a_crash(file: Path, shop: Shop) -> None:
    dead = ScriptedModel(["Well. ", [*order("bread"), CALLS]], [asyncio.Event()])
    run = await crashed(file, dead, shop.box, 5)
    model = ScriptedModel(["Done.", STOP])
    async with engine_on(file, model, tools=shop.box) as engine:
        log = await log_of(engine, run)
    assert shop.calls == ["bread"]
    assert log[4:7] == [ToolFinished("call_1", "bread is on its way"), Seam(2), TextDelta("Done.")]
    request: ModelRequest = model.requests[0].request
    assert request.prefix == ""
    assert [call.result for step in request.steps for call in step.calls] == ["bread is on its way"]


async def test_call_without_an_answer_is_reported_after_a_crash_and_not_made_again(file: Path, shop: Shop) -> None:
    run = await crashed(file, ScriptedModel([[*order("tea"), CALLS]]), shop.box, 3)
    model = ScriptedModel(["Sorry.", STOP])
    async with engine_on(file, model, tools=shop.box) as engine:
        log = await log_of(engine, run)
    assert shop.calls == ["tea"]
    assert log[3:5] == [Seam(2), ToolFinished("call_1", error=LOST)]
    [step] = model.requests[0].request.steps
    assert step.calls[0].error == LOST


async def test_call_that_was_only_half_written_is_left_out_after_a_crash(file: Path, shop: Shop) -> None:
    dead = ScriptedModel(["Well. ", [ToolStarted("call_1", "order"), ToolDelta("call_1", '{"art')], asyncio.Event()])
    run = await crashed(file, dead, shop.box, 3)
    model = ScriptedModel(["Done.", STOP])
    async with engine_on(file, model, tools=shop.box) as engine:
        log = await log_of(engine, run)
    assert log[3:5] == [Seam(2), ToolFinished("call_1", error=NOT_MADE)]
    assert (model.requests[0].request.steps, model.requests[0].request.prefix) == ([], "Well. ")


async def test_retry_begins_without_the_first_answers_steps(file: Path, shop: Shop) -> None:
    model = ScriptedModel([[*order("bread"), CALLS]], [STOP], ["Again.", STOP])
    async with engine_on(file, model, tools=shop.box) as engine:
        run = await started(engine)
        await log_of(engine, run)
        again = (await engine.start(NewRetry("run_2", run.id, "scripted"))).run
        await log_of(engine, again)
        assert model.requests[2].request.steps == []


async def test_echo_model_calls_a_tool_on_command(shop: Shop) -> None:
    async def said(text: str, steps: Sequence[Step] = ()) -> list[Part]:
        request = ModelRequest([Turn("user", text)], steps=steps, tools=shop.box.specs)
        return [part async for parts in EchoModel(0).stream(request) for part in parts]

    parts = await said('/order {"article": "bread"}')
    assert parts[:2] == [ToolStarted("call_order", "order"), ToolDelta("call_order", '{"article": "bread"}')]
    assert (await said("/order"))[:1] == [ToolStarted("call_order", "order")]
    assert (await said("/orders please"))[0] == TextDelta("/orders ")
    answered = Call("call_order", "order", "{}", "bread is on its way")
    assert (await said("/order", [Step("", [answered])]))[0] == TextDelta("bread ")


async def test_echo_model_says_what_came_of_a_call_that_was_the_clients(shop: Shop) -> None:
    results = Turn("assistant", "", [Step("", [Call("call_order", "order", "{}", "bread is on its way")])])
    asked: list[Turn] = [Turn("user", "/order"), results]
    for messages, first in ((asked, "bread "), ([*asked, Turn("user", "Thanks")], "Thanks")):
        request = ModelRequest(messages, tools=shop.box.specs)
        parts = [part async for read in EchoModel(0).stream(request) for part in read]
        assert parts[0] == TextDelta(first)


async def test_run_ends_where_the_clients_own_tool_is_called(file: Path, shop: Shop) -> None:
    look: list[Part] = [ToolStarted("call_9", "look"), ToolDelta("call_9", "{}")]
    model = ScriptedModel(["I look. ", [*order("bread"), *look, Finished("tool_calls", Usage(5, 7))]], ["Rain.", STOP])
    spec = ToolSpec("look", "Looks.", {"type": "object"})
    async with engine_on(file, model, tools=shop.box) as engine:
        terms = Terms(tools=[spec], options={"temperature": 0})
        run = (await engine.start(message("Hello", terms=terms))).run
        log = await log_of(engine, run)
        assert isinstance(log[-1], RunCompleted)
        assert log[-1].finish_reason == "tool_calls"
        assert getattr((await engine.run(run.id)).terminal, "usage", None) == Usage(5, 7)
        assert len(model.requests) == 1
        request = model.requests[0].request
        assert [tool.name for tool in request.tools] == ["order", "note", "look"]
        assert request.options == {"temperature": 0}
        [step] = (await engine.answer(run)).steps
        assert [(call.id, call.result) for call in step.calls] == [("call_1", "bread is on its way"), ("call_9", None)]

        results = [replace(step, calls=[replace(call, result="A cloud") for call in step.calls])]
        turns = [Turn("user", "Hello"), Turn("assistant", "I look. ", results)]
        new = replace(message("Hello", run.session_id, terms=terms), turns=turns, place=Matching())
        again = (await engine.start(new)).run
        await log_of(engine, again)
        assert again.message_id == run.answer_id
        assert set(model.requests[1].request.taken) == {"call_1", "call_9"}  # clients know calls by their ids alone
        [asked] = model.requests[1].request.messages[1].steps
        assert [call.result for call in asked.calls] == ["bread is on its way", "A cloud"]


@pytest.mark.parametrize("ours", [ordered("tea"), []], ids=["beside ours", "alone"])
async def test_call_that_is_the_clients_is_left_to_it_after_a_crash(file: Path, shop: Shop, ours: list[Event]) -> None:
    spec = ToolSpec("look", "Looks.", {"type": "object"})
    shown = [*ours, ToolStarted("call_9", "look"), ToolCalled("call_9", "look", "{}")]
    async with opened(file) as store:
        run = (await store.start_run(message("Hello", terms=Terms(tools=[spec])))).run
        await store.commit([Append(run, 1, shown)])
    model = ScriptedModel()
    async with engine_on(file, model, tools=shop.box) as engine:
        log = await log_of(engine, run)
        [step] = (await engine.answer(run)).steps
    assert (model.requests, shop.calls) == ([], [])
    assert log[: len(shown) + 1] == [*shown, Seam(2)]
    assert isinstance(log[-1], RunCompleted)
    assert log[-1].finish_reason == "tool_calls"
    assert [(call.id, call.error) for call in step.calls] == [*([("call_1", LOST)] if ours else []), ("call_9", None)]
