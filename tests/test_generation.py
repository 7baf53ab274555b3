import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from chat import generation
from chat.context import Budgets
from chat.engine import Engine
from chat.errors import ChatError, ModelError
from chat.events import Event, ModelSelected, ReasoningDelta, RunCompleted, RunFailed, Seam, TextDelta, completed
from chat.generation import Generation
from chat.journal import Journal
from chat.live import LiveRun
from chat.policy import CrashRecovery, Policy
from chat.ports import Finished
from chat.runs import Run
from chat.sessions import Branch, Turn
from chat.terms import NO_TERMS, Terms
from tests.ledger import Ledger, running
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel, Step, engine_on, everything, message, uncounted, unsteady

HI, THERE = TextDelta("Hi "), TextDelta("there")

BUSY = ModelError("upstream_unavailable", "The model is busy.", retryable=True, transient=True)
REFUSED = ModelError("upstream_rejected", "The model refused the request.", retryable=False)


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "FIRST_BACKOFF", 0.001)


async def answer(engine: Engine, text: str = "Hello", **more: Any) -> list[Event]:
    return await everything(engine, (await engine.start(message(text, **more))).run.id)


async def log_of(file: Path, *scripts: list[Step], policy: Policy | None = None) -> tuple[list[Event], ScriptedModel]:
    """What a run's log is when the model says this."""
    model = ScriptedModel(*scripts)
    async with engine_on(file, model, policy) as engine:
        log = await answer(engine)
    assert all(asked.closed.is_set() for asked in model.requests)
    return log, model


# --- what the model is asked


async def test_model_of_the_run_is_asked_for(file: Path) -> None:
    model = ScriptedModel([STOP])
    async with engine_on(file, model) as engine:
        await answer(engine, model="groq/llama")
    assert model.requests[0].request.model == "groq/llama"


async def test_model_is_asked_with_prompts_and_history(file: Path) -> None:
    model = ScriptedModel(["One", STOP])
    async with engine_on(file, model, Policy(system_prompt="Be kind")) as engine:
        await answer(engine, "First")
        await answer(engine, "Second", terms=Terms("Be brief"))
    assert [list(asked.request.messages) for asked in model.requests] == [
        [Turn("system", "Be kind"), Turn("user", "First")],
        [
            Turn("system", "Be kind"),
            Turn("system", "Be brief"),
            Turn("user", "First"),
            Turn("assistant", "One"),
            Turn("user", "Second"),
        ],
    ]
    assert {asked.request.prefix for asked in model.requests} == {""}


async def test_history_is_cut_to_what_the_prompts_leave_and_begins_with_a_question(file: Path) -> None:
    model = ScriptedModel(["a" * 400, STOP])
    policy = Policy(system_prompt="p" * 400, budgets=Budgets(525))  # 2,100 bytes
    async with engine_on(file, model, policy) as engine:
        for n in range(5):
            await answer(engine, f"{n}" * 400)
    cut = list(model.requests[-1].request.messages)
    assert [turn.content[0] for turn in cut] == ["p", "3", "a", "4"]
    assert sum(len(turn.content) for turn in cut) <= 2_100


async def test_question_is_asked_however_small_the_budget(file: Path) -> None:
    model = ScriptedModel(["One", STOP])
    async with engine_on(file, model, Policy(system_prompt="Be kind", budgets=Budgets(1))) as engine:
        await answer(engine, "First")
        await answer(engine, "Second")
    assert list(model.requests[-1].request.messages) == [Turn("system", "Be kind"), Turn("user", "Second")]


# --- what it says


async def test_answer_is_recorded_as_it_comes_and_proved_at_the_end(file: Path) -> None:
    log, _ = await log_of(file, [ReasoningDelta("hm"), "Hi ", [THERE, Finished("length")]])
    assert log == [ReasoningDelta("hm"), HI, THERE, completed("Hi there", "length", None)]


async def test_word_about_who_answers_is_recorded_and_no_part_of_the_answer(file: Path) -> None:
    selected = ModelSelected("groq/llama", "fallback", "upstream_timeout")
    log, _ = await log_of(file, [[selected, HI], THERE, STOP], policy=Policy(answer_limit=8))
    assert log == [selected, HI, THERE, completed("Hi there", "stop", None)]


