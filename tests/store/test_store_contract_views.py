"""What every store does with clients that know messages by their ids, or say the same thing again unawares."""

import pytest

from chat.commands import Claim, Matching, NewRetry, OnBusy
from chat.errors import ChatError
from chat.events import Event, RunCancelled, RunFailed, RunInterrupted, TextDelta, completed
from chat.ports import Store
from chat.runs import Run
from chat.sessions import Turn
from chat.steps import Call, Step
from tests.scripted import message
from tests.store.sites import said

DONE = completed("Hi there", "stop", None)


async def asked(store: Store, *turns: Turn, on_busy: OnBusy = OnBusy.REJECT) -> Run:
    return (await store.start_run(message("", turns=turns, place=Matching(), on_busy=on_busy))).run


async def answered(store: Store, *turns: Turn, end: Event = DONE) -> Run:
    run = await asked(store, *turns)
    await store.commit([said(run, TextDelta("Hi there"), end)])
    return run


async def contents(store: Store) -> list[str]:
    return [item.content for item in (await store.messages("ses_1", 100, None)).items]


async def test_message_is_found_by_its_id(store: Store, other: Store) -> None:
    run = await answered(store, Turn("user", "A"))
    answer = await other.message(run.answer_id)
    assert answer == (await store.messages("ses_1", 1, None)).items[0]
    assert await other.message("msg_unknown") is None


async def test_view_may_have_only_the_beginning_of_an_answer_that_it_knows(store: Store) -> None:
    first = await answered(store, Turn("user", "A"))
    for text in ("Hi there", "Hi", ""):
        run = await answered(store, Turn("user", "A"), Turn("assistant", text, id=first.answer_id), Turn("user", text))
        following = await store.message(run.message_id)
        assert following is not None
        assert following.parent_id == first.answer_id
    for turn in (Turn("assistant", "Hi", id="theirs"), Turn("assistant", "Ho", id=first.answer_id)):
        run = await answered(store, Turn("user", "A"), turn, Turn("user", "B"))
        assert [said.content for said in await store.history(run.message_id, 1000)] == ["A", turn.content, "B"]
    question = Turn("user", "Hello", id=first.message_id)
    assert (await asked(store, question)).message_id != first.message_id  # what a user says is never only a beginning


async def test_view_follows_the_answer_that_it_knows_and_not_the_latest_like_it(store: Store) -> None:
    first = await answered(store, Turn("user", "A"))
    await answered(store, Turn("user", "A"))
    run = await asked(store, Turn("user", "A"), Turn("assistant", "Hi there", id=first.answer_id), Turn("user", "B"))
    following = await store.message(run.message_id)
    assert following is not None
    assert following.parent_id == first.answer_id


async def test_view_begins_where_its_first_message_is_known(store: Store) -> None:
    first = await answered(store, Turn("user", "A"))
    second = await answered(store, Turn("assistant", "Hi there", id=first.answer_id), Turn("user", "B"))
    assert await contents(store) == ["A", "Hi there", "B", "Hi there"]
    edit = await asked(store, Turn("user", "C", id=second.message_id))
    assert [turn.content for turn in await store.history(edit.message_id, 1000)] == ["A", "Hi there", "C"]


async def test_view_of_another_session_begins_at_the_root(store: Store) -> None:
    first = await answered(store, Turn("user", "A"))
    turns = [Turn("user", "B", id=first.answer_id)]
    run = (await store.start_run(message("", "ses_2", turns=turns, place=Matching()))).run
    assert await store.history(run.message_id, 1000) == [Turn("user", "B")]


async def test_view_may_end_with_an_answer_that_is_still_being_written(store: Store) -> None:
    first = await asked(store, Turn("user", "A"))
    written = Turn("assistant", "Hi", [Step("Hi", [Call("1", "f", "{}", "no")])], id=first.answer_id)
    second = await asked(store, Turn("user", "A"), written, Turn("user", "B"), on_busy=OnBusy.QUEUE)
    await store.commit([said(first, TextDelta("Hi there"), DONE)])
    assert [turn.content for turn in await store.history(second.message_id, 1000)] == ["A", "Hi there", "B"]


async def test_retry_of_what_is_being_answered_attaches(store: Store) -> None:
    first = await answered(store, Turn("user", "A"))
    second = (await store.retry_run(NewRetry("run_2", first.id, "scripted"))).run
    third = await store.retry_run(NewRetry("run_3", first.id, "scripted", attach_same=True))
    assert (third.run.id, third.created) == (second.id, False)
    with pytest.raises(ChatError, match="still answering"):
        await store.retry_run(NewRetry("run_4", first.id, "scripted"))
    await store.commit([said(second, TextDelta("Hi there"), DONE)])
    await asked(store, Turn("user", "B"))
    with pytest.raises(ChatError, match="still answering"):
        await store.retry_run(NewRetry("run_5", first.id, "scripted", attach_same=True))


@pytest.mark.parametrize(
    ("end", "again"),
    [
        (None, False),
        (DONE, False),
        (RunFailed("upstream_error", "No", retryable=True), True),
        (RunCancelled("requested"), True),
        (RunInterrupted("process_died"), True),
    ],
)
async def test_claim_that_nobody_chose_holds_what_came_to_no_end_no_longer(
    store: Store, end: Event | None, again: bool
) -> None:
    claim = Claim("ui.digest", "digest", lasting=False)
    first = (await store.start_run(message("A", claim=claim))).run
    if end is not None:
        await store.commit([said(first, end)])
    second = await store.start_run(message("A", claim=claim))
    assert (second.created, second.replayed, second.run.id != first.id) == (again, not again, again)
    third = await store.start_run(message("A", claim=claim))
    assert third.run.id == second.run.id
