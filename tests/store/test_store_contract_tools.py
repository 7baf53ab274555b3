"""What every store does: the steps of answers in which tools were called, and the records that tools write down."""

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from chat.commands import Answering, Claim, Matching, NewRetry, OnBusy
from chat.errors import ChatError
from chat.events import (
    Event,
    RunCancelled,
    TextDelta,
    ToolApproval,
    ToolCalled,
    ToolDecided,
    ToolFinished,
    ToolStarted,
    completed,
)
from chat.ports import Store
from chat.records import Record
from chat.runs import Run, RunStatus
from chat.sessions import Turn
from chat.steps import Call, Step
from tests.scripted import message
from tests.store.sites import Site, logged, read_along, said

CALLED: list[Event] = [
    TextDelta("Look: "), ToolStarted("1", "f"), ToolStarted("2", "g"), ToolCalled("1", "f", '{"☃": 1}'),
    ToolCalled("2", "g", ""), ToolFinished("2", error="no"), ToolFinished("1", "\0 ☃"), TextDelta("done."),
]  # fmt: skip
STEPS = (Step("Look: ", (Call("1", "f", '{"☃": 1}', "\0 ☃"), Call("2", "g", "", error="no"))),)


async def answered(store: Store, text: str = "Hello", *, session_id: str = "ses_1") -> Run:
    run = (await store.start_run(message(text, session_id))).run
    await store.commit([said(run, *CALLED, completed("Look: done.", "stop", None))])
    return run


async def test_steps_are_part_of_the_history(store: Store, other: Store) -> None:
    run = await answered(store)
    question, answer = (await other.messages("ses_1", 10, None)).items
    assert (question.steps, answer.steps, answer.content) == ((), STEPS, "Look: done.")
    assert await logged(other, run.id) == [*CALLED, completed("Look: done.", "stop", None)]
    following = (await store.start_run(message("And?"))).run
    turns = await other.history(following.message_id, 10_000)
    assert [(turn.content, turn.steps) for turn in turns] == [("Hello", ()), ("Look: done.", STEPS), ("And?", ())]


async def test_steps_count_in_the_budget_of_the_history(store: Store) -> None:
    await answered(store)
    following = (await store.start_run(message("And?"))).run
    # 20 bytes, 21, and 27 with a quarter of the budget for the calls
    assert [turn.content for turn in await store.history(following.message_id, 61)] == ["And?"]
    turns = await store.history(following.message_id, 64)
    assert [(turn.content, len(turn.steps)) for turn in turns] == [("Look: done.", 1), ("And?", 0)]
    assert len(await store.history(following.message_id, 92)) == 3


async def test_long_answers_of_tools_do_not_hide_what_was_said_before(store: Store) -> None:
    run = (await store.start_run(message("Hello"))).run
    log: list[Event] = [ToolStarted("1", "f"), ToolCalled("1", "f", "{}"), ToolFinished("1", "☃" * 60_000)]
    await store.commit([said(run, *log, TextDelta("Done."), completed("Done.", "stop", None))])
    following = (await store.start_run(message("And?"))).run
    turns = await store.history(following.message_id, 4_000)
    assert [turn.content for turn in turns] == ["Hello", "Done.", "And?"]
    [result] = [call.result or "" for step in turns[1].steps for call in step.calls]
    assert (len(result.encode()) in range(990, 1_001), result[:2], result[-12:]) == (True, "☃☃", "characters.]")


async def test_answer_of_calls_alone_is_part_of_the_history(store: Store) -> None:
    run = (await store.start_run(message("Hello"))).run
    log: list[Event] = [ToolStarted("1", "f"), ToolCalled("1", "f", "{}")]
    await store.commit([said(run, *log, completed("", "stop", None))])
    following = (await store.start_run(message("And?"))).run
    assert [turn.content for turn in await store.history(following.message_id, 10_000)] == ["Hello", "", "And?"]


