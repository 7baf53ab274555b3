import asyncio
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat import engine as chat_engine
from chat import following as chat_following
from chat import live as chat_live
from chat.commands import Claim, NewRetry, OnBusy
from chat.commits import Batch
from chat.engine import Engine
from chat.errors import ChatError, StoreUnavailableError
from chat.events import Event, RunCancelled, RunCompleted, TextDelta, completed
from chat.runs import Run, RunStatus
from tests.patience import soon
from tests.scripted import (
    STOP,
    ScriptedModel,
    engine_on,
    everything,
    follow,
    message,
    opened,
    uncounted,
    unsteady,
    until_more,
)
from tests.store.sites import said

HI, THERE = TextDelta("Hi "), TextDelta("there")
DONE = completed("Hi there", "stop", None)


async def started(engine: Engine, text: str = "Hello", on_busy: OnBusy = OnBusy.REJECT) -> Run:
    return (await engine.start(message(text, on_busy=on_busy))).run


async def answered(engine: Engine, gate: asyncio.Event) -> Run:
    gate.set()
    return await soon(engine.result((await started(engine)).id))


async def refused(work: object) -> str:
    with pytest.raises(ChatError) as caught:
        await work  # type: ignore[misc]
    return caught.value.code


# --- start


async def test_run_is_stored_before_it_is_known_and_then_answered(engine: Engine, gate: asyncio.Event) -> None:
    start = await engine.start(message())
    assert await engine.store.run(start.run.id) == start.run
    gate.set()
    ended = await soon(engine.result(start.run.id))
    assert (ended.status, uncounted(ended.terminal), (await engine.answer(ended)).content) == (
        RunStatus.COMPLETED,
        DONE,
        "Hi there",
    )


async def test_request_that_goes_away_while_it_starts_still_gets_its_run(engine: Engine, gate: asyncio.Event) -> None:
    new = message()
    starting = asyncio.create_task(engine.start(new))
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait({starting})
    gate.set()
    again = await engine.start(message("More", on_busy=OnBusy.QUEUE))  # behind the other, as it was stored
    assert (await soon(engine.result(again.run.id))).status is RunStatus.COMPLETED
    assert (await engine.run(new.id)).status is RunStatus.COMPLETED


async def test_run_that_exists_is_not_begun_twice(engine: Engine, model: ScriptedModel, gate: asyncio.Event) -> None:
    claim = Claim("key", "print")
    first = await engine.start(message(claim=claim))
    again = await engine.start(message(claim=claim))
    assert (again.run.id, again.created) == (first.run.id, False)
    gate.set()
    await soon(engine.result(first.run.id))
    assert len(model.requests) == 1


async def test_process_that_shuts_down_takes_no_message(engine: Engine) -> None:
    await soon(engine.drain(0))
    assert await refused(engine.start(message())) == "draining"
    assert await engine.store.session("ses_1") is None


async def test_message_is_answered_again(engine: Engine, gate: asyncio.Event, model: ScriptedModel) -> None:
    run = await answered(engine, gate)
    retry = await engine.start(NewRetry("run_2", run.id, "scripted"))
    assert (await soon(engine.result(retry.run.id))).message_id == run.message_id
    assert model.requests[0].request.messages == model.requests[1].request.messages


async def test_message_that_interrupts_is_answered_when_the_other_has_stopped(
    engine: Engine, model: ScriptedModel
) -> None:
    model.scripts = (["Hi ", asyncio.Event()], ["Ho", STOP])
    first = await started(engine)
    await model.asked(0)
    second = await started(engine, "Stop", OnBusy.INTERRUPT)
    assert (await soon(engine.result(second.id))).status is RunStatus.COMPLETED
    assert uncounted((await engine.run(first.id)).terminal) == RunCancelled("interrupted_by_next_message")
    assert (await model.asked(0)).closed.is_set()


