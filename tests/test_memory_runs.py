"""The runs beside the conversation: titles, what they hold up and what ends them, crashes and several processes."""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from chat.commands import NewRetry, NewSideRun, OnBusy
from chat.engine import Engine
from chat.errors import ChatError
from chat.events import RunCancelled, Seam, TextDelta, completed
from chat.ids import new_id
from chat.memory import read_record
from chat.runs import Run, RunKind, RunStatus
from chat.sessions import NewSession
from tests.patience import soon
from tests.remembering import (
    BOTH,
    BROKEN,
    SMALL,
    SUMMARIES,
    TITLES,
    Minds,
    answer,
    asked,
    beside,
    padded,
    quiet,
    summary,
    talk,
    title,
)
from tests.scripted import STOP, engine_on, everything, message
from tests.shop import CALLS, Shop, order

KINDS = [RunKind.SUMMARY, RunKind.TITLE]


async def shown(engine: Engine, run_id: str) -> None:
    """Returns when something of the run is committed."""
    with closing(await engine.follower(run_id, 0)) as follower:
        await soon(follower.next())


# --- titles


async def test_session_without_a_title_gets_one_after_its_first_answer(file: Path) -> None:
    minds = Minds(titles=['"Ann and  tea."\n', STOP])
    async with engine_on(file, minds, memory=TITLES) as engine:
        await talk(engine, "I like tea", "And now?")
        assert await title(engine) == "Ann and tea"
        session = await engine.store.session("ses_1")
        assert session is not None
        assert session.message_count == 4
    [request] = minds.titles.requests
    record = read_record(asked(request)[1][1])
    assert [(line["role"], line["content"]) for line in record] == [
        ("user", padded("I like tea")), ("assistant", "a" * 60),
    ]  # fmt: skip


async def test_title_of_the_clients_own_stays(file: Path, gate: asyncio.Event) -> None:
    minds = Minds(titles=[gate, "A title", STOP])
    async with engine_on(file, minds, memory=TITLES) as engine:
        await answer(engine, session=NewSession("ses_2", "ann", "Mine"))
        await quiet(engine)
        assert minds.titles.requests == []
        await answer(engine)
        run = await beside(engine)
        await engine.store.update_session("ses_1", {"title": "Set meanwhile"})
        gate.set()
        await quiet(engine)
        assert (await engine.run(run.id)).status is RunStatus.COMPLETED
        assert [await title(engine), await title(engine, "ses_2")] == ["Set meanwhile", "Mine"]


async def test_title_that_was_taken_away_is_not_made_again(file: Path) -> None:
    minds = Minds()
    async with engine_on(file, minds, memory=TITLES) as engine:
        await talk(engine, "One")
        await engine.store.update_session("ses_1", {"title": None})
        await talk(engine, "Two")
        assert await title(engine) is None
    assert len(minds.titles.requests) == 1


async def test_title_is_not_made_for_an_answer_that_did_not_come(file: Path) -> None:
    minds = Minds(answers=[BROKEN])
    async with engine_on(file, minds, SMALL, memory=BOTH) as engine:
        await talk(engine, "One")
    assert minds.titles.requests == []


# --- beside the conversation


async def test_answer_does_not_wait_for_a_summary_that_hangs(file: Path, gate: asyncio.Event) -> None:
    minds = Minds(summaries=["Sum", gate, "."])
    async with engine_on(file, minds, SMALL, memory=SUMMARIES) as engine:
        await answer(engine, "One")
        await answer(engine, "Two")
        run = await beside(engine)
        assert await engine.store.active_run("ses_1") is None
        for text in ("Three", "Four"):
            assert (await answer(engine, text))[-1] == completed("a" * 60, "stop", None)
        assert len(minds.summaries.requests) == 1  # one at a time
        assert (await engine.cancel(run.id, "requested")).status is RunStatus.CANCELLED
        assert await everything(engine, run.id) == [TextDelta("Sum"), RunCancelled("requested")]
        assert await summary(engine) is None
        assert (await engine.store.messages("ses_1", 20, None)).items[-1].content == "a" * 60