async def test_call_can_be_decided_about_as_soon_as_its_log_says_that_it_waits(store: Store, other: Store) -> None:
    run = (await store.start_run(message(claim=Claim("key", "print")))).run
    with pytest.raises(ChatError) as caught:
        await other.decide(run.id, "1", approved=True)
    assert caught.value.code == "not_found"
    arguments = ' {"☃": "\0 \n"}'
    called: list[Event] = [
        ToolStarted("1", "f"),
        ToolStarted("2", "g"),
        ToolCalled("1", "f", arguments),
        ToolCalled("2", "g", "{}"),
    ]
    calls = (Call("1", "f", arguments), Call("2", "g", "{}"))
    await store.commit([said(run, *called, ToolApproval("1"), ToolApproval("2"))])
    assert await waiting(other, run) == calls
    assert (await other.start_run(message(claim=Claim("key", "print")))).run.waiting == calls
    active = await other.active_run("ses_1")
    assert active is not None
    assert active.waiting == calls
    assert await store.decision(run.id, "1") is None
    await other.decide(run.id, "1", approved=False)
    assert await store.decision(run.id, "1") is False
    assert list(await store.decisions()) == [(run.id, "1", False)]
    assert list(await other.decisions()) == []
    assert await store.decision("run_unknown", "1") is None
    assert await waiting(other, run) == calls[1:]
    await store.commit([said(run, RunCancelled("requested"), before=[*called, ToolApproval("1"), ToolApproval("2")])])
    assert await waiting(other, run) == ()


async def waiting(store: Store, run: Run) -> Sequence[Call]:
    """The calls that the run says to wait for a yes."""
    found = await store.run(run.id)
    assert found is not None
    return found.waiting


WAITS: list[Event] = [*CALLED[:-3], ToolApproval("2")]
DECIDED: list[Event] = [ToolDecided("2", approved=True), ToolFinished("2", "yes"), TextDelta("done.")]


async def swept(store: Store) -> int:
    """Sweeps as long as it takes to drop from the journal what nobody needs; how many entries are left."""
    for _ in range(2):
        await store.sweep(3600)
    return len((await read_along(store, 0)).entries)


async def test_run_that_waits_holds_nobody_elses_events_and_keeps_its_own(store: Store, other: Store) -> None:
    run = (await store.start_run(message())).run
    await store.commit([said(run, *WAITS)])
    for number in range(3):
        late = await answered(store, session_id=f"ses_{number + 2}")
        assert await swept(other) == 1, number  # the last one, from which positions go on
        assert await logged(other, run.id) == WAITS
        assert len(await logged(other, late.id)) == len(CALLED) + 1
    for after in range(len(WAITS) + 1):
        assert list((await other.events(run.id, after, 100)).events) == WAITS[after:]
    assert list((await other.events(run.id, 1, 2)).events) == WAITS[1:3]

    await store.commit([said(run, *DECIDED[:1], before=WAITS)])  # half in the journal again
    assert await logged(other, run.id) == [*WAITS, *DECIDED[:1]]
    log = [*WAITS, *DECIDED, completed("Look: done.", "stop", None)]
    await store.commit([said(run, *log[len(WAITS) + 1 :], before=log[: len(WAITS) + 1])])
    assert await logged(other, run.id) == log
    for after in range(len(log)):
        assert next(iter((await other.events(run.id, after, 1)).events)) == log[after]


async def test_runs_that_wait_again_are_put_aside_again(site: Site, store: Store, other: Store) -> None:
    first = (await store.start_run(message())).run
    second = (await store.start_run(message(session_id="ses_2"))).run
    await store.commit([said(first, *WAITS)])
    await swept(store)
    await store.commit([said(second, *WAITS), said(first, *DECIDED[:2], before=WAITS)])
    await store.sweep(3600)  # the first has something new behind it, and the second waits for the first time
    again: list[Event] = [ToolStarted("3", "f"), ToolCalled("3", "f", "{}"), ToolApproval("3")]
    await store.commit([said(first, *again, before=[*WAITS, *DECIDED[:2]])])
    assert await swept(store) == 1
    assert await logged(other, first.id) == [*WAITS, *DECIDED[:2], *again]
    assert await logged(other, second.id) == WAITS
    await site.kill(store)
    assert {run.id for run in await other.claim()} == {first.id, second.id}
    await answered(other, session_id="ses_3")
    assert await swept(other) == 1
    assert await logged(other, first.id) == [*WAITS, *DECIDED[:2], *again]


