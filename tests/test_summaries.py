"""Summaries: what is folded into one, who is told of it, and what becomes of those that fail."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from chat.commands import Answering, NewRetry, Under
from chat.context import Budgets
from chat.errors import StoreUnavailableError
from chat.events import RunFailed, ToolDelta, ToolStarted
from chat.ids import new_id
from chat.memory import MemoryPolicy, read_record
from chat.ports import Finished, Part
from chat.sessions import Turn
from chat.terms import Terms, ToolSpec
from tests.remembering import BROKEN, SMALL, SUMMARIES, Minds, answer, asked, beside, padded, quiet, summary, talk
from tests.scripted import STOP, ScriptedModel, Step, engine_on, everything, message

# --- summaries


async def test_what_falls_out_is_told_as_a_summary(file: Path) -> None:
    minds = Minds(summaries=["Ann likes tea.", STOP])
    async with engine_on(file, minds, replace(SMALL, system_prompt="Be kind"), memory=SUMMARIES) as engine:
        await talk(engine, "I like tea, says Ann", "Two")
        kept = await summary(engine)
        assert kept is not None
        run = await engine.run(kept.run_id)
        assert (kept.text, kept.model, kept.created_at) == ("Ann likes tea.", "scripted", run.finished_at)
        assert (run.kind, run.status, run.answer_id, run.message_id) == ("summary", "completed", "", kept.up_to)
        messages = (await engine.store.messages("ses_1", 10, None)).items
        assert kept.up_to == messages[1].id
        [request] = minds.summaries.requests
        assert (request.request.model, request.request.tools) == ("scripted", [])
        (_, instruction), (_, record) = asked(request)
        assert "at most 14 words" in instruction
        assert [line["content"][:16] for line in read_record(record)] == ["I like tea, says", "a" * 16]
        await talk(engine, "Three")
    (_, prompt), (_, told), *turns = asked(minds.answers.requests[-1])
    assert prompt == "Be kind"
    assert "<summary>\nAnn likes tea.\n</summary>" in told
    assert turns == [("user", padded("Three"))]  # so small a window has no room for more than the question


async def test_next_summary_takes_the_earlier_one_in(file: Path) -> None:
    minds = Minds()
    async with engine_on(file, minds, SMALL, memory=SUMMARIES) as engine:
        await talk(engine, "One", "Two", "Three")
    first, second = [read_record(asked(request)[1][1]) for request in minds.summaries.requests]
    assert [line["content"][:3] for line in first] == ["One", "aaa"]
    assert second[0] == {"summary": "Sum."}
    assert [line["content"][:3] for line in second[1:]] == ["Two", "aaa"]


async def test_prompts_take_their_room_from_the_window(file: Path) -> None:
    minds = Minds()
    policy = replace(SMALL, budgets=Budgets(150), system_prompt="p" * 20)  # 600 bytes, 150 of them for the summary
    async with engine_on(file, minds, policy, memory=SUMMARIES) as engine:
        await talk(engine, "One", "Two")
        assert await summary(engine) is None
        await answer(engine, "Three", session_id="ses_2")
        await answer(engine, "Four", session_id="ses_2", terms=Terms("i" * 50))
        await quiet(engine)
        assert await summary(engine, "ses_2") is not None


async def test_short_conversation_has_no_summary_and_one_that_is_not_wanted_is_not_made(file: Path) -> None:
    minds = Minds()
    async with engine_on(file, minds, memory=SUMMARIES) as engine:
        await talk(engine, "One", "Two", "Three")
        assert await summary(engine) is None
    async with engine_on(file, minds, SMALL) as engine:
        await talk(engine, "Four")
        assert await summary(engine) is None
    assert minds.summaries.requests == []


async def test_summary_is_made_by_the_model_that_is_named_for_it(file: Path) -> None:
    minds = Minds()
    policy = MemoryPolicy(summaries=True, titles=True, summary_model="cheap", title_model="cheaper")
    budgets = Budgets(10_000, {"scripted": 100})
    async with engine_on(file, minds, replace(SMALL, budgets=budgets), memory=policy) as engine:
        await talk(engine, "One", "Two")
        kept = await summary(engine)
        assert kept is not None
        assert kept.model == "cheap"
    assert [minds.summaries.requests[0].request.model, minds.titles.requests[0].request.model] == ["cheap", "cheaper"]


async def test_summary_holds_for_the_branches_that_go_through_its_end(file: Path) -> None:
    minds = Minds()
    async with engine_on(file, minds, SMALL, memory=SUMMARIES) as engine:
        await talk(engine, "One", "Two", "Three")  # folded up to the answers to One and to Two
        messages = (await engine.store.messages("ses_1", 10, None)).items
        one, two, _ = [item.id for item in messages if item.role == "assistant"]
        latest = await summary(engine)
        assert latest is not None
        await answer(engine, "Edited three", place=Under(one))
        earlier = await summary(engine)
        assert earlier is not None
        assert (earlier.up_to, latest.up_to) == (one, two)
        await quiet(engine)
        await answer(engine, "All anew", place=Under(None))
        assert await summary(engine) is None
        assert [role for role, _ in asked(minds.answers.requests[-1])] == ["user"]
        await quiet(engine)
        await answer(engine, "Back there", place=Under(two))
        assert await summary(engine) == latest


async def test_retry_is_told_of_the_same_summary(file: Path) -> None:
    minds = Minds()
    async with engine_on(file, minds, SMALL, memory=SUMMARIES) as engine:
        await talk(engine, "One", "Two")
        run = (await engine.start(message(padded("Three")))).run
        await everything(engine, run.id)
        again = await engine.start(NewRetry(new_id("run"), run.id, "scripted"))
        await everything(engine, again.run.id)
        await quiet(engine)
    assert asked(minds.answers.requests[-1]) == asked(minds.answers.requests[-2])
    assert "<summary>" in asked(minds.answers.requests[-1])[0][1]


async def test_summary_of_a_long_session_catches_up_answer_by_answer(file: Path) -> None:
    minds = Minds()
    policy = replace(SMALL, budgets=Budgets(100, {"reader": 250}))
    async with engine_on(file, minds, policy) as engine:
        await talk(engine, *"123456")
    async with engine_on(file, minds, policy, memory=replace(SUMMARIES, summary_model="reader")) as engine:
        await talk(engine, *"7890")
    told = [
        "".join(line["content"][0] for line in read_record(asked(request)[1][1]) if line.get("role") == "user")
        for request in minds.summaries.requests
    ]
    assert told == ["12", "34", "56", "78"]


# --- what fails


async def test_summary_that_fails_harms_nobody_and_is_asked_for_again_later(file: Path) -> None:
    minds = Minds(summaries=[BROKEN])
    async with engine_on(file, minds, SMALL, memory=SUMMARIES) as engine:
        await talk(engine, "One", "Two")
        assert len(minds.summaries.requests) == 1
        await talk(engine, "Three")
        assert len(minds.summaries.requests) == 1
        minds.summaries.scripts = (["Sum.", STOP],)
        await talk(engine, "Four")
        assert len(minds.summaries.requests) == 2
        kept = await summary(engine)
        assert kept is not None
        record = read_record(asked(minds.summaries.requests[-1])[1][1])
        assert record[0]["content"][:3] == "One"  # nothing is left out
        assert [role for role, _ in asked(minds.answers.requests[-1])] == ["user", "assistant"] * 2 + ["user"]


@pytest.mark.parametrize("said", [[" \n", STOP], [STOP]])
async def test_summary_without_a_word_is_none(file: Path, said: list[Step]) -> None:
    minds = Minds(summaries=said)
    async with engine_on(file, minds, SMALL, memory=SUMMARIES) as engine:
        await talk(engine, "One", "Two", "Three")
        assert await summary(engine) is None
    assert len(minds.summaries.requests) == 1


async def test_summary_that_grows_without_end_is_stopped(
    file: Path, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat.engine.ANSWER_LIMIT", 100)
    minds = Minds(summaries=[gate, "x" * 101, STOP])
    async with engine_on(file, minds, SMALL, memory=SUMMARIES) as engine:
        await answer(engine, "One")
        await answer(engine, "Two")
        run = await beside(engine)
        gate.set()
        [end] = await everything(engine, run.id)
        assert isinstance(end, RunFailed)
        assert end.code == "answer_too_long"


async def test_store_that_is_away_costs_a_summary_and_no_answer(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailableError

    minds = Minds()
    async with engine_on(file, minds, SMALL, memory=SUMMARIES) as engine:
        monkeypatch.setattr(engine.store, "recollection", away)
        with caplog.at_level(logging.WARNING, "chat.engine"):
            await talk(engine, "One")
        assert [record.message for record in caplog.records] == ["no memory of this answer: store_unavailable"]


async def test_call_that_is_left_to_the_client_is_not_folded_before_its_result_is_there(file: Path) -> None:
    minds, terms = Minds(), Terms(tools=[ToolSpec("look", "Looks.", {"type": "object"})])
    look: list[Part] = [ToolStarted("call_9", "look"), ToolDelta("call_9", "{}")]
    minds.answers = ScriptedModel(["a" * 400, [*look, Finished("tool_calls")]], ["Rain.", STOP])
    async with engine_on(file, minds, SMALL, memory=SUMMARIES) as engine:
        run = (await engine.start(message("Hello", terms=terms))).run
        await everything(engine, run.id)
        await quiet(engine)
        assert minds.summaries.requests == []
        [step] = (await engine.answer(run)).steps
        told = replace(step, calls=[replace(call, result="A cloud") for call in step.calls])
        turns = [Turn("assistant", "a" * 400, [told])]
        await everything(engine, (await engine.start(message(turns=turns, place=Answering(run.answer_id)))).run.id)
        await quiet(engine)
    [request] = minds.summaries.requests
    assert "A cloud" in asked(request)[1][1]