async def test_message_that_interrupts_or_queues_minds_answers_only(file: Path, gate: asyncio.Event) -> None:
    minds = Minds(titles=[gate, "A title", STOP])
    async with engine_on(file, minds, memory=TITLES) as engine:
        await answer(engine)
        run = await beside(engine)
        for on_busy in (OnBusy.REJECT, OnBusy.QUEUE, OnBusy.INTERRUPT):
            started = await engine.start(message(on_busy=on_busy))
            assert (started.run.status, started.interrupts) == (RunStatus.RUNNING, None)
            await everything(engine, started.run.id)
        assert (await engine.run(run.id)).status is RunStatus.RUNNING
        gate.set()
        await quiet(engine)
        assert await title(engine) == "A title"


async def test_queued_message_gets_its_turn_while_a_summary_is_made(file: Path, gate: asyncio.Event) -> None:
    minds = Minds(summaries=[gate, "Sum.", STOP])
    minds.answers.scripts = (["a" * 60, STOP], ["a" * 60, STOP], [gate2 := asyncio.Event(), "Late", STOP])
    async with engine_on(file, minds, SMALL, memory=SUMMARIES) as engine:
        await answer(engine, "One")
        await answer(engine, "Two")
        await beside(engine)
        first = (await engine.start(message())).run
        queued = (await engine.start(message(on_busy=OnBusy.QUEUE))).run
        assert queued.status is RunStatus.QUEUED
        gate2.set()
        await everything(engine, first.id)
        assert (await everything(engine, queued.id))[-1] == completed("Late", "stop", None)
        gate.set()
        await quiet(engine)


async def test_run_beside_the_conversation_cannot_be_answered_once_more(file: Path) -> None:
    async with engine_on(file, Minds(), SMALL, memory=SUMMARIES) as engine:
        await talk(engine, "One", "Two")
        kept = await summary(engine)
        assert kept is not None
        with pytest.raises(ChatError) as caught:
            await engine.start(NewRetry(new_id("run"), kept.run_id, "scripted"))
        assert caught.value.code == "invalid_request"


async def test_tools_are_out_of_a_summarys_reach(file: Path) -> None:
    shop = Shop()
    minds = Minds(summaries=[order("cake"), CALLS])
    async with engine_on(file, minds, SMALL, memory=SUMMARIES, tools=shop.box) as engine:
        await talk(engine, "One", "Two")
        assert await summary(engine) is None
    assert shop.calls == []
    assert minds.answers.requests[0].request.tools
    assert len(minds.summaries.requests) == 1


async def test_session_is_deleted_with_the_summary_that_is_being_made(file: Path) -> None:
    never = asyncio.Event()
    minds = Minds(summaries=["Sum", never])
    async with engine_on(file, minds, SMALL, memory=SUMMARIES) as engine:
        await answer(engine, "One")
        await answer(engine, "Two")
        run = await beside(engine)
        await minds.summaries.asked(0)
        assert await soon(engine.delete_session("ses_1"))
        assert (await minds.summaries.asked(0)).closed.is_set()
        await quiet(engine)
        with pytest.raises(ChatError):
            await engine.run(run.id)


async def test_session_that_is_deleted_elsewhere_leaves_nothing_of_its_summary(file: Path, gate: asyncio.Event) -> None:
    minds = Minds(summaries=["Sum", gate, STOP], titles=[gate, "A title", STOP])
    async with engine_on(file, minds, SMALL, memory=BOTH) as engine:
        await answer(engine, "One")
        await beside(engine)
        await engine.store.delete_session("ses_1")
        gate.set()
        await quiet(engine)
        assert await engine.store.session("ses_1") is None
        assert len(minds.titles.requests) == 1


async def test_session_that_is_gone_is_not_remembered(file: Path) -> None:
    minds = Minds()
    async with engine_on(file, minds, SMALL, memory=BOTH) as engine:
        run = (await engine.start(message(padded("One")))).run
        await everything(engine, run.id)
        await quiet(engine)
        await engine.store.delete_session("ses_1")
        await engine._remember(run, KINDS)
        assert await engine._memory.due(run, KINDS) == []