async def test_deleted_session_leaves_nothing_of_a_run_that_was_put_aside(store: Store) -> None:
    run = (await store.start_run(message())).run
    await store.commit([said(run, *WAITS)])
    await store.sweep(3600)
    assert "Look: " in repr(await read_along(store, 0))  # for those who read along
    await store.delete_session("ses_1")
    assert "Look: " not in repr(await read_along(store, 0))
    assert await logged(store, run.id) == []


async def left_open(store: Store) -> Run:
    """A run that ended where it called a tool of the client's."""
    run = (await store.start_run(message("Hello"))).run
    log: list[Event] = [TextDelta("Look: "), ToolStarted("1", "f"), ToolCalled("1", "f", "{}")]
    await store.commit([said(run, *log, completed("Look: ", "tool_calls", None))])
    return run


def with_result(text: str) -> Turn:
    return Turn("assistant", "Look: ", (Step("Look: ", (Call("1", "f", "{}", text),)),))


async def test_results_complete_the_answer_that_called(store: Store) -> None:
    first = await left_open(store)
    place, turns = Answering(first.answer_id), [with_result("A cloud")]
    second = (await store.start_run(message("", place=place, turns=turns))).run
    assert second.message_id == first.answer_id
    assert (await store.history(second.message_id, 1000))[-1] == turns[0]
    await store.commit([said(second, completed("", "stop", None))])
    third = (await store.start_run(message("", place=place, turns=[*turns, Turn("user", "And?")]))).run
    assert await store.history(third.message_id, 1000) == [Turn("user", "Hello"), *turns, Turn("user", "And?")]
    assert len((await store.messages("ses_1", 10, None)).items) == 4


async def test_other_results_are_a_branch(store: Store) -> None:
    first = await left_open(store)
    for text in ("A cloud", "Sun"):
        new = message("", place=Answering(first.answer_id), turns=[with_result(text)])
        run = (await store.start_run(new)).run
        assert await store.history(run.message_id, 1000) == [Turn("user", "Hello"), with_result(text)]
        await store.commit([said(run, completed("", "stop", None))])
    assert (await store.history(first.answer_id, 1000))[-1] == with_result("A cloud")
    copy = next(m for m in (await store.messages("ses_1", 10, None)).items if m.id == run.message_id)
    assert (copy.parent_id, copy.run_id) == (first.message_id, None)


async def test_other_results_of_an_answer_at_the_root_are_one_too(store: Store) -> None:
    root = (await store.start_run(message("", turns=[with_result("A cloud")]))).run.message_id
    new = message("", place=Answering(root), turns=[with_result("Sun")], on_busy=OnBusy.QUEUE)
    run = (await store.start_run(new)).run
    assert await store.history(run.message_id, 1000) == [with_result("Sun")]


async def test_view_with_results_goes_on_from_the_answer_that_called(store: Store) -> None:
    # The later answer to the same message says the same, and calls something else.
    first, question = await left_open(store), Turn("user", "Hello")
    second = (await store.retry_run(NewRetry("run_2", first.id, "scripted"))).run
    log: list[Event] = [TextDelta("Look: "), ToolStarted("2", "f"), ToolCalled("2", "f", "{}")]
    await store.commit([said(second, *log, completed("Look: ", "tool_calls", None))])
    new = message("", turns=[question, with_result("A cloud")], place=Matching())
    run = (await store.start_run(new)).run
    assert run.message_id == first.answer_id
    assert await store.history(run.message_id, 1000) == [question, with_result("A cloud")]


async def test_results_are_for_answers_of_the_same_session(store: Store) -> None:
    first = await left_open(store)
    for answer_id, session_id in ((first.message_id, "ses_1"), (first.answer_id, "ses_2"), ("msg_unknown", "ses_1")):
        with pytest.raises(ChatError) as refused:
            await store.start_run(message("", session_id, place=Answering(answer_id), turns=[with_result("A cloud")]))
        assert refused.value.code == "not_found"


