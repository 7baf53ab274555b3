"""What every store does, :class:`chat.ports.Store`: runs and their logs. Its processes and sessions: beside."""

import sys
from typing import get_args

import pytest

from chat.commands import Claim, Leaf, Matching, NewRetry, OnBusy, Place, Started, Under
from chat.errors import ChatError
from chat.events import (
    Event,
    ReasoningDelta,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    Seam,
    Terminal,
    TextDelta,
    Usage,
    completed,
    name_of,
)
from chat.ports import Store
from chat.runs import Run, RunStatus
from chat.sessions import NewSession, Turn
from chat.terms import NO_TERMS, Terms, ToolSpec
from tests.scripted import message
from tests.store.sites import logged, said

DONE = completed("Hi there", "stop", Usage(3, 2))
ANSWER = (TextDelta("Hi "), TextDelta("there"), DONE)

AWKWARD = " \n\r\n\0 'quoted' \"too\" \\ % ☃ \U0001f9d1‍\U0001f680 \ufeff{[null,"
"""Texts come back as they were, whatever they are made of."""

TERMS = Terms(
    "Be brief",
    [ToolSpec("look", "Looks.", {"type": "object"}), ToolSpec("ask", "", {}, strict=True)],
    {"temperature": 0, "stop": ["\0", "☃"]},
    {"metadata": {"☃": "\0"}},
)


async def started(store: Store, text: str = "Hello", session_id: str = "ses_1", **more: object) -> Run:
    return (await store.start_run(message(text, session_id, **more))).run


async def answered(store: Store, text: str = "Hello", session_id: str = "ses_1", **more: object) -> Run:
    """A run that has ended; as the store knows it then."""
    run = await started(store, text, session_id, **more)
    await store.commit([said(run, *ANSWER)])
    ended = await store.run(run.id)
    assert ended is not None
    return ended


async def tree(store: Store, session_id: str = "ses_1") -> list[tuple[str, str | None]]:
    """The session's messages: each one's text, and that of the message it follows."""
    messages = (await store.messages(session_id, 100, None)).items
    texts = {message.id: message.content for message in messages}
    return [(message.content, texts.get(message.parent_id or "")) for message in messages]


# --- starting


async def test_start_stores_session_message_and_run_together(store: Store) -> None:
    session = NewSession("ses_1", "ann", "A talk", {"color": "blue", "n": [1, None, "☃"]})
    new = message(AWKWARD, session=session, user_id="ann", terms=TERMS)
    start = await store.start_run(new)
    run = start.run
    assert (start.created, start.replayed, start.interrupts) == (True, False, None)
    assert (run.id, run.session_id, run.user_id, run.model) == (new.id, "ses_1", "ann", "scripted")
    assert (run.status, run.epoch, run.last_seq, run.terminal, run.finished_at) == (RunStatus.RUNNING, 1, 0, None, None)
    assert run.owner is not None
    stored = await store.session("ses_1")
    assert stored is not None
    assert (stored.user_id, stored.title, stored.metadata) == ("ann", "A talk", session.metadata)
    assert (stored.leaf_id, stored.message_count) == (run.message_id, 1)
    [said] = (await store.messages("ses_1", 10, None)).items
    assert (said.id, said.parent_id, said.role, said.content) == (run.message_id, None, "user", AWKWARD)
    assert (said.status, said.run_id) == ("completed", None)
    assert await store.run(run.id) == run == await store.active_run("ses_1")
    assert await store.terms(run.id) == TERMS


async def test_start_can_be_read_by_other_processes_at_once(store: Store, other: Store) -> None:
    run = await started(store)
    assert await other.run(run.id) == run
    assert await other.history(run.message_id, 1000) == [Turn("user", "Hello")]


async def test_key_leads_to_its_run(store: Store) -> None:
    run = await started(store, claim=Claim("key", "fingerprint"))
    assert await store.run_of_key("key") == run.id
    assert await store.run_of_key("another") is None


async def test_run_without_terms_has_none(store: Store) -> None:
    run = await started(store)
    assert await store.terms(run.id) == NO_TERMS
    assert await store.terms("run_unknown") == NO_TERMS


async def test_refused_start_leaves_nothing_behind(store: Store) -> None:
    claim = Claim("key", "print")
    with pytest.raises(ChatError) as caught:
        await started(store, place=Under("msg_unknown"), claim=claim)
    assert caught.value.code == "invalid_request"
    assert await store.session("ses_1") is None
    assert await store.active_run("ses_1") is None
    assert (await store.start_run(message(claim=claim))).created


async def test_session_of_somebody_else_cannot_be_spoken_to(store: Store) -> None:
    await answered(store)
    with pytest.raises(ChatError) as caught:
        await started(store, user_id="bob")
    assert caught.value.code == "not_found"
    assert (await started(store, user_id="ann")).user_id == "ann"


