import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat import live as chat_live
from chat.commits import Batch
from chat.errors import ChatError, StoreUnavailableError
from chat.events import Event, RunCancelled, TextDelta, answer_text
from chat.live import LiveRun, LiveRuns
from chat.runs import RunStatus
from tests.ledger import Ledger, running
from tests.patience import soon
from tests.scripted import until_more
from tests.strategies import logs, unfinished

HI, THERE, STOPPED = TextDelta("Hi "), TextDelta("there"), RunCancelled("requested")


def live_run() -> LiveRun:
    return LiveRun(running(), owned=False)


# --- a run in memory


@given(logs, st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20))
def test_pieces_of_the_log_add_up_wherever_they_overlap(log: list[Event], pieces: list[tuple[int, int]]) -> None:
    live = live_run()
    for place, count in pieces:
        known = len(live.events)
        start = min(place, known)
        piece = log[start : start + count]
        assert live.feed(start + 1, piece)
        assert live.events == log[: max(known, start + len(piece))]
        assert live.closed == (len(live.events) == len(log))
        assert live.answer == answer_text(live.events)


@given(unfinished, st.integers(1, 5))
def test_gap_is_not_filled_with_what_comes_behind_it(log: list[Event], gap: int) -> None:
    live = live_run()
    live.feed(1, log) if log else None
    assert not live.feed(len(log) + 1 + gap, [STOPPED])
    assert (live.events, live.closed) == (log, False)


async def test_follower_waits_for_what_it_has_not_seen() -> None:
    live = live_run()
    waiting = [asyncio.create_task(until_more(live, seen)) for seen in (0, 0, 1)]
    await asyncio.sleep(0)
    live.publish([HI])
    await soon(asyncio.wait(waiting[:2]))
    assert not waiting[2].done()
    live.publish([THERE])
    await soon(waiting[2])
    await soon(until_more(live, 1))


async def test_follower_that_goes_away_is_not_woken() -> None:
    live = live_run()
    gone, staying = asyncio.create_task(until_more(live, 0)), asyncio.create_task(until_more(live, 0))
    await asyncio.sleep(0)
    gone.cancel()
    live.publish([HI])  # before the one that goes has noticed
    await soon(staying)
    await asyncio.wait({gone})
    assert gone.cancelled()


@pytest.mark.parametrize("how", ["close", "lose", "trouble", "terminal"])
async def test_nothing_is_waited_for_when_nothing_comes(how: str) -> None:
    live = live_run()
    waiting = asyncio.create_task(until_more(live, 5))
    await asyncio.sleep(0)
    match how:
        case "close":
            live.close()
        case "lose":
            live.lose()
        case "trouble":
            live.trouble = StoreUnavailableError()
            live.wake()
        case _:
            live.publish([STOPPED])
    await soon(waiting)
    await soon(until_more(live, 5))


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> LiveRun:
    """A run with many followers, who rest until they are woken by something else than their timer."""
    monkeypatch.setattr(chat_live, "LONGEST_PAUSE", 3600)
    live = live_run()
    live.followers = 10**9
    return live


async def test_crowd_is_woken_once_for_all_that_piles_up(crowd: LiveRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_live, "LONGEST_PAUSE", 0.01)
    woken = asyncio.Event()
    crowd.look_out(woken.set)
    crowd.publish([HI])
    crowd.publish([THERE])
    assert not woken.is_set()
    await soon(woken.wait())
    assert crowd.page(0).events == [HI, THERE]


async def test_crowd_does_not_rest_when_its_stream_ends_here(crowd: LiveRun) -> None:
    woken = asyncio.Event()
    crowd.look_out(woken.set)
    crowd.publish([HI])
    crowd.close()
    assert woken.is_set()
    assert crowd._rest is None


def test_followers_at_the_same_place_get_the_same_page() -> None:
    live = live_run()
    live.events = [HI]
    page = live.page(0)
    assert live.page(0) is page
    live.events.append(THERE)
    assert (page.events, live.page(0).events, live.page(1).events) == ([HI], [HI, THERE], [THERE])


# --- those of this process


async def test_one_call_of_the_loop_serves_all_who_are_woken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, looks, calls = LiveRuns(Ledger()), list[str](), list[Callable[[], object]]()

    def first() -> None:
        looks.append("first")
        runs.call_soon(lambda: looks.append("one more turn"))

    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "call_soon", calls.append)
        runs.call_soon(first)
        runs.call_soon(lambda: looks.append("second"))
        assert not looks
        [call] = calls
        call()
        assert looks == ["first", "second"]
        calls.pop()()
    assert looks == ["first", "second", "one more turn"]
    assert len(calls) == 1


