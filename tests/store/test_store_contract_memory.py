"""What every store does: runs beside the conversation, and what they leave with the session."""

import pytest

from chat.commands import NewRetry, NewSideRun, Under
from chat.commits import Tries
from chat.errors import ChatError
from chat.events import Event, RunFailed, TextDelta, ToolCalled, ToolFinished, ToolStarted, Usage, completed
from chat.ids import new_id
from chat.ports import Store
from chat.room import MESSAGE_OVERHEAD, size_of
from chat.runs import Run, RunKind, RunStatus
from chat.sessions import NewSession, Piece, Turn
from chat.terms import Terms
from chat.usage import UsageBy, UsageQuery
from tests.scripted import message
from tests.store.sites import Site, logged, said
from tests.store.test_store_contract import answered

MUCH = 10**9
BOTH = [RunKind.SUMMARY, RunKind.TITLE]
FAILED = RunFailed("upstream_unavailable", "It is down.", retryable=True)


async def begun(store: Store, answer: Run, kind: RunKind = RunKind.SUMMARY, behind: str | None = None) -> Run:
    run = await store.start_side_run(
        NewSideRun(new_id("run"), kind, answer.session_id, answer.answer_id, "cheap", behind)
    )
    assert run is not None
    return run


async def written(
    store: Store, answer: Run, text: str = "A summary", kind: RunKind = RunKind.SUMMARY, behind: str | None = None
) -> Run:
    """A run beside the conversation that has completed, up to this answer."""
    run = await begun(store, answer, kind, behind)
    log: list[Event] = [TextDelta(text)] if text else []
    await store.commit([said(run, *log, completed(text, "stop", Usage(2, 1)))])
    ended = await store.run(run.id)
    assert ended is not None
    return ended


async def tries(store: Store, answer: Run, kind: RunKind) -> Tries:
    found = await store.recollection(answer, [kind], 0)
    assert found is not None
    assert found.tries.keys() == {kind}
    return found.tries[kind]


async def title(store: Store) -> str | None:
    session = await store.session("ses_1")
    assert session is not None
    return session.title


# --- the runs


async def test_run_beside_the_conversation_begins_at_once_and_is_no_part_of_it(store: Store, other: Store) -> None:
    answer = await answered(store)
    before = await store.session("ses_1")
    run = await begun(store, answer)
    assert (run.kind, run.status, run.epoch, run.model) == (RunKind.SUMMARY, RunStatus.RUNNING, 1, "cheap")
    assert (run.session_id, run.user_id, run.message_id, run.answer_id) == ("ses_1", "ann", answer.answer_id, "")
    assert await other.run(run.id) == run
    assert await store.active_run("ses_1") is None
    assert await store.active_run("ses_1", beside=True) == run
    assert await store.session("ses_1") == before
    await store.commit([said(run, TextDelta("A summary"), completed("A summary", "stop", None))])
    assert await store.session("ses_1") == before
    assert len((await store.messages("ses_1", 10, None)).items) == 2
    assert await store.active_run("ses_1", beside=True) is None


async def test_answer_comes_before_what_is_beside_it(store: Store) -> None:
    answer = await answered(store)
    await begun(store, answer)
    run = (await store.start_run(message())).run
    assert run.status is RunStatus.RUNNING
    assert await store.active_run("ses_1") == await store.active_run("ses_1", beside=True) == run


async def test_only_one_is_begun_of_two_that_know_of_the_same(store: Store, other: Store) -> None:
    answer = await answered(store)
    run = await begun(store, answer)
    new = NewSideRun(new_id("run"), RunKind.SUMMARY, "ses_1", answer.answer_id, "cheap", None)
    assert await other.start_side_run(new) is None
    assert await begun(other, answer, RunKind.TITLE)
    await store.commit([said(run, FAILED)])
    assert await begun(other, answer, behind=run.id)


async def test_none_is_begun_in_a_session_that_is_gone(store: Store) -> None:
    answer = await answered(store)
    await store.delete_session("ses_1")
    new = NewSideRun(new_id("run"), RunKind.SUMMARY, "ses_1", answer.answer_id, "cheap", None)
    assert await store.start_side_run(new) is None
    assert await store.recollection(answer, BOTH, MUCH) is None


async def test_none_can_be_answered_once_more(store: Store) -> None:
    run = await written(store, await answered(store))
    with pytest.raises(ChatError) as caught:
        await store.retry_run(NewRetry("run_2", run.id, "scripted"))
    assert caught.value.code == "invalid_request"