async def test_session_keeps_its_first_owner_when_none_is_named(store: Store) -> None:
    await answered(store)
    run = await started(store, session=NewSession("ses_1", "anonymous-1"), user_id=None)
    assert run.user_id == "ann"


# --- never twice


async def test_same_key_leads_to_the_run_that_it_started(store: Store, other: Store) -> None:
    claim = Claim("key", "print")
    run = await started(store, claim=claim)
    again = await other.start_run(message(claim=claim))
    assert (again.run, again.created, again.replayed) == (run, False, True)
    await store.commit([said(run, *ANSWER)])
    late = await store.start_run(message(claim=claim))
    assert (late.run.id, late.run.status, late.replayed) == (run.id, RunStatus.COMPLETED, True)
    assert len(await tree(store)) == 2


async def test_key_leads_to_its_run_by_itself(store: Store, other: Store) -> None:
    claim = Claim("key", "print")
    assert await other.claimed(claim) is None
    run = await started(store, claim=claim)
    assert await other.claimed(claim) == Started(run, created=False, replayed=True)
    with pytest.raises(ChatError) as caught:
        await other.claimed(Claim("key", "another print"))
    assert caught.value.code == "idempotency_conflict"


async def test_same_key_with_another_request_is_refused(store: Store) -> None:
    run = await answered(store, claim=Claim("key", "print"))
    with pytest.raises(ChatError) as caught:
        await started(store, claim=Claim("key", "another print"))
    assert caught.value.code == "idempotency_conflict"
    with pytest.raises(ChatError) as caught:
        await store.retry_run(NewRetry("run_2", run.id, "scripted", claim=Claim("key", "another print")))
    assert caught.value.code == "idempotency_conflict"


async def test_message_said_again_attaches_to_the_run_that_answers_it(store: Store) -> None:
    run = await started(store, "Hello")
    again = await store.start_run(message("Hello", attach_same=True))
    assert (again.run, again.created, again.replayed) == (run, False, False)
    with pytest.raises(ChatError) as caught:
        await started(store, "Something else", attach_same=True)
    assert caught.value.code == "run_in_progress"
    await store.commit([said(run, *ANSWER)])
    assert (await store.start_run(message("Hello", attach_same=True))).created


# --- one run at a time


async def test_second_message_is_refused_and_told_of_the_run(store: Store) -> None:
    run = await started(store)
    with pytest.raises(ChatError) as caught:
        await started(store, "More")
    assert (caught.value.code, caught.value.details) == ("run_in_progress", {"run_id": run.id})
    assert len(await tree(store)) == 1


async def test_second_message_can_wait(store: Store) -> None:
    first = await started(store)
    start = await store.start_run(message("More", on_busy=OnBusy.QUEUE))
    second = start.run
    assert (start.created, start.interrupts) == (True, None)
    assert (second.status, second.owner, second.epoch) == (RunStatus.QUEUED, None, 0)
    assert await store.active_run("ses_1") == first
    assert (await store.commit([said(first, *ANSWER)])).waiting
    assert await store.active_run("ses_1") == second
    assert await tree(store) == [("Hello", None), ("More", "Hi there"), ("Hi there", "Hello")]


async def test_second_message_can_interrupt(store: Store) -> None:
    first = await started(store)
    second = await store.start_run(message("More", on_busy=OnBusy.INTERRUPT))
    assert (second.run.status, second.interrupts) == (RunStatus.QUEUED, first.id)
    await store.commit([said(first, RunCancelled("interrupted"))])
    third = await store.start_run(message("Even more", on_busy=OnBusy.INTERRUPT))
    assert (third.run.status, third.interrupts) == (RunStatus.QUEUED, None)  # nothing is running


async def test_end_says_that_somebody_waits_wherever_it_is(store: Store) -> None:
    first, second = await started(store), await started(store, "Elsewhere", "ses_2")
    await store.start_run(message("More", on_busy=OnBusy.QUEUE))
    assert (await store.commit([said(first, *ANSWER), said(second, *ANSWER)])).waiting


async def test_end_says_that_nobody_waits(store: Store) -> None:
    first = await started(store)
    await started(store, "Elsewhere", "ses_2")
    assert not (await store.commit([said(first, *ANSWER)])).waiting


# --- where a message goes


async def test_message_follows_the_leaf(store: Store) -> None:
    await answered(store, "One")
    await answered(store, "Two")
    assert await tree(store) == [("One", None), ("Hi there", "One"), ("Two", "Hi there"), ("Hi there", "Two")]


