import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.errors import ChatError, StoreCorruptError, StoreUnavailableError
from chat.events import Event, ReasoningDelta, RunCancelled, Seam, TextDelta, answer_text, completed
from chat.journal import LONGEST_DELTA, MERGE_ABOVE, Journal, merged
from chat.live import LiveRun
from tests.ledger import Ledger, running
from tests.patience import soon
from tests.scripted import until_more
from tests.strategies import deltas, logs

HI, THERE, STOPPED = TextDelta("Hi "), TextDelta("there"), RunCancelled("requested")


@asynccontextmanager
async def journal_on(store: Ledger, *, window: float = 0, capacity: int = 1_000) -> AsyncIterator[Journal]:
    journal = Journal(store, window=window, capacity=capacity)
    committing = asyncio.create_task(journal.run())
    try:
        yield journal
    finally:
        committing.cancel()
        await asyncio.wait({committing})


@pytest.fixture
def store() -> Ledger:
    return Ledger()


@pytest.fixture
async def journal(store: Ledger) -> AsyncIterator[Journal]:
    async with journal_on(store) as journal:
        yield journal


def live(run_id: str = "run_1") -> LiveRun:
    return LiveRun(running(run_id), owned=True)


# --- nothing is shown that is not stored


async def test_event_is_visible_when_it_is_committed_and_not_before(store: Ledger, journal: Journal) -> None:
    run = live()
    store.gate.clear()
    journal.append(run, HI)
    following = asyncio.create_task(until_more(run, 0))
    await soon(store.begun.wait())
    assert (run.events, following.done(), run.answer) == ([], False, "Hi ")
    store.gate.set()
    await soon(following)
    assert run.events == store.logs["run_1"] == [HI]


async def test_what_waits_goes_into_one_commit_for_all_runs(store: Ledger, journal: Journal) -> None:
    runs = [live(f"run_{n}") for n in range(3)]
    for run in runs:
        journal.append(run, HI)
        journal.append(run, THERE)
    await soon(journal.flush())
    assert [[append.run.id for append in batch] for batch in store.commits] == [["run_0", "run_1", "run_2"]]
    assert all(run.events == store.logs[run.run.id] == [HI, THERE] for run in runs)


async def test_what_comes_during_a_commit_goes_into_the_next(store: Ledger, journal: Journal) -> None:
    run = live()
    store.gate.clear()
    journal.append(run, HI)
    await soon(store.begun.wait())
    journal.append(run, THERE)
    assert run.events == []
    store.gate.set()
    await soon(journal.flush())
    assert [[append.events for append in batch] for batch in store.commits] == [[[HI]], [[THERE]]]
    assert run.events == [HI, THERE]


async def test_committer_waits_for_company(store: Ledger) -> None:
    async with journal_on(store, window=0.02) as journal:
        run = live()
        journal.append(run, HI)
        await asyncio.sleep(0)
        assert store.commits == []
        journal.append(run, THERE)
        await soon(journal.flush())
        assert len(store.commits) == 1


async def test_committer_rests_while_there_is_nothing_to_commit(store: Ledger, journal: Journal) -> None:
    journal.append(live(), HI)
    await soon(journal.flush())
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(store.commits) == 1


async def test_flush_of_nothing_returns(journal: Journal) -> None:
    await soon(journal.flush())


# --- pushing back