# --- crashes, and several processes


async def test_summary_goes_on_where_its_process_was_killed(file: Path) -> None:
    never = asyncio.Event()
    dying = Minds(summaries=["Ann likes ", never])
    async with engine_on(file, dying, SMALL, memory=SUMMARIES) as engine:
        await answer(engine, "One")
        await answer(engine, "Two")
        run = await beside(engine)
        await shown(engine, run.id)
    minds = Minds(summaries=["tea.", STOP])
    async with engine_on(file, minds, SMALL, memory=SUMMARIES) as engine:
        log = await everything(engine, run.id)
        assert log == [TextDelta("Ann likes "), Seam(2), TextDelta("tea."), completed("Ann likes tea.", "stop", None)]
        await quiet(engine)
        kept = await summary(engine)
        assert kept is not None
        assert (kept.text, kept.run_id) == ("Ann likes tea.", run.id)
    assert minds.summaries.requests[0].request.prefix == "Ann likes "
    assert asked(minds.summaries.requests[0]) == asked(dying.summaries.requests[0])


async def test_shutdown_does_not_wait_for_a_summary(file: Path) -> None:
    never = asyncio.Event()
    async with engine_on(file, Minds(summaries=[never]), SMALL, memory=SUMMARIES) as engine:
        await answer(engine, "One")
        await answer(engine, "Two")
        run = await beside(engine)
        await soon(engine.drain(600))
        assert (await engine.run(run.id)).status is RunStatus.RUNNING


async def test_nothing_is_begun_while_the_process_shuts_down(file: Path, gate: asyncio.Event) -> None:
    minds = Minds(answers=[gate, "a" * 60, STOP])
    async with engine_on(file, minds, memory=TITLES) as engine:
        run = (await engine.start(message())).run
        await minds.answers.asked(0)
        draining = asyncio.create_task(engine.drain(600))
        await asyncio.sleep(0)
        gate.set()
        await soon(draining)
        assert (await engine.run(run.id)).status is RunStatus.COMPLETED
    assert minds.titles.requests == []


async def test_of_two_processes_one_makes_the_summary(file: Path, gate: asyncio.Event) -> None:
    minds, others = Minds(summaries=[gate, "Sum.", STOP]), Minds()
    async with (
        engine_on(file, minds, SMALL, memory=SUMMARIES) as engine,
        engine_on(file, others, SMALL, memory=SUMMARIES) as other,
    ):
        await answer(engine, "One")
        run = (await engine.start(message(padded("Two")))).run
        await everything(engine, run.id)
        await beside(engine)
        due = await other._memory.due(await other.run(run.id), KINDS[:1])
        assert due == []
        await talk(other, "Three")
        gate.set()
        await quiet(engine)
        assert (await summary(other)) == (await summary(engine))
    assert others.summaries.requests == []


async def test_who_comes_second_starts_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minds = Minds()
    async with engine_on(file, minds, SMALL) as engine:
        await answer(engine, "One")
        run = (await engine.start(message(padded("Two")))).run
        await everything(engine, run.id)
        await quiet(engine)
        engine._memory._policy = SUMMARIES
        [new], [late] = [await engine._memory.due(run, KINDS[:1]) for _ in range(2)]
        started = await engine.store.start_side_run(new)
        assert started is not None
        assert (started.status, started.epoch, started.kind) == (RunStatus.RUNNING, 1, RunKind.SUMMARY)
        assert await engine.store.start_side_run(late) is None

        async def believed(_: Run, __: object) -> list[NewSideRun]:
            return [late]

        monkeypatch.setattr(engine._memory, "due", believed)
        await engine._remember(run, KINDS)
        await quiet(engine)
    assert minds.summaries.requests == []


async def test_store_is_asked_about_summaries_only_where_the_window_fills(file: Path) -> None:
    minds = Minds()
    async with engine_on(file, minds, SMALL, memory=BOTH) as engine:
        room = SMALL.budgets.room("scripted")
        assert engine._memory.wanted("scripted", room // 10) == [RunKind.TITLE]
        assert engine._memory.wanted("scripted", room // 5) == KINDS