async def test_leaf_is_the_question_while_it_is_answered(store: Store) -> None:
    run = await started(store)
    session = await store.session("ses_1")
    assert session is not None
    assert session.leaf_id == run.message_id
    await store.commit([said(run, *ANSWER)])
    session = await store.session("ses_1")
    assert session is not None
    assert (session.leaf_id, session.message_count) == (run.answer_id, 2)


async def test_edit_branches_and_the_branch_is_spoken_to_from_then_on(store: Store) -> None:
    first = await answered(store, "One")
    await answered(store, "Two")
    await answered(store, "Two, edited", place=Under(first.answer_id))
    third = await started(store, "Three")
    history = await store.history(third.message_id, 1000)
    assert [turn.content for turn in history] == ["One", "Hi there", "Two, edited", "Hi there", "Three"]


async def test_edit_of_the_first_message_begins_at_the_root(store: Store) -> None:
    await answered(store, "One")
    run = await started(store, "One, edited", place=Under(None))
    assert [turn.content for turn in await store.history(run.message_id, 1000)] == ["One, edited"]


async def test_message_follows_an_answer_that_is_still_to_come(store: Store) -> None:
    first = await started(store)
    second = await started(store, "More", place=Under(first.answer_id), on_busy=OnBusy.QUEUE)
    await store.commit([said(first, *ANSWER)])
    history = await store.history(second.message_id, 1000)
    assert [turn.content for turn in history] == ["Hello", "Hi there", "More"]


async def test_message_follows_answers_of_its_own_session_only(store: Store) -> None:
    run = await answered(store)
    elsewhere = await answered(store, session_id="ses_2")
    for parent_id in (run.message_id, elsewhere.answer_id, "msg_unknown", ""):
        with pytest.raises(ChatError) as caught:
            await started(store, place=Under(parent_id))
        assert caught.value.code == "invalid_request"


@pytest.mark.parametrize("place", [Leaf(), Matching()])
async def test_turns_that_the_client_brings_are_stored_before_its_message(store: Store, place: Place) -> None:
    turns = [Turn("user", "A"), Turn("assistant", "B"), Turn("user", "C")]
    run = await started(store, turns=turns, place=place)
    assert await tree(store) == [("A", None), ("B", "A"), ("C", "B")]
    assert await store.history(run.message_id, 1000) == turns
    session = await store.session("ses_1")
    assert session is not None
    assert session.message_count == 3


async def test_whole_view_follows_the_tree_as_far_as_it_agrees(store: Store) -> None:
    await answered(store, "A")
    view = [Turn("user", "A"), Turn("assistant", "Hi there")]
    run = await answered(store, place=Matching(), turns=[*view, Turn("user", "B")])
    await answered(store, place=Matching(), turns=[*view, Turn("user", "C")])
    await answered(store, place=Matching(), turns=[Turn("user", "A"), Turn("assistant", "Ho"), Turn("user", "D")])
    assert await tree(store) == [
        ("A", None),
        ("Hi there", "A"),
        ("B", "Hi there"),
        ("Hi there", "B"),
        ("C", "Hi there"),
        ("Hi there", "C"),
        ("Ho", "A"),
        ("D", "Ho"),
        ("Hi there", "D"),
    ]
    again = await started(store, place=Matching(), turns=[*view, Turn("user", "B")])
    assert again.message_id == run.message_id  # answered anew, not said anew
    assert len(await tree(store)) == 9


async def test_whole_view_follows_the_latest_of_what_looks_the_same(store: Store) -> None:
    first = await answered(store, "A")
    second = (await store.retry_run(NewRetry("run_2", first.id, "scripted"))).run
    await store.commit([said(second, *ANSWER)])
    view = [Turn("user", "A"), Turn("assistant", "Hi there"), Turn("user", "B")]
    await started(store, place=Matching(), turns=view)
    assert (await store.messages("ses_1", 1, None)).items[0].parent_id == second.answer_id


# --- once more


async def test_retry_answers_the_same_message_again(store: Store) -> None:
    first = await answered(store, terms=TERMS)
    start = await store.retry_run(NewRetry("run_2", first.id, "another-model"))
    second = start.run
    assert (start.created, second.status, second.model) == (True, RunStatus.RUNNING, "another-model")
    assert (second.message_id, second.session_id) == (first.message_id, first.session_id)
    assert second.answer_id != first.answer_id
    assert await store.terms(second.id) == TERMS
    await store.commit([said(second, TextDelta("Ho"), completed("Ho", "stop", None))])
    assert await tree(store) == [("Hello", None), ("Hi there", "Hello"), ("Ho", "Hello")]
    session = await store.session("ses_1")
    assert session is not None
    assert session.leaf_id == second.answer_id


async def test_retry_of_a_run_that_is_not_there(store: Store) -> None:
    with pytest.raises(ChatError) as caught:
        await store.retry_run(NewRetry("run_2", "run_unknown", "scripted"))
    assert caught.value.code == "not_found"