async def test_none_can_be_followed_by_a_message(store: Store) -> None:
    run = await begun(store, await answered(store))
    with pytest.raises(ChatError, match="not an assistant's message"):
        await store.start_run(message("Well", place=Under(run.answer_id)))


async def test_runs_of_a_dead_process_are_taken_and_hold_nobody_up(site: Site, store: Store, other: Store) -> None:
    answer = await answered(store)
    run = await begun(store, answer)
    waiting = (await store.start_run(message())).run
    await site.kill(store)
    taken = {taken.id: taken for taken in await other.claim()}
    assert taken.keys() == {run.id, waiting.id}
    assert (taken[run.id].kind, taken[run.id].epoch) == (RunKind.SUMMARY, 2)
    log: list[Event] = [TextDelta("A summary"), completed("A summary", "stop", None)]
    assert (await store.commit([said(run, *log)])).lost == {run.id}
    assert await other.summary(answer.answer_id) is None
    await other.commit([said(taken[run.id], *log)])
    assert await other.summary(answer.answer_id) is not None


async def test_what_they_used_is_counted(store: Store) -> None:
    answer = await answered(store)
    await written(store, answer)
    found = await store.usage(UsageQuery(UsageBy.MODEL, 10))
    assert [(item.key, item.runs, item.input_tokens) for item in found.items] == [("cheap", 1, 2), ("scripted", 1, 3)]


async def test_log_collapses_into_what_was_kept(store: Store) -> None:
    answer = await answered(store)
    run = await written(store, answer)
    titled = await written(store, answer, ' "A  title" ', RunKind.TITLE)
    failed = await begun(store, answer, behind=run.id)
    await store.commit([said(failed, TextDelta("Half"), FAILED)])
    await store.sweep(0)
    await store.sweep(0)
    assert await logged(store, run.id) == [TextDelta("A summary"), run.terminal]
    assert await logged(store, titled.id) == [TextDelta(' "A  title" '), titled.terminal]
    assert [(await store.events(failed.id, 0, 9)).events, (await store.events(failed.id, 1, 9)).events] == [
        [FAILED]
    ] * 2


# --- summaries


async def test_summary_is_found_from_every_message_behind_its_end(store: Store) -> None:
    answer = await answered(store, "One")
    run = await written(store, answer)
    later = await answered(store, "Two")
    for message_id in (answer.answer_id, later.message_id, later.answer_id):
        found = await store.summary(message_id)
        assert found is not None
        assert (found.text, found.up_to, found.run_id, found.model) == ("A summary", answer.answer_id, run.id, "cheap")
        assert found.created_at == run.finished_at
    assert await store.summary(answer.message_id) is None
    assert await store.summary("msg_unknown") is None


async def test_latest_summary_of_a_branch_counts_and_none_of_another(store: Store) -> None:
    one = await answered(store, "One")
    first = await written(store, one, "First")
    two = await answered(store, "Two")
    second = await written(store, two, "Second", behind=first.id)
    edited = await answered(store, "Edited", place=Under(one.answer_id))
    anew = await answered(store, "Anew", place=Under(None))
    texts = [found and found.text for found in [await store.summary(run.answer_id) for run in (one, two, edited, anew)]]
    assert texts == ["First", "Second", "First", None]
    again = await written(store, two, "Better", behind=second.id)
    found = await store.summary(two.answer_id)
    assert found is not None
    assert (found.text, found.run_id) == ("Better", again.id)


@pytest.mark.parametrize("text", ["", " \n"])
async def test_summary_without_text_is_none(store: Store, text: str) -> None:
    answer = await answered(store)
    await written(store, answer, text)
    assert await store.summary(answer.answer_id) is None


async def test_branch_begins_behind_its_summary(store: Store) -> None:
    one = await answered(store, "One")
    assert (await store.branch(one.answer_id, MUCH)).turns == await store.history(one.answer_id, MUCH)
    await written(store, one)
    two = await answered(store, "Two")
    three = await answered(store, "Three")
    branch = await store.branch(three.message_id, MUCH)
    assert branch.summary == await store.summary(three.message_id)
    assert branch.turns == [Turn("user", "Two"), Turn("assistant", "Hi there"), Turn("user", "Three")]
    assert (await store.branch(three.message_id, 0)).turns == [Turn("user", "Three")]
    assert (await store.branch(one.answer_id, MUCH)).turns[-1] == Turn("assistant", "Hi there")
    assert two.answer_id != one.answer_id