async def test_full_journal_holds_its_producers_up(store: Ledger) -> None:
    async with journal_on(store, capacity=2) as journal:
        run = live()
        store.gate.clear()
        journal.append(run, HI)
        assert not journal.full
        await soon(journal.room())
        journal.append(run, THERE)
        assert journal.full
        waiting = asyncio.create_task(journal.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        store.gate.set()
        await soon(waiting)
        assert not journal.full


# --- ends


async def test_end_takes_everything_before_along(store: Ledger, journal: Journal) -> None:
    run = live()
    journal.append(run, HI)
    await soon(journal.flush())
    journal.append(run, THERE)
    assert await soon(journal.settle(run, STOPPED))
    assert run.events == store.logs["run_1"] == [HI, THERE, STOPPED]
    assert run.closed
    settlement = store.commits[-1][0].settlement
    assert settlement is not None
    assert settlement.answer == "Hi there"


async def test_end_of_a_run_that_others_wait_for_is_told(store: Ledger, journal: Journal) -> None:
    await soon(journal.settle(live("run_1"), STOPPED))
    assert not journal.queue_moved.is_set()
    store.waiting = True
    await soon(journal.settle(live("run_2"), STOPPED))
    assert journal.queue_moved.is_set()


async def test_run_that_was_taken_over_is_shown_no_more(store: Ledger, journal: Journal) -> None:
    lost, kept = live("run_1"), live("run_2")
    store.lost = {"run_1"}
    journal.append(lost, HI)
    journal.append(kept, HI)
    await soon(journal.flush())
    assert (lost.events, lost.closed, lost.owned) == ([], True, False)
    assert (kept.events, kept.closed, kept.owned) == ([HI], False, True)
    with pytest.raises(ChatError, match="run_taken"):
        journal.append(lost, THERE)


async def test_end_of_a_run_that_was_taken_over_is_not_ours(store: Ledger, journal: Journal) -> None:
    run = live()
    store.lost = {"run_1"}
    assert not await soon(journal.settle(run, STOPPED))
    assert (run.events, run.closed) == ([], True)
    assert not await soon(journal.settle(run, STOPPED))


# --- a store that fails


async def test_landing_waits_for_what_is_being_committed_and_for_what_waits(store: Ledger, journal: Journal) -> None:
    run = live()
    await soon(journal.landed(run))  # nothing has to
    store.gate.clear()
    journal.append(run, HI)
    await soon(store.begun.wait())
    journal.append(run, THERE)
    landing = asyncio.create_task(journal.landed(run))
    gone = asyncio.create_task(journal.landed(run))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait({gone})
    store.gate.set()
    await soon(landing)
    assert run.events == [HI, THERE]


async def test_what_cannot_be_committed_does_not_land(store: Ledger, journal: Journal) -> None:
    run = live()
    store.fault = StoreUnavailableError()
    journal.append(run, HI)
    with pytest.raises(StoreUnavailableError):
        await soon(journal.landed(run))


@pytest.mark.parametrize("done_anyway", [False, True])
@pytest.mark.parametrize("fault", [StoreUnavailableError(), StoreCorruptError()], ids=lambda fault: fault.code)
async def test_run_goes_into_trouble_and_is_settled_with_all_it_said(
    store: Ledger, journal: Journal, fault: ChatError, *, done_anyway: bool
) -> None:
    run = live()
    journal.append(run, TextDelta("Oh. "))
    await soon(journal.flush())
    store.fault, store.done_anyway = fault, done_anyway
    journal.append(run, HI)
    following = asyncio.create_task(until_more(run, 1))
    await soon(following)  # its followers are told
    assert (run.events, run.trouble) == ([TextDelta("Oh. ")], fault)
    with pytest.raises(ChatError) as caught:
        journal.append(run, THERE)
    assert caught.value is fault
    store.fault = None
    assert await soon(journal.settle(run, STOPPED))
    assert run.events == store.logs["run_1"] == [TextDelta("Oh. "), HI, STOPPED]
    assert (run.trouble, run.closed) == (None, True)


@pytest.mark.parametrize("done_anyway", [False, True])
async def test_end_that_seemed_to_fail_is_stored_once(store: Ledger, journal: Journal, *, done_anyway: bool) -> None:
    run = live()
    journal.append(run, HI)
    store.fault, store.done_anyway = StoreUnavailableError(), done_anyway
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await soon(journal.settle(run, STOPPED))
        if done_anyway:
            break
        assert run.events == []
    store.fault = None
    assert await soon(journal.settle(run, RunCancelled("another reason")))
    assert run.events == store.logs["run_1"] == [HI, STOPPED]
    assert run.closed


async def test_caller_that_gives_an_end_up_leaves_it_to_the_committer(store: Ledger, journal: Journal) -> None:
    for fault in (None, StoreUnavailableError()):
        run = live("run_2" if fault else "run_1")
        store.fault = fault
        store.gate.clear()
        store.begun.clear()
        settling = asyncio.create_task(journal.settle(run, STOPPED))
        await soon(store.begun.wait())
        settling.cancel()
        await asyncio.wait({settling})
        store.gate.set()
        await soon(journal.flush())
        assert run.closed == (fault is None)
        assert run.trouble is fault


async def test_event_that_cannot_be_stored_takes_no_other_run_along(
    journal: Journal, store: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = store.write

    async def picky(batch):  # type: ignore[no-untyped-def]
        for append in batch:
            "".join([event.text for event in append.events]).encode()  # as SQLite does
        return await write(batch)

    monkeypatch.setattr(store, "write", picky)
    runs = [live(f"run_{n}") for n in range(3)]
    for run, text in zip(runs, ["a", "\ud83d", "c"], strict=True):
        journal.append(run, TextDelta(text))
    await soon(journal.flush())
    assert [[event.text for event in run.events] for run in runs] == [["a"], [], ["c"]]  # type: ignore[union-attr]
    assert [run.trouble is not None for run in runs] == [False, True, False]
    assert [record.message for record in caplog.records] == ["an event could not be stored"]
    assert caplog.records[0].__dict__["run_id"] == "run_1"


# --- merging


@given(logs | st.lists(deltas, min_size=MERGE_ABOVE, max_size=40))
def test_merging_keeps_text_and_order(log: list[Event]) -> None:
    def flat(events: list[Event]) -> list[object]:
        """Every character with the kind of its delta, and the other events between them."""
        return [
            piece
            for event in events
            for piece in (
                [(type(event), c) for c in event.text] if isinstance(event, TextDelta | ReasoningDelta) else [event]
            )
        ]

    joined = merged(log)
    assert flat(joined) == flat(log)
    assert answer_text(joined) == answer_text(log)
    if len(log) <= MERGE_ABOVE:
        assert joined == log
    else:
        kinds = [type(event) for event in joined]
        assert (TextDelta, TextDelta) not in pairwise(kinds)
        assert (ReasoningDelta, ReasoningDelta) not in pairwise(kinds)


def test_deltas_are_merged_only_when_many_wait() -> None:
    few: list[Event] = [TextDelta(str(n)) for n in range(MERGE_ABOVE)]
    assert merged(few) == few
    many = [*few, ReasoningDelta("a"), ReasoningDelta("b"), Seam(2), Seam(3), HI, STOPPED]
    assert merged(many) == [TextDelta("01234567"), ReasoningDelta("ab"), Seam(2), Seam(3), HI, STOPPED]


@pytest.mark.parametrize("kind", [TextDelta, ReasoningDelta])
def test_long_delta_is_cut(kind: type[TextDelta | ReasoningDelta]) -> None:
    text = "".join([chr(97 + n % 26) for n in range(2 * LONGEST_DELTA + 1)])
    for events in ([kind(text)], [kind(piece) for piece in text[:60]] + [kind(text[60:])]):
        pieces = merged(events)
        cut = [piece.text for piece in pieces if isinstance(piece, kind)]
        assert [len(piece) for piece in cut] == [LONGEST_DELTA, LONGEST_DELTA, 1]
        assert ("".join(cut), len(cut)) == (text, len(pieces))
    exact: list[Event] = [kind(text[:LONGEST_DELTA])]
    assert merged(exact) == exact


# --- whatever happens


acts: st.SearchStrategy[list[str | tuple[str, Event]]] = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abc"), deltas),
        st.sampled_from(["commit", "hold", "fail", "fail, but done", "recover"]),
    ),
    max_size=60,
)