async def test_answer_that_breaks_off_has_failed_and_is_kept(file: Path) -> None:
    log, model = await log_of(file, ["Hi "])
    assert log[:-1] == [HI]
    assert isinstance(log[-1], RunFailed)
    assert (log[-1].code, log[-1].retryable) == ("upstream_incomplete", True)
    assert len(model.requests) == 1


async def test_answer_over_the_limit_is_cut_and_marked(file: Path) -> None:
    log, model = await log_of(file, ["123", ReasoningDelta("45"), "678", "more", STOP], policy=Policy(answer_limit=7))
    assert log[:-1] == [TextDelta("123"), ReasoningDelta("45")]
    assert isinstance(log[-1], RunFailed)
    assert (log[-1].code, log[-1].retryable) == ("answer_too_long", False)
    log, _ = await log_of(file.with_name("other.db"), ["1234", "567", STOP], policy=Policy(answer_limit=7))
    assert isinstance(log[-1], RunCompleted)
    assert len(model.requests) == 1


# --- once more


async def test_request_is_repeated_while_nothing_was_shown(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, model = await log_of(file, [BUSY], [BUSY], ["Hi ", STOP])
    assert log == [HI, completed("Hi ", "stop", None)]
    assert len(model.requests) == 3
    assert all(asked.request == model.requests[0].request for asked in model.requests)
    waits = [record.__dict__["repeat_in"] for record in caplog.records if "repeat_in" in record.__dict__]
    assert 0.0005 <= waits[0] <= 0.001 <= waits[1] <= 0.002


async def test_request_is_not_repeated_for_ever(file: Path) -> None:
    log, model = await log_of(file, [BUSY], policy=Policy(retries=3))
    assert log == [RunFailed(BUSY.code, BUSY.message, BUSY.retryable)]
    assert len(model.requests) == 4


async def test_silence_without_an_end_is_asked_again(file: Path) -> None:
    log, model = await log_of(file, [], ["Hi ", STOP])
    assert log[0] == HI
    assert len(model.requests) == 2


async def test_refusal_is_final(file: Path) -> None:
    log, model = await log_of(file, [REFUSED])
    assert log == [RunFailed(REFUSED.code, REFUSED.message, REFUSED.retryable)]
    assert len(model.requests) == 1


@pytest.mark.parametrize("shown", [HI, ReasoningDelta("hm")])
async def test_request_is_not_repeated_when_something_was_shown(file: Path, shown: TextDelta) -> None:
    log, model = await log_of(file, [shown, BUSY])
    assert log == [shown, RunFailed(BUSY.code, BUSY.message, BUSY.retryable)]
    assert len(model.requests) == 1


async def test_request_is_not_repeated_when_what_was_said_is_being_committed(file: Path) -> None:
    failing = asyncio.Event()
    model = ScriptedModel(["Hi ", failing, BUSY])
    async with engine_on(file, model) as engine:
        store = unsteady(engine)
        store.gate.clear()
        run = (await engine.start(message())).run
        await soon(store.begun.wait())
        failing.set()
        await soon(model.requests[0].closed.wait())
        store.gate.set()
        assert await everything(engine, run.id) == [HI, RunFailed(BUSY.code, BUSY.message, BUSY.retryable)]
    assert len(model.requests) == 1


async def test_upstreams_wish_to_be_left_alone_is_granted(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    def busy(seconds: float) -> ModelError:
        return ModelError("upstream_rate_limited", "Slow", retryable=True, transient=True, retry_after=seconds)

    log, model = await log_of(file, [busy(0.02)], ["Hi ", STOP])
    assert isinstance(log[-1], RunCompleted)
    waits = [record.__dict__["repeat_in"] for record in caplog.records if "repeat_in" in record.__dict__]
    assert waits == [0.02]
    log, model = await log_of(file.with_name("other.db"), [busy(11)])
    assert isinstance(log[-1], RunFailed)
    assert len(model.requests) == 1


async def test_what_the_model_said_is_not_logged(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "chat"):
        await log_of(file, ["my secret", BUSY])
    assert caplog.records
    assert not [record for record in caplog.records if "my secret" in repr(record.__dict__)]
    assert not [record for record in caplog.records if "Hello" in repr(record.__dict__)]


# --- pushing back


class Told(Ledger):
    """A ledger that also knows what to ask."""

    async def terms(self, run_id: str) -> Terms:
        return NO_TERMS

    async def branch(self, message_id: str, budget: int) -> Branch:
        return Branch(None, [Turn("user", "Hello")])


async def test_model_is_not_read_on_while_the_journal_is_full() -> None:
    store = Told()
    journal = Journal(store, window=0, capacity=4)
    read: list[int] = []

    class Endless(ScriptedModel):
        async def stream(self, request):  # type: ignore[no-untyped-def]
            for number in range(20):
                read.append(number)
                yield [TextDelta(str(number))]
            yield [STOP]

    live = LiveRun(running(), owned=True)
    store.gate.clear()
    committing = asyncio.create_task(journal.run())
    generating = asyncio.create_task(Generation(store, journal, Endless(), Policy()).generate(live))
    await soon(store.begun.wait())
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(read) <= 8  # what the commit under way has taken, and what waits behind it
    store.gate.set()
    assert isinstance(await soon(generating), RunCompleted)
    assert len(read) == 20
    committing.cancel()
    with suppress(asyncio.CancelledError):
        await committing


async def test_generation_ends_when_its_log_takes_no_more() -> None:
    store = Told()
    live = LiveRun(running(), owned=True)
    gate = asyncio.Event()
    model = ScriptedModel([gate, "Hi ", STOP])
    generating = asyncio.create_task(Generation(store, Journal(store), model, Policy()).generate(live))
    await model.asked(0)
    live.lose()
    gate.set()
    with pytest.raises(ChatError) as caught:
        await soon(generating)
    assert caught.value.code == "run_taken"
    assert model.requests[0].closed.is_set()


# --- after a crash


def resumed(run: Run, log: list[Event], policy: Policy) -> tuple[bool, list[Event]]:
    """Whether a run that was taken over goes on, and what is recorded of it."""
    live = LiveRun(run, owned=True)
    live.feed(1, log)
    store = Told()
    goes_on = Generation(store, Journal(store), ScriptedModel(), policy).resume(live)
    return goes_on, live.pending


async def test_run_of_which_nothing_was_shown_starts_over() -> None:
    assert resumed(running(epoch=2), [], Policy()) == (True, [])
    assert resumed(running(epoch=2), [], Policy(crash_recovery=CrashRecovery.INTERRUPT)) == (True, [])
    assert resumed(running(epoch=8), [], Policy(takeovers=8)) == (True, [])
    assert resumed(running(epoch=9), [], Policy(takeovers=8)) == (False, [])


async def test_run_of_which_something_was_shown_goes_on_behind_a_seam() -> None:
    assert resumed(running(epoch=2), [HI], Policy()) == (True, [Seam(2)])
    assert resumed(running(epoch=2), [HI], Policy(crash_recovery=CrashRecovery.INTERRUPT)) == (False, [])


async def test_run_that_kills_its_processes_is_given_up_but_one_that_comes_along_is_not() -> None:
    policy = Policy(takeovers=2)
    assert resumed(running(epoch=3), [HI, Seam(2)], policy) == (True, [Seam(3)])
    assert resumed(running(epoch=4), [HI, Seam(2), Seam(3)], policy) == (False, [])
    assert resumed(running(epoch=9), [HI, Seam(7), Seam(8), THERE], policy) == (True, [Seam(9)])


async def test_model_is_asked_to_go_on_from_what_was_shown() -> None:
    store = Told()
    live = LiveRun(running(epoch=2), owned=True)
    live.feed(1, [ReasoningDelta("hm"), HI])
    model = ScriptedModel(["there", STOP])
    terminal = await Generation(store, Journal(store), model, Policy(answer_limit=10)).generate(live)
    assert model.requests[0].request.prefix == "Hi "
    assert uncounted(terminal) == completed("Hi there", "stop", None)  # the limit counts what was there already
    longer = LiveRun(running(epoch=2), owned=True)
    longer.feed(1, [HI, TextDelta("the")])
    terminal = await Generation(store, Journal(store), model, Policy(answer_limit=10)).generate(longer)
    assert isinstance(terminal, RunFailed)