async def test_message_that_cannot_interrupt_waits(
    engine: Engine, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = asyncio.Event()

    async def fail(run_id: str, reason: str) -> Run:
        tried.set()
        raise StoreUnavailableError

    monkeypatch.setattr(engine, "cancel", fail)
    await started(engine)
    second = await started(engine, "Stop", OnBusy.INTERRUPT)
    await soon(tried.wait())
    gate.set()
    assert (await soon(engine.result(second.id))).status is RunStatus.COMPLETED
    assert "could not interrupt: store_unavailable" in caplog.messages


# --- follow


async def test_every_follower_gets_all_behind_its_cursor(engine: Engine, gate: asyncio.Event) -> None:
    run = await started(engine)
    log = [HI, THERE, DONE]
    live = [asyncio.create_task(everything(engine, run.id, after)) for after in range(5)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*live) == [log, log[1:], log[2:], [], []]
    assert [await everything(engine, run.id, after) for after in range(5)] == [log, log[1:], log[2:], [], []]


@settings(max_examples=25)
@given(visits=st.lists(st.lists(st.integers(0, 2), max_size=2), max_size=6))
async def test_followers_that_come_and_go_lose_nothing(
    engine: Engine, model: ScriptedModel, visits: list[list[int]]
) -> None:
    """``visits``: after each word, followers that come and the reads after which each goes again."""
    gates = [asyncio.Event() for _ in visits]
    script = [step for number, gate in enumerate(gates) for step in (gate, f"{number} ")]
    model.scripts = ([*script, STOP],)
    run = (await engine.start(message(session_id=f"ses_{len(model.requests)}"))).run
    seen: list[Event] = []
    for number, (gate, reads) in enumerate(zip(gates, visits, strict=True), 1):
        gate.set()
        for count in reads:
            async with aclosing(follow(engine, run.id, len(seen))) as batches:
                for _ in range(count):
                    if len(seen) < number:
                        batch = await soon(anext(batches))
                        assert batch.first_seq == len(seen) + 1
                        seen += batch.events
    seen += await everything(engine, run.id, len(seen))
    assert seen == await everything(engine, run.id)
    assert seen[:-1] == [TextDelta(f"{number} ") for number in range(len(visits))]
    assert isinstance(seen[-1], RunCompleted)


@pytest.mark.parametrize("ended", [False, True], ids=["live", "ended"])
async def test_long_replay_comes_in_pages_and_lets_others_live(
    engine: Engine, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch, *, ended: bool
) -> None:
    monkeypatch.setattr(chat_live, "FOLLOW_EVENTS", 3)
    monkeypatch.setattr(chat_following, "FOLLOW_EVENTS", 3)
    texts = [f"{number} " for number in range(7)]
    model.scripts = ([*texts, STOP if ended else asyncio.Event()],)
    run = await started(engine)
    await (engine.result(run.id) if ended else soon(anext(follow(engine, run.id, 6))))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(others())
    pages: list[Batch] = []
    seen_at: list[int] = []
    async with aclosing(follow(engine, run.id, 0)) as batches:
        while len(pages) < 3:
            pages.append(await soon(anext(batches)))
            seen_at.append(turns)
    counting.cancel()
    assert [len(page.events) for page in pages] == [3, 3, 2 if ended else 1]
    assert [event for page in pages for event in page.events][:7] == [TextDelta(text) for text in texts]
    assert seen_at == sorted(set(seen_at))  # between two pages, others had their turn


async def test_follower_that_waits_can_be_nudged(engine: Engine, gate: asyncio.Event) -> None:
    run = await started(engine)
    with closing(await engine.follower(run.id, 0)) as follower:
        follower.nudge()  # nobody waits yet
        batch = await soon(follower.next())
        assert batch is not None
        assert batch.events
        seen = len(batch.events)
        for _ in range(2):
            waiting = asyncio.create_task(follower.next())
            await asyncio.sleep(0)
            follower.nudge()
            follower.nudge()
            assert await soon(waiting) == Batch(seen + 1, ())
        gate.set()
        while (batch := await soon(follower.next())) is not None:
            assert batch.first_seq == seen + 1
            seen += len(batch.events)
        assert await follower.next() is None
    assert seen == len(await everything(engine, run.id))


async def test_page_is_small_however_long_its_events_are(engine: Engine, gate: asyncio.Event) -> None:
    run = await started(engine)
    live = engine._live.owned(run.id)
    assert live is not None
    texts = [letter * 30_000 for letter in "abcdefg"]
    await until_more(live, 0)
    for text in texts:
        engine._journal.append(live, TextDelta(text[:15_000]))
        engine._journal.append(live, TextDelta(text[15_000:]))
        await soon(engine._journal.flush())
    gate.set()
    batches = [batch async for batch in follow(engine, run.id, 0)]
    sizes = [sum(len(event.text) for event in batch.events if isinstance(event, TextDelta)) for batch in batches]
    assert max(sizes) < chat_live.FOLLOW_CHARS + 15_000
    assert sum(sizes) == 7 * 30_000 + len("Hi there")


async def test_run_that_is_not_there_cannot_be_followed(engine: Engine) -> None:
    assert await refused(everything(engine, "run_unknown")) == "not_found"
    assert await refused(engine.result("run_unknown")) == "not_found"
    assert await refused(engine.run("run_unknown")) == "not_found"


async def test_follower_is_told_that_nothing_can_be_stored(engine: Engine, gate: asyncio.Event) -> None:
    run = await started(engine)
    following = follow(engine, run.id, 0)
    assert await soon(anext(following)) == Batch(1, [HI])
    unsteady(engine).fault = StoreUnavailableError()
    gate.set()
    assert await refused(soon(anext(following))) == "store_unavailable"
    unsteady(engine).fault = None


async def test_followers_go_when_the_process_does(engine: Engine) -> None:
    run = await started(engine)
    following = follow(engine, run.id, 0)
    assert await soon(anext(following)) == Batch(1, [HI])
    waiting = asyncio.create_task(engine.result(run.id))
    await asyncio.sleep(0)
    await soon(engine.drain(0))
    assert [batch async for batch in following] == []  # no end: it goes on elsewhere
    with pytest.raises(ChatError) as caught:
        await soon(waiting)
    assert (caught.value.code, caught.value.details) == ("draining", {"run_id": run.id})


async def test_answer_of_a_run_that_said_nothing_is_empty(engine: Engine, model: ScriptedModel) -> None:
    model.scripts = ([STOP],)
    run = await soon(engine.result((await started(engine)).id))
    assert (await engine.answer(run)).content == ""


# --- resume


async def test_cursor_is_compared_with_what_was_shown(engine: Engine, gate: asyncio.Event) -> None:
    run = await started(engine)
    following = follow(engine, run.id, 0)
    await soon(anext(following))
    for after in (0, 1):
        assert (await engine.resumable(run.id, after)).id == run.id
    with pytest.raises(ChatError) as caught:
        await engine.resumable(run.id, 2)
    assert caught.value.code == "cursor_ahead"
    gate.set()
    await soon(engine.result(run.id))
    for after in (0, 1, 2, 3):
        assert (await engine.resumable(run.id, after)).status is RunStatus.COMPLETED
    assert await refused(engine.resumable(run.id, 4)) == "cursor_ahead"
    assert await refused(engine.resumable(run.id, 10**18 - 1)) == "cursor_ahead"
    assert await refused(engine.resumable("run_unknown", 0)) == "not_found"
    await engine.store.sweep(0)
    assert (await engine.resumable(run.id, 0)).id == run.id
    assert await refused(engine.resumable(run.id, 1)) == "cursor_expired"
    assert (await engine.resumable(run.id, 2)).id == run.id
    assert [batch.first_seq async for batch in follow(engine, run.id, 0)] == [2]


async def test_cursor_into_a_run_that_waits_or_is_elsewhere_is_looked_up(file: Path, engine: Engine) -> None:
    run = await started(engine)
    await soon(anext(follow(engine, run.id, 0)))
    waiting = await started(engine, "More", OnBusy.QUEUE)
    assert (await engine.resumable(waiting.id, 0)).id == waiting.id
    for after in (1, 10**18 - 1):
        assert await refused(engine.resumable(waiting.id, after)) == "cursor_ahead"
    async with engine_on(file, ScriptedModel()) as other:
        for after in (0, 1):
            assert (await other.resumable(run.id, after)).id == run.id
        assert await refused(other.resumable(run.id, 2)) == "cursor_ahead"


# --- cancel


async def test_cancelled_run_is_over_when_the_answer_comes(engine: Engine, model: ScriptedModel) -> None:
    run = await started(engine)
    await model.asked(0)
    cancelled = await soon(engine.cancel(run.id, "requested"))
    assert (cancelled.status, uncounted(cancelled.terminal)) == (RunStatus.CANCELLED, RunCancelled("requested"))
    assert model.requests[0].closed.is_set()
    assert await engine.cancel(run.id, "too late") == cancelled
    assert await refused(engine.cancel("run_unknown", "requested")) == "not_found"


async def test_run_that_waits_is_cancelled_without_being_asked(engine: Engine, model: ScriptedModel) -> None:
    await started(engine)
    waiting = await started(engine, "More", OnBusy.QUEUE)
    assert (await soon(engine.cancel(waiting.id, "requested"))).terminal == RunCancelled("requested")
    assert len(model.requests) <= 1


async def test_run_whose_turn_comes_while_it_is_cancelled_is_stopped(
    engine: Engine, model: ScriptedModel, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.scripts = ([gate, STOP], ["Hi ", asyncio.Event()])
    first = await started(engine)
    second = await started(engine, "More", OnBusy.QUEUE)
    request_cancel = engine.store.request_cancel

    async def meanwhile(run_id: str, reason: str) -> None:
        gate.set()
        await soon(engine.result(first.id))
        await model.asked(1)
        await request_cancel(run_id, reason)

    async def nothing() -> list[tuple[str, str]]:
        return []

    monkeypatch.setattr(engine.store, "request_cancel", meanwhile)
    monkeypatch.setattr(engine.store, "cancel_requests", nothing)  # which would find it, too, but later
    assert uncounted((await soon(engine.cancel(second.id, "requested"))).terminal) == RunCancelled("requested")


async def test_run_of_another_process_is_cancelled_there(file: Path, engine: Engine, model: ScriptedModel) -> None:
    run = await started(engine)
    await model.asked(0)
    async with engine_on(file, ScriptedModel()) as other:
        assert uncounted((await soon(other.cancel(run.id, "requested"))).terminal) == RunCancelled("requested")


async def test_cancel_does_not_wait_for_ever(file: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_engine, "CANCEL_WAIT", 0.01)
    async with opened(file) as frozen:  # it lives, and does not listen
        run = (await frozen.start_run(message())).run
        assert (await soon(engine.cancel(run.id, "requested"))).status is RunStatus.RUNNING
        assert list(await frozen.cancel_requests()) == [(run.id, "requested")]


# --- delete


async def test_session_that_is_answering_is_stopped_and_deleted(engine: Engine, model: ScriptedModel) -> None:
    run = await started(engine)
    waiting = await started(engine, "More", OnBusy.QUEUE)
    await model.asked(0)
    following = asyncio.create_task(everything(engine, run.id))
    assert await soon(engine.delete_session("ses_1"))
    assert model.requests[0].closed.is_set()
    assert (await following)[-1] == RunCancelled("session_deleted")
    for gone in (run, waiting):
        assert await refused(engine.run(gone.id)) == "not_found"
    assert not await engine.delete_session("ses_1")


async def test_session_is_deleted_although_its_owner_does_not_listen(
    file: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_engine, "CANCEL_WAIT", 0.01)
    async with opened(file) as frozen:
        run = (await frozen.start_run(message())).run
        assert await soon(engine.delete_session("ses_1"))
        assert (await frozen.commit([said(run, RunCancelled("too late"))])).lost == {run.id}
