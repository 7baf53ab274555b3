"""What every store does: sessions, their messages, the history for the model, and the upkeep."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.commands import Claim, NewRetry, OnBusy
from chat.errors import ChatError
from chat.events import Event, ReasoningDelta, RunCancelled, TextDelta, completed
from chat.ids import new_id
from chat.ports import Store
from chat.prompts import Variables
from chat.runs import Run
from chat.sessions import NewSession, Session, Turn
from tests.scripted import message
from tests.store.sites import logged, said

STOPPED = RunCancelled("requested")

HOUR = 3_600 * 10**9

OVERHEAD = 64
"""Bytes that a store may reckon for a message besides its text, at most."""


async def created(store: Store, session_id: str = "ses_1", user_id: str = "ann") -> Session:
    return await store.create_session(NewSession(session_id, user_id))


async def answered(store: Store, text: str = "Hello", answer: str = "Hi", session_id: str = "ses_1") -> Run:
    run = (await store.start_run(message(text, session_id))).run
    log: list[Event] = [TextDelta(answer), completed(answer, "stop", None)]
    await store.commit([said(run, *log)])
    return run


# --- sessions


async def test_session_is_kept_as_it_was_created(store: Store, other: Store) -> None:
    new = NewSession("ses_1", "ann", "Talk ☃", {"a": [1, 2.5, None, {"b": "☃"}]})
    session = await store.create_session(new)
    assert (session.id, session.user_id, session.title, session.metadata) == ("ses_1", "ann", "Talk ☃", new.metadata)
    assert (session.leaf_id, session.message_count) == (None, 0)
    assert await other.session("ses_1") == session
    assert await store.session("ses_unknown") is None


async def test_session_is_created_once(store: Store) -> None:
    session = await created(store)
    with pytest.raises(ChatError) as caught:
        await created(store, user_id="bob")
    assert caught.value.code == "session_exists"
    assert await store.session("ses_1") == session


async def test_session_takes_the_changes_that_are_named_and_no_others(store: Store) -> None:
    await store.create_session(NewSession("ses_1", "ann", "Old", {"a": 1}))
    changed = await store.update_session("ses_1", {"title": "New"})
    assert changed is not None
    assert (changed.title, changed.metadata) == ("New", {"a": 1})
    changed = await store.update_session("ses_1", {"metadata": {"b": 2}})
    assert changed is not None
    assert (changed.title, changed.metadata) == ("New", {"b": 2})
    changed = await store.update_session("ses_1", {"title": None, "metadata": {}})
    assert changed is not None
    assert (changed.title, changed.metadata) == (None, {})
    assert await store.session("ses_1") == changed
    assert await store.update_session("ses_unknown", {"title": "New"}) is None


async def test_session_keeps_its_template_with_the_variables(store: Store) -> None:
    variables: Variables = {"name": "☃", "tags": ["a", 1, 2.5, True], "count": 3}
    session = await store.create_session(NewSession("ses_1", "ann", template="greeter", variables=variables))
    assert (session.template, session.variables) == ("greeter", variables)
    assert await store.session("ses_1") == session == (await store.sessions(None, 1, None)).items[0]
    changed = await store.update_session("ses_1", {"title": "New"})
    assert changed is not None
    assert (changed.template, changed.variables) == ("greeter", variables)
    changed = await store.update_session("ses_1", {"template": "poet", "variables": {}})
    assert changed is not None
    assert (changed.template, changed.variables) == ("poet", {})
    changed = await store.update_session("ses_1", {"template": None, "variables": {}})
    assert changed is not None
    assert (changed.template, changed.variables) == (None, {})


async def test_sessions_are_listed_by_their_latest_activity(store: Store) -> None:
    for n in range(4):
        await created(store, f"ses_{n}")
    run = await answered(store, session_id="ses_1")
    await created(store, "ses_4")
    page = await store.sessions(None, 10, None)
    assert [session.id for session in page.items] == ["ses_4", "ses_1", "ses_3", "ses_2", "ses_0"]
    assert page.next is None
    await store.retry_run(NewRetry("run_2", run.id, "scripted"))
    assert (await store.sessions(None, 1, None)).items[0].id == "ses_1"


async def test_sessions_are_listed_in_pages(store: Store) -> None:
    for n in range(7):
        await created(store, f"ses_{n}", "ann" if n % 2 else "bob")
    for user_id, expected in [
        (None, [6, 5, 4, 3, 2, 1, 0]),
        ("ann", [5, 3, 1]),
        ("bob", [6, 4, 2, 0]),
        ("nobody", []),
    ]:
        seen: list[str] = []
        page = await store.sessions(user_id, 2, None)
        while True:
            assert len(page.items) <= 2
            seen += [session.id for session in page.items]
            if page.next is None:
                break
            page = await store.sessions(user_id, 2, page.next)
        assert seen == [f"ses_{n}" for n in expected]


@pytest.mark.parametrize("after", ["", "x", "-1", "1.5", "٣", "9" * 19, "9" * 5000, "0' OR 1"])
async def test_cursor_of_no_list_is_refused(store: Store, after: str) -> None:
    with pytest.raises(ChatError) as caught:
        await store.sessions(None, 10, after)
    assert caught.value.code == "invalid_request"


async def test_messages_are_listed_in_pages_from_the_latest(store: Store) -> None:
    for n in range(3):
        await answered(store, f"q{n}", f"a{n}")
    await answered(store, "elsewhere", "else", "ses_2")
    page = await store.messages("ses_1", 4, None)
    assert [message.content for message in page.items] == ["q1", "a1", "q2", "a2"]
    page = await store.messages("ses_1", 4, page.next)
    assert [message.content for message in page.items] == ["q0", "a0"]
    assert page.next is None
    assert (await store.messages("ses_1", 6, None)).next is None
    assert (await store.messages("ses_unknown", 6, None)).items == []


async def test_messages_are_listed_before_one_of_the_session_only(store: Store) -> None:
    await answered(store)
    elsewhere = await answered(store, session_id="ses_2")
    for before in (elsewhere.answer_id, "msg_unknown"):
        with pytest.raises(ChatError) as caught:
            await store.messages("ses_1", 10, before)
        assert caught.value.code == "invalid_request"


async def test_session_takes_everything_of_it_along(store: Store, other: Store) -> None:
    claim = Claim("key", "print")
    run = (await store.start_run(message(claim=claim))).run
    await store.commit([said(run, TextDelta("Hi"), STOPPED)])
    live = (await store.start_run(message("More"))).run
    await store.commit([said(live, TextDelta("Ho"))])
    kept = await answered(store, session_id="ses_2")
    assert await other.delete_session("ses_1")
    assert not await other.delete_session("ses_1")
    assert await store.session("ses_1") is None
    assert await store.active_run("ses_1") is None
    assert (await store.messages("ses_1", 10, None)).items == []
    for gone in (run, live):
        assert await store.run(gone.id) is None
        assert await logged(store, gone.id) == []
        assert list(await store.history(gone.answer_id, 1000)) == []
    assert len(await logged(store, kept.id)) == 2
    assert (await store.start_run(message(claim=claim))).created  # the key went along, too


async def test_clock_that_jumps_does_not_change_the_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()

    def set_clock(nanoseconds: int) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: nanoseconds)

    for n, hours in enumerate([0, -5, 3, -20]):
        set_clock(now + hours * HOUR)
        await answered(store, f"q{n}", f"a{n}")
        await created(store, f"ses_2{n}")
    waiting = []
    run = (await store.start_run(message("busy"))).run
    for hours in (7, -7):
        set_clock(now + hours * HOUR)
        waiting.append((await store.start_run(message("wait", on_busy=OnBusy.QUEUE))).run.id)
    texts = [message.content for message in (await store.messages("ses_1", 100, None)).items]
    assert texts == ["q0", "a0", "q1", "a1", "q2", "a2", "q3", "a3", "busy", "wait", "wait"]
    sessions = [session.id for session in (await store.sessions(None, 10, None)).items]
    assert sessions == ["ses_1", "ses_23", "ses_22", "ses_21", "ses_20"]
    await store.commit([said(run, STOPPED)])
    assert [taken.id for taken in await store.claim()] == waiting[:1]


# --- the history for the model


async def test_history_is_the_branch_and_without_answers_that_said_nothing(store: Store) -> None:
    await answered(store, "One", "Ho")
    run = (await store.start_run(message("Two"))).run
    await store.commit([said(run, STOPPED)])
    third = (await store.start_run(message("Three"))).run
    expected = [Turn("user", "One"), Turn("assistant", "Ho"), Turn("user", "Two"), Turn("user", "Three")]
    assert list(await store.history(third.message_id, 1000)) == expected
    assert list(await store.history("msg_unknown", 1000)) == []


async def test_history_holds_the_message_itself_whatever_the_budget(store: Store) -> None:
    await answered(store, "One", "Ho")
    run = (await store.start_run(message("A longer one"))).run
    assert list(await store.history(run.message_id, 0)) == [Turn("user", "A longer one")]


@settings(max_examples=50)
@given(texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=6), budget=st.integers(0, 400))
async def test_history_is_the_longest_end_of_the_branch_within_the_budget(
    store: Store, texts: list[str], budget: int
) -> None:
    turns = [Turn("user", text) for text in texts]
    run = (await store.start_run(message(session_id=new_id("ses"), turns=turns))).run
    history = list(await store.history(run.message_id, budget))
    assert history
    assert history == turns[-len(history) :]
    size = sum(len(turn.content.encode()) for turn in history)
    assert size <= budget or len(history) == 1
    if len(history) < len(turns):  # the next one would not have fitted
        assert size + len(turns[-len(history) - 1].content.encode()) + OVERHEAD * (len(history) + 1) > budget


# --- upkeep


async def test_log_is_kept_for_its_retention(store: Store) -> None:
    run = await answered(store)
    for _ in range(3):
        await store.sweep(3600)
    assert len(await logged(store, run.id)) == 2


async def test_log_folds_into_the_message_after_its_retention(store: Store) -> None:
    run = (await store.start_run(message())).run
    log: list[Event] = [TextDelta("a"), ReasoningDelta("hm"), TextDelta("b"), TextDelta("c"), STOPPED]
    await store.commit([said(run, *log)])
    await store.sweep(0)
    batch = await store.events(run.id, 0, 100)
    assert (batch.first_seq, list(batch.events)) == (4, [TextDelta("abc"), STOPPED])
    for after in (1, 2, 3):
        with pytest.raises(ChatError) as caught:
            await store.events(run.id, after, 100)
        assert caught.value.code == "cursor_expired"
    assert list((await store.events(run.id, 4, 100)).events) == [STOPPED]
    assert list((await store.events(run.id, 5, 100)).events) == []
    ended = await store.run(run.id)
    assert ended is not None
    assert (ended.terminal, ended.last_seq) == (STOPPED, 5)


async def test_folded_log_of_an_answer_without_text_is_its_end(store: Store) -> None:
    run = (await store.start_run(message())).run
    await store.commit([said(run, ReasoningDelta("hm"), ReasoningDelta("well"), STOPPED)])
    await store.sweep(0)
    for after in (0, 2):
        batch = await store.events(run.id, after, 100)
        assert (batch.first_seq, list(batch.events)) == (3, [STOPPED])
    with pytest.raises(ChatError) as caught:
        await store.events(run.id, 1, 100)
    assert caught.value.code == "cursor_expired"  # and not the end, as if there had been nothing in between


async def test_live_log_is_not_swept(store: Store) -> None:
    old = await answered(store, session_id="ses_0")
    run = (await store.start_run(message())).run
    log: list[Event] = [TextDelta("a"), TextDelta("b")]
    await store.commit([said(run, *log)])
    for _ in range(3):
        await store.sweep(0)
    assert await logged(store, run.id) == log
    await store.commit([said(run, STOPPED, before=log)])
    assert await logged(store, run.id) == [*log, STOPPED]
    assert list((await store.events(old.id, 0, 100)).events)[:-1] == [TextDelta("Hi")]


async def test_many_logs_are_swept_at_once(store: Store) -> None:
    runs = [(await store.start_run(message(session_id=f"ses_{n}"))).run for n in range(450)]
    log: list[Event] = [TextDelta("a"), TextDelta("b"), STOPPED]
    for start in range(0, len(runs), 50):  # all in one transaction would be its test, not the sweep's
        await store.commit([said(run, *log) for run in runs[start : start + 50]])
    await store.sweep(0)
    for run in runs:
        assert (await store.events(run.id, 0, 100)).events[0] == TextDelta("ab")


async def test_key_is_forgotten_with_the_log(store: Store) -> None:
    claim = Claim("key", "print")
    run = (await store.start_run(message(claim=claim))).run
    await store.commit([said(run, STOPPED)])
    await store.sweep(3600)
    assert (await store.start_run(message(claim=claim))).replayed
    await store.sweep(0)
    assert (await store.start_run(message(claim=Claim("key", "another print")))).created


async def test_store_that_can_be_reached_says_so(store: Store) -> None:
    await store.check()