async def test_retry_waits_for_its_turn_and_is_not_done_twice(store: Store) -> None:
    run = await started(store)
    with pytest.raises(ChatError) as caught:
        await store.retry_run(NewRetry("run_2", run.id, "scripted"))
    assert caught.value.code == "run_in_progress"
    retry = NewRetry("run_2", run.id, "scripted", OnBusy.QUEUE, Claim("key", "print"))
    start = await store.retry_run(retry)
    assert start.run.status is RunStatus.QUEUED
    again = await store.retry_run(NewRetry("run_3", run.id, "scripted", OnBusy.QUEUE, Claim("key", "print")))
    assert (again.run, again.created, again.replayed) == (start.run, False, True)


# --- the log


async def test_log_keeps_events_of_every_kind(store: Store) -> None:
    run = await started(store)
    events: list[Event] = [TextDelta(AWKWARD), ReasoningDelta(AWKWARD), Seam(2), TextDelta("x")]
    end = RunFailed("upstream_error", AWKWARD, retryable=True)
    assert not (await store.commit([said(run, *events)])).lost
    assert await logged(store, run.id) == events
    await store.commit([said(run, end, before=events)])
    assert await logged(store, run.id) == [*events, end]


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (RunCompleted("length", 0, "0" * 64), RunStatus.COMPLETED),
        (DONE, RunStatus.COMPLETED),
        (RunFailed("upstream_error", "It broke", retryable=False), RunStatus.FAILED),
        (RunCancelled("requested"), RunStatus.CANCELLED),
        (RunInterrupted("It died"), RunStatus.INTERRUPTED),
    ],
    ids=lambda value: name_of(value) if isinstance(value, get_args(Terminal)) else None,
)
async def test_end_stores_the_answer_with_the_runs_status(store: Store, end: Terminal, status: RunStatus) -> None:
    run = await started(store)
    await store.commit([said(run, TextDelta("Hi "), ReasoningDelta("hm"))])
    await store.commit([said(run, TextDelta("there"), end, before=[TextDelta("Hi "), ReasoningDelta("hm")])])
    ended = await store.run(run.id)
    assert ended is not None
    assert (ended.status, ended.terminal, ended.last_seq) == (status, end, 4)
    assert ended.finished_at is not None
    assert await store.active_run("ses_1") is None
    answer = (await store.messages("ses_1", 10, None)).items[-1]
    assert (answer.id, answer.parent_id, answer.role) == (run.answer_id, run.message_id, "assistant")
    assert (answer.content, answer.status, answer.run_id) == ("Hi there", status, run.id)


async def test_one_commit_serves_many_runs(store: Store) -> None:
    runs = [await started(store, session_id=f"ses_{n}") for n in range(3)]
    await store.commit([said(run, TextDelta(run.session_id)) for run in runs])
    before = {run.id: [TextDelta(run.session_id)] for run in runs}
    ends = [RunCancelled("a"), RunCancelled("b")]
    await store.commit([said(run, end, before=before[run.id]) for run, end in zip(runs, ends, strict=False)])
    assert await logged(store, runs[0].id) == [TextDelta("ses_0"), ends[0]]
    assert await logged(store, runs[1].id) == [TextDelta("ses_1"), ends[1]]
    assert await logged(store, runs[2].id) == [TextDelta("ses_2")]


@pytest.mark.parametrize("ended", [False, True], ids=["live", "ended"])
@pytest.mark.parametrize("limit", [1, 500, 512, 2000])
async def test_long_log_is_read_in_pages_from_anywhere(store: Store, *, ended: bool, limit: int) -> None:
    run = await started(store)
    log: list[Event] = [TextDelta(f"{n} ") for n in range(1, 1_301)]
    await store.commit([said(run, *log)])
    if ended:
        log.append(RunCancelled("requested"))
        await store.commit([said(run, log[-1], before=log[:-1])])
    for after in (0, 1, 511, 512, 513, 1023, 1024, 1299, 1300, 1301, 1302, 2**62, sys.maxsize):
        batch = await store.events(run.id, after, limit)
        assert batch.first_seq == after + 1
        assert list(batch.events) == log[after:][: len(batch.events)]
        assert bool(batch.events) == (after < len(log))
        assert len(batch.events) <= limit
        assert not batch.last or after + len(batch.events) >= len(log)
        assert batch.last or ended or len(batch.events) == limit  # or it is not known yet
    if limit > 1:
        assert await logged(store, run.id, limit=limit) == log


async def test_run_that_is_not_there_has_no_log(store: Store) -> None:
    assert await store.run("run_unknown") is None
    assert await store.active_run("ses_unknown") is None
    assert (await store.events("run_unknown", 0, 10)).events == ()
