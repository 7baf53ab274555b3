"""What runs are found to have used, however they end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from chat import generation
from chat.commands import OnBusy
from chat.engine import Engine, Timing
from chat.errors import ModelError, StoreUnavailableError
from chat.events import (
    ModelSelected,
    ReasoningDelta,
    RunCancelled,
    RunInterrupted,
    Seam,
    TextDelta,
    ToolDelta,
    ToolStarted,
    Usage,
)
from chat.policy import CrashRecovery, Policy
from chat.ports import Finished
from chat.routing import Router
from chat.runs import Run
from chat.tools import NO_TOOLS, Toolbox
from chat.usage import Price, UsageBy, UsageQuery
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel, Step, engine_on, everything, follow, message, opened, unsteady
from tests.shop import Shop, order

HI, THERE = TextDelta("Hi "), TextDelta("there")
BUSY = ModelError("upstream_unavailable", "The model is busy.", retryable=True, transient=True)

HELLO = 2
"""Tokens of the message that everybody here says."""


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "FIRST_BACKOFF", 0.001)


def usage_of(run: Run) -> Usage | None:
    assert run.terminal is not None
    return run.terminal.usage


async def used(file: Path, *scripts: list[Step], policy: Policy | None = None) -> Usage | None:
    """What a run has used when the model says this."""
    async with engine_on(file, ScriptedModel(*scripts), policy) as engine:
        run = (await engine.start(message())).run
        return usage_of(await soon(engine.result(run.id)))


async def begun(engine: Engine) -> Run:
    """A run of which something is shown."""
    run = (await engine.start(message())).run
    following = follow(engine, run.id, 0)
    await soon(anext(following))
    await following.aclose()
    return run


async def test_what_the_upstream_reports_is_told(file: Path) -> None:
    usage = Usage(30, 20, cached_tokens=10, reasoning_tokens=5)
    assert await used(file, ["Hi ", Finished("stop", usage)]) == usage


async def test_answer_of_an_upstream_that_reports_nothing_is_estimated(file: Path) -> None:
    found = await used(file, [ReasoningDelta("thinking"), "Hi ", "there", STOP])
    assert found == Usage(HELLO, 2 + 2, "estimated", reasoning_tokens=2)


async def test_prompts_are_part_of_the_estimate(file: Path) -> None:
    found = await used(file, ["Hi ", STOP], policy=Policy(system_prompt="12345678"))
    assert found == Usage(HELLO + 2, 1, "estimated")


async def test_answer_that_breaks_off_is_estimated(file: Path) -> None:
    assert await used(file, ["Hi ", BUSY]) == Usage(HELLO, 1, "estimated")


async def test_answer_that_grew_too_long_is_estimated(file: Path) -> None:
    assert await used(file, ["1234", "567", STOP], policy=Policy(answer_limit=5)) == Usage(HELLO, 1, "estimated")


async def test_request_that_was_turned_down_is_not_counted(file: Path) -> None:
    assert await used(file, [BUSY], ["Hi ", Finished("stop", Usage(3, 1))]) == Usage(3, 1)
    assert await used(file.with_name("other.db"), [BUSY]) is None


async def test_request_that_had_been_taken_up_is_charged_though_nothing_came_of_it(file: Path) -> None:
    late = ModelError("upstream_timeout", "It is late.", retryable=True, transient=True, taken=True)
    model = Router.alone(ScriptedModel([late], ["Hi ", Finished("stop", Usage(3, 1))]))
    async with engine_on(file, model) as engine:
        run = (await engine.start(message())).run
        assert usage_of(await soon(engine.result(run.id))) == Usage(HELLO + 3, 1, "estimated")


async def test_calls_that_are_written_are_estimated(file: Path) -> None:
    call: list[Step] = [ToolStarted("call_1", "look"), ToolDelta("call_1", "12345"), BUSY]
    assert await used(file, call) == Usage(HELLO, 2, "estimated")


async def test_generation_that_breaks_is_estimated(file: Path) -> None:
    assert await used(file, ["Hi ", ZeroDivisionError()]) == Usage(HELLO, 1, "estimated")


async def test_stopped_run_is_estimated(engine: Engine) -> None:
    run = await begun(engine)
    assert usage_of(await soon(engine.cancel(run.id, "requested"))) == Usage(HELLO, 1, "estimated")


async def test_run_that_is_stopped_in_silence_has_been_asked(file: Path) -> None:
    model = ScriptedModel([asyncio.Event()])
    async with engine_on(file, model) as engine:
        run = (await engine.start(message())).run
        await model.asked(0)
        assert usage_of(await soon(engine.cancel(run.id, "requested"))) == Usage(HELLO, 0, "estimated")


async def test_run_that_never_came_to_ask_has_used_nothing(engine: Engine) -> None:
    await engine.start(message())
    waiting = (await engine.start(message("And this", on_busy=OnBusy.QUEUE))).run
    cancelled = await soon(engine.cancel(waiting.id, "requested"))
    assert cancelled.terminal == RunCancelled("requested")
    assert cancelled.cost is None


async def test_run_whose_log_could_not_be_written_is_estimated_when_it_is_settled(
    engine: Engine, gate: asyncio.Event
) -> None:
    run = await begun(engine)
    store = unsteady(engine)
    store.fault = StoreUnavailableError()
    store.begun.clear()
    gate.set()
    await soon(store.begun.wait())
    store.fault = None
    found = usage_of(await settled(engine, run))
    assert found is not None
    assert (found.input_tokens, found.source) == (HELLO, "estimated")


async def settled(engine: Engine, run: Run) -> Run:
    async with asyncio.timeout(10):
        while True:
            try:
                return await engine.result(run.id)
            except StoreUnavailableError:
                await asyncio.sleep(0.001)


# --- runs that change their owner


async def left_by_a_dead_process(file: Path) -> Run:
    async with engine_on(file, ScriptedModel(["Hi ", asyncio.Event()])) as dead:
        return await begun(dead)


async def test_run_that_was_taken_over_counts_both_requests(file: Path) -> None:
    run = await left_by_a_dead_process(file)
    model = ScriptedModel(["there", Finished("stop", Usage(40, 10))])
    async with engine_on(file, model) as engine:
        assert (await everything(engine, run.id))[:-1] == [HI, Seam(2), THERE]
        found = usage_of(await engine.run(run.id))
    assert found == Usage(HELLO + 40, 1 + 10, "estimated")


async def test_run_that_is_interrupted_counts_what_the_dead_process_asked(file: Path) -> None:
    run = await left_by_a_dead_process(file)
    async with engine_on(file, ScriptedModel(), Policy(crash_recovery=CrashRecovery.INTERRUPT)) as engine:
        ended = await soon(engine.result(run.id))
    assert isinstance(ended.terminal, RunInterrupted)
    assert ended.terminal.usage == Usage(HELLO, 1, "estimated")


async def test_run_of_which_a_dead_process_showed_nothing_counts_what_is_asked_now(file: Path) -> None:
    async with opened(file) as dead:
        run = (await dead.start_run(message())).run
    async with engine_on(file, ScriptedModel(["Hi ", Finished("stop", Usage(3, 1))])) as engine:
        assert usage_of(await soon(engine.result(run.id))) == Usage(3, 1)


# --- what it costs


PRICES = {
    "scripted": Price(Decimal(2), Decimal(8), cached=Decimal(1)),
    "other": Price(Decimal(1), Decimal(1), cached=Decimal(1)),
}


@asynccontextmanager
async def priced(file: Path, model: ScriptedModel, tools: Toolbox = NO_TOOLS) -> AsyncIterator[Engine]:
    async with opened(file) as store:
        engine = Engine(store, model, Policy(), Timing(window=0), tools, prices=PRICES)
        async with engine.running():
            yield engine


async def by_model(engine: Engine) -> dict[str, tuple[int, int, int, int | None]]:
    """Runs, tokens in and out, and cost."""
    found = await engine.store.usage(UsageQuery(UsageBy.MODEL, limit=10))
    return {item.key: (item.runs, item.input_tokens, item.output_tokens, item.cost) for item in found.items}


def answered_by(model: str, *said: Step) -> list[Step]:
    return [[ModelSelected(model, "fallback", "upstream_unavailable"), TextDelta("Hi ")], *said]


async def test_cost_is_by_the_model_of_the_run(file: Path) -> None:
    model = ScriptedModel(["Hi ", Finished("stop", Usage(30, 20, cached_tokens=10))])
    async with priced(file, model) as engine:
        run = (await engine.start(message())).run
        assert (await soon(engine.result(run.id))).cost == 20 * 2_000 + 10 * 1_000 + 20 * 8_000
        other = (await engine.start(message(session_id="ses_2", model="unpriced"))).run
        assert (await soon(engine.result(other.id))).cost is None


async def test_each_step_is_on_the_model_that_answered_it(file: Path) -> None:
    first: list[Step] = [[*order("bread"), Finished("tool_calls", Usage(30, 20))]]
    model = ScriptedModel(first, answered_by("other", Finished("stop", Usage(60, 40))))
    async with priced(file, model, Shop().box) as engine:
        run = await soon(engine.result((await engine.start(message())).run.id))
        assert usage_of(run) == Usage(90, 60)
        assert run.cost == 30 * 2_000 + 20 * 8_000 + 100 * 1_000
        assert await by_model(engine) == {"scripted": (1, 30, 20, 220_000), "other": (1, 60, 40, 100_000)}


async def test_run_of_which_one_model_has_no_price_has_no_cost(file: Path) -> None:
    first: list[Step] = [[*order("bread"), Finished("tool_calls", Usage(30, 20))]]
    model = ScriptedModel(first, answered_by("unpriced", Finished("stop", Usage(60, 40))))
    async with priced(file, model, Shop().box) as engine:
        run = await soon(engine.result((await engine.start(message())).run.id))
        assert (usage_of(run), run.cost) == (Usage(90, 60), None)
        assert await by_model(engine) == {"scripted": (1, 30, 20, 220_000), "unpriced": (1, 60, 40, None)}


async def test_stopped_answer_is_on_the_model_that_gave_it(file: Path) -> None:
    async with priced(file, ScriptedModel(answered_by("other", asyncio.Event()))) as engine:
        run = await begun(engine)
        await soon(engine.cancel(run.id, "requested"))
        assert await by_model(engine) == {"other": (1, HELLO, 1, 3_000)}


async def test_after_a_crash_each_answer_is_still_on_the_model_that_gave_it(file: Path) -> None:
    async with engine_on(file, ScriptedModel(answered_by("other", asyncio.Event()))) as dead:
        run = await begun(dead)
    model = ScriptedModel(["there", Finished("stop", Usage(40, 10))])
    async with priced(file, model) as engine:
        await soon(engine.result(run.id))
        assert model.requests[0].request.speaker == "other"
        assert await by_model(engine) == {"other": (1, HELLO, 1, 3_000), "scripted": (1, 40, 10, 160_000)}