def record(number: int, kind: str = "note", session_id: str = "ses_1", user_id: str = "ann") -> Record:
    return Record(f"rec_{number}", kind, session_id, user_id, "run_1", {"☃": [number, None]}, 0)


async def test_records_are_listed_latest_first_and_page_by_page(store: Store, other: Store) -> None:
    before = time.time() * 1000 - 1
    for number in range(5):
        await store.save_record(record(number))
    first = await other.records(None, None, None, 3, None)
    assert [item.id for item in first.items] == ["rec_4", "rec_3", "rec_2"]
    assert first.items[0].data == {"☃": [4, None]}
    assert before < first.items[0].created_at < time.time() * 1000 + 1
    rest = await other.records(None, None, None, 3, first.next)
    assert ([item.id for item in rest.items], rest.next) == (["rec_1", "rec_0"], None)


async def test_records_are_found_by_what_is_asked_for(store: Store) -> None:
    for number, about in enumerate([("note", "ses_1", "ann"), ("note", "ses_2", "bob"), ("order", "ses_1", "ann")]):
        await store.save_record(record(number, *about))

    async def found(kind: str | None, session_id: str | None, user_id: str | None) -> list[str]:
        return [item.id for item in (await store.records(kind, session_id, user_id, 10, None)).items]

    assert await found(None, None, None) == ["rec_2", "rec_1", "rec_0"]
    assert await found("note", None, None) == ["rec_1", "rec_0"]
    assert await found(None, "ses_1", None) == ["rec_2", "rec_0"]
    assert await found("note", None, "ann") == ["rec_0"]
    assert await found("order", "ses_2", None) == []


@pytest.mark.parametrize("after", ["", "x", "-1", "9" * 19, "²"])
async def test_cursor_that_this_list_did_not_make_is_refused(store: Store, after: str) -> None:
    with pytest.raises(ChatError) as caught:
        await store.records(None, None, None, 10, after)
    assert caught.value.code == "invalid_request"


async def test_records_outlive_their_session(store: Store) -> None:
    await answered(store)
    await store.save_record(record(1))
    await store.delete_session("ses_1")
    assert len((await store.records(None, "ses_1", None, 10, None)).items) == 1


async def test_results_that_are_to_be_answered_have_half_of_the_room_and_are_kept_whole(store: Store) -> None:
    steps = (Step("Look: ", (Call("1", "look", "{}", "☃" * 1_000),)),)
    turns = [Turn("user", "Weather?"), Turn("assistant", "Look: ", steps)]
    run = (await store.start_run(replace(message("Weather?"), turns=turns))).run
    *_, last = await store.history(run.message_id, 800)
    [[call]] = [step.calls for step in last.steps]
    assert len((call.result or "").encode()) <= 400
    assert "It has 1,000 characters" in (call.result or "")
    assert await store.turn(run.message_id) == turns[-1]
    assert await store.turn("msg_unknown") is None


async def test_results_for_an_answer_that_is_still_being_written_are_refused(store: Store) -> None:
    """Nothing is there to keep them: what waits in the queue for its end would be answered without them."""
    question, called = Turn("user", "Weather?"), Call("1", "look", "{}")
    run = (await store.start_run(message("", turns=[question]))).run
    early = Turn("assistant", "", (Step("", (replace(called, result="Sun"),)),), id=run.answer_id)
    asked = message("", turns=[question, early], place=Matching(), on_busy=OnBusy.QUEUE)
    with pytest.raises(ChatError, match="run_in_progress") as refused:
        await store.start_run(asked)
    assert refused.value.details == {"run_id": run.id}
    assert len((await store.messages("ses_1", 10, None)).items) == 1
    more = message("", turns=[question, early, Turn("user", "And?")], place=Matching(), on_busy=OnBusy.QUEUE)
    waiting = (await store.start_run(more)).run
    assert waiting.status is RunStatus.QUEUED

    await store.commit(
        [said(run, ToolStarted("1", "look"), ToolCalled("1", "look", "{}"), completed("", "tool_calls", None))]
    )
    again = (await store.start_run(asked)).run
    assert again.message_id == run.answer_id
    assert [turn.steps for turn in await store.history(again.message_id, 10_000)] == [(), early.steps]