async def test_own_run_is_found_by_its_followers() -> None:
    store = Ledger(running())
    lives = LiveRuns(store)
    own = lives.own(running())
    assert lives.owned("run_1") is own
    assert await lives.join("run_1") is own
    assert not lives.foreign
    lives.leave(own)
    assert lives.owned("run_1") is own  # followed or not
    lives.drop(own)
    assert lives.owned("run_1") is None


async def test_run_that_this_process_takes_from_itself_begins_anew() -> None:
    lives = LiveRuns(Ledger())
    before = lives.own(running())
    after = lives.own(running(epoch=2))
    assert after is not before
    assert (before.owned, before.closed) == (False, True)
    assert (after.owned, after.closed, after.run.epoch) == (True, False, 2)
    lives.drop(before)  # which is not there any more
    assert lives.owned("run_1") is after


async def test_run_that_was_lost_is_none_of_those_that_this_process_takes_again() -> None:
    lives = LiveRuns(Ledger())
    before = lives.own(running())
    lives.lose_all_but(-1)
    after = lives.own(running(epoch=2))
    assert after is not before
    assert (after.owned, after.closed, after.trouble) == (True, False, None)


# --- those of others


async def test_run_that_is_not_there_cannot_be_joined() -> None:
    with pytest.raises(ChatError) as caught:
        await LiveRuns(Ledger()).join("run_unknown")
    assert caught.value.code == "not_found"


async def test_run_that_has_ended_is_not_held() -> None:
    lives = LiveRuns(Ledger(running(status=RunStatus.COMPLETED)))
    assert await lives.join("run_1") is None
    assert not lives.foreign


async def test_foreign_run_is_read_and_then_tailed_as_long_as_it_is_followed() -> None:
    store = Ledger(running("run_1"), running("run_2"))
    store.say("run_1", HI)
    lives = LiveRuns(store)
    live = await lives.join("run_1")
    assert live is not None
    assert live is await lives.join("run_1")
    assert (live.events, live.owned, lives.foreign, lives.owned("run_1")) == ([HI], False, True, None)
    store.say("run_2", HI)
    store.say("run_1", THERE)
    await lives.tail()
    assert live.events == [HI, THERE]
    lives.leave(live)
    assert lives.foreign
    lives.leave(live)
    assert not lives.foreign
    store.say("run_1", STOPPED)
    assert not await lives.tail()
    assert live.events == [HI, THERE]
    live = await lives.join("run_1")
    assert live is not None
    assert (live.events, live.closed) == ([HI, THERE, STOPPED], True)


async def test_run_that_says_more_than_one_thing_a_read_can_be_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Ledger(running())
    store.say("run_1", HI)
    read = store.events

    async def read_while_it_goes_on(run_id: str, after: int, limit: int) -> Batch:
        batch = await read(run_id, after, limit)
        store.say("run_1", THERE)
        return batch

    monkeypatch.setattr(store, "events", read_while_it_goes_on)
    lives = LiveRuns(store)
    live = await soon(lives.join("run_1"))
    assert live is not None
    assert live.events == [HI]
    await lives.tail()
    assert live.events == [HI, THERE]


async def test_tail_comes_to_its_end_however_long_it_is() -> None:
    store = Ledger(running())
    lives = LiveRuns(store)
    live = await lives.join("run_1")
    assert live is not None
    store.say("run_1", *[TextDelta(str(n)) for n in range(10)], STOPPED)
    while await lives.tail():
        pass
    assert (len(live.events), live.closed) == (11, True)


async def test_tail_is_that_of_the_followed_runs_and_goes_past_the_others() -> None:
    store = Ledger(running("run_1"), running("run_2"))
    lives = LiveRuns(store)
    live = await lives.join("run_1")
    assert live is not None
    store.say("run_2", *[HI] * 10)
    store.say("run_1", HI)
    assert not await lives.tail()
    assert live.events == [HI]
    assert lives._position == 11


async def test_run_that_is_joined_while_the_tail_is_read_misses_nothing() -> None:
    """Not asked for, it is not in the tail, and the tail's position goes past what it has said."""
    store = Ledger(running("run_1"), running("run_2"))
    lives = LiveRuns(store)
    assert await lives.join("run_1") is not None
    store.tails.clear()
    reading = asyncio.create_task(lives.tail())
    await soon(store.tailing.wait())
    two = await lives.join("run_2")
    assert two is not None
    store.say("run_2", HI, STOPPED)
    store.tails.set()
    await soon(reading)
    assert (two.events, two.closed) == ([HI, STOPPED], True)