async def test_summaries_go_with_their_session(store: Store) -> None:
    answer = await answered(store)
    run = await written(store, answer)
    going = await begun(store, answer, RunKind.TITLE)
    assert await store.delete_session("ses_1")
    assert await store.run(run.id) is None
    assert await store.summary(answer.answer_id) is None
    lost = await store.commit([said(going, TextDelta("A title"), completed("A title", "stop", None))])
    assert lost.lost == {going.id}
    assert await store.session("ses_1") is None


# --- what is due


async def test_pieces_are_those_behind_the_summary_within_reach(store: Store) -> None:
    one = await answered(store, "One ☃")
    two = await answered(store, "Two")
    found = await store.recollection(two, BOTH, MUCH)
    assert found is not None
    assert found.pieces == [
        Piece(one.message_id, "user", len("One ☃".encode()) + MESSAGE_OVERHEAD),
        Piece(one.answer_id, "assistant", 8 + MESSAGE_OVERHEAD),
        Piece(two.message_id, "user", 3 + MESSAGE_OVERHEAD),
        Piece(two.answer_id, "assistant", 8 + MESSAGE_OVERHEAD),
    ]
    assert [piece.size for piece in found.pieces] == [
        size_of(turn) for turn in await store.history(two.answer_id, MUCH)
    ]
    near = await store.recollection(two, BOTH, 30)
    assert near is not None
    assert near.pieces == found.pieces[2:]
    await written(store, one)
    behind = await store.recollection(two, BOTH, 0)
    assert behind is not None
    assert behind.pieces == found.pieces[2:]
    none = await store.recollection(two, [RunKind.TITLE], MUCH)
    assert none is not None
    assert none.pieces == []


async def test_instructions_of_the_answer_count(store: Store) -> None:
    for instructions, size in ((None, 0), ("☃", 3)):
        found = await store.recollection(await answered(store, terms=Terms(instructions)), BOTH, MUCH)
        assert found is not None
        assert found.instructions == size


async def test_what_tools_said_counts(store: Store) -> None:
    run = (await store.start_run(message())).run
    log: list[Event] = [ToolStarted("1", "f"), ToolCalled("1", "f", "{}"), ToolFinished("1", "x" * 100)]
    await store.commit([said(run, *log, completed("", "stop", None))])
    found = await store.recollection(run, BOTH, MUCH)
    assert found is not None
    assert found.pieces[-1].size > 100
    [_, turn] = await store.history(run.answer_id, MUCH)
    assert size_of(turn) <= found.pieces[-1].size


async def test_tries_tell_what_came_of_the_latest_runs(store: Store) -> None:
    answer = await answered(store)
    assert await tries(store, answer, RunKind.SUMMARY) == Tries()
    kept = await written(store, answer)
    assert await tries(store, answer, RunKind.SUMMARY) == Tries(kept.id, kept=True)
    assert await tries(store, answer, RunKind.TITLE) == Tries()
    going = await begun(store, answer, behind=kept.id)
    assert await tries(store, answer, RunKind.SUMMARY) == Tries(going.id, active=True, kept=True, failures=1)
    await store.commit([said(going, FAILED)])
    empty = await written(store, answer, "", behind=going.id)
    later = await answered(store, "Two")
    assert await tries(store, later, RunKind.SUMMARY) == Tries(empty.id, kept=True, failures=2, answers=1)
    titled = await begun(store, answer, RunKind.TITLE)
    await store.commit([said(titled, FAILED)])
    assert await tries(store, later, RunKind.TITLE) == Tries(titled.id, failures=1)


# --- titles


async def test_title_is_set_where_there_is_none(store: Store) -> None:
    answer = await answered(store)
    before = await store.session("ses_1")
    assert before is not None
    await written(store, answer, '"A  title."\nindeed', RunKind.TITLE)
    after = await store.session("ses_1")
    assert after is not None
    assert (after.title, after.touched, after.message_count) == ("A title", before.touched, 2)
    found = await store.recollection(answer, BOTH, MUCH)
    assert found is not None
    assert found.title == "A title"


async def test_title_of_the_clients_own_stays(store: Store) -> None:
    answer = await answered(store, session=NewSession("ses_1", "ann", "Mine"))
    await written(store, answer, "A title", RunKind.TITLE)
    assert await title(store) == "Mine"


async def test_title_of_nothing_but_quotes_is_none(store: Store) -> None:
    await written(store, await answered(store), '""', RunKind.TITLE)
    assert await title(store) is None


async def test_title_is_not_set_by_a_run_that_failed(store: Store) -> None:
    run = await begun(store, await answered(store), RunKind.TITLE)
    await store.commit([said(run, TextDelta("A ti"), FAILED)])
    assert await title(store) is None