@settings(max_examples=80)
@given(acts)
async def test_logs_have_no_gaps_whatever_happens(script: list[str | tuple[str, Event]]) -> None:
    """Whatever is appended, committed, held up and refused between: logs are whole, and what is shown is stored."""
    store = Ledger()
    async with journal_on(store) as journal:
        runs = {name: live(name) for name in "abc"}
        said: dict[str, list[Event]] = {name: [] for name in "abc"}
        for act in script:
            match act:
                case (name, event):
                    if runs[name].trouble is None:
                        journal.append(runs[name], event)
                        said[name].append(event)
                case "commit":
                    store.gate.set()
                    await soon(journal.flush())
                case "hold":
                    store.gate.clear()
                    await asyncio.sleep(0)
                case "recover":
                    store.fault = None
                case _:
                    store.fault, store.done_anyway = StoreUnavailableError(), act == "fail, but done"
            for name, run in runs.items():
                assert run.events == store.logs.get(name, [])[: len(run.events)]
        store.gate.set()
        await soon(journal.flush())
        store.fault = None
        for name, run in runs.items():
            end = completed(run.answer, "stop", None)
            assert await soon(journal.settle(run, end))
            assert run.events == store.logs[name]  # the ledger itself refuses gaps
            assert merged([*merged(run.events[:-1]), *[HI] * 20]) == merged([*said[name], *[HI] * 20])
            assert answer_text(run.events) == run.answer == answer_text(said[name])