async def test_run_is_read_itself_when_the_tail_was_pruned() -> None:
    store = Ledger(running("run_1"), running("run_2"))
    lives = LiveRuns(store)
    one, two = await lives.join("run_1"), await lives.join("run_2")
    assert one is not None
    assert two is not None
    store.say("run_1", HI, THERE, STOPPED)
    store.say("run_2", HI)
    store.pruned = len(store.order)
    await lives.tail()
    assert one.events == [HI, THERE, STOPPED]
    assert two.events == [HI]


async def test_run_is_read_itself_when_its_tail_has_a_gap() -> None:
    store = Ledger(running())
    lives = LiveRuns(store)
    live = await lives.join("run_1")
    assert live is not None
    store.say("run_1", HI, THERE, STOPPED)
    del store.order[0]
    await lives.tail()
    assert live.events == [HI, THERE, STOPPED]


@pytest.mark.parametrize("known", [[], [HI]], ids=["nothing", "some"])
async def test_log_that_was_folded_meanwhile_sends_its_followers_away(known: list[Event]) -> None:
    store = Ledger(running())
    store.say("run_1", *known)
    lives = LiveRuns(store)
    live = await lives.join("run_1")
    assert live is not None
    store.say("run_1", THERE, THERE, STOPPED)
    store.folded.add("run_1")
    store.pruned = len(store.order)
    await soon(lives.tail())
    assert (live.events, live.closed) == (known, True)  # no gap: they come back with their cursor


async def test_tail_that_cannot_be_read_now_is_read_again() -> None:
    store = Ledger(running())
    lives = LiveRuns(store)
    live = await lives.join("run_1")
    assert live is not None
    store.say("run_1", HI, THERE, STOPPED)
    store.pruned = 3
    store.read_fault = StoreUnavailableError()
    with pytest.raises(StoreUnavailableError):
        await lives.tail()
    assert not live.closed
    store.read_fault = None
    await lives.tail()
    assert live.events == [HI, THERE, STOPPED]


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_follower_that_could_not_join_is_none(how: str) -> None:
    store = Ledger(running())
    lives = LiveRuns(store)
    lives._position = 0
    store.reads.clear()
    joining = asyncio.create_task(lives.join("run_1"))
    await soon(store.reading.wait())
    assert lives.foreign
    if how == "fails":
        store.read_fault = StoreUnavailableError()
        store.reads.set()
        with pytest.raises(StoreUnavailableError):
            await soon(joining)
    else:
        joining.cancel()
        await asyncio.wait({joining})
    assert not lives.foreign


async def test_two_that_join_at_once_miss_nothing() -> None:
    store = Ledger(running("run_1"), running("run_2"))
    lives = LiveRuns(store)
    store.reads.clear()
    joining = [asyncio.create_task(lives.join("run_1"))]
    await soon(store.reading.wait())
    store.say("run_1", HI, STOPPED)
    joining.append(asyncio.create_task(lives.join("run_2")))
    await asyncio.sleep(0)
    store.logs, logs = {}, store.logs  # as if read before that was committed
    store.reads.set()
    [one, _] = await soon(asyncio.gather(*joining))
    store.logs = logs
    assert one is not None
    await lives.tail()
    assert one.events == [HI, STOPPED]


async def test_run_that_becomes_ours_while_it_is_read_is_not_read_twice() -> None:
    store = Ledger(running())
    lives = LiveRuns(store)
    lives._position = 0
    store.reads.clear()
    joining = asyncio.create_task(lives.join("run_1"))
    await soon(store.reading.wait())
    own = lives.own(running(epoch=2))
    store.say("run_1", HI)  # committed, and shown in a moment by the journal
    store.reads.set()
    assert await soon(joining) is own
    assert own.events == []


async def test_run_that_began_here_while_it_was_looked_up_is_not_read() -> None:
    store = Ledger(running())
    lives = LiveRuns(store)
    store.reads.clear()
    joining = asyncio.create_task(lives.join("run_1"))
    await soon(store.reading.wait())
    own = lives.own(running())
    store.say("run_1", HI)
    store.reads.set()
    assert await soon(joining) is own
    assert (own.events, own.followers) == ([], 1)


async def test_followers_stay_when_the_run_becomes_ours() -> None:
    store = Ledger(running())
    store.say("run_1", HI)
    lives = LiveRuns(store)
    live = await lives.join("run_1")
    own = lives.own(running(epoch=2))
    assert own is live
    assert (own.owned, own.events, own.answer, own.run.epoch) == (True, [HI], "Hi ", 2)
    store.say("run_1", THERE)
    await lives.load(own)  # what the dead process had committed last
    assert own.answer == "Hi there"


async def test_end_of_the_process_ends_all_streams() -> None:
    lives = LiveRuns(Ledger(running("run_1")))
    foreign, own = await lives.join("run_1"), lives.own(running("run_2"))
    lives.close()
    for live in (foreign, own):
        assert live is not None
        assert live.closed
        assert live.events == []
