"""What becomes visible while a follower waits is pushed, without waking its task; nothing is lost or told twice."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat import live as chat_live
from chat.commits import Batch
from chat.errors import StoreUnavailableError
from chat.events import Event, RunCancelled, TextDelta
from chat.following import Follower, Push
from chat.live import LiveRun, LiveRuns
from tests.ledger import running
from tests.patience import soon
from tests.scripted import UnsteadyStore

ONE, TWO, THREE, STOPPED = TextDelta("1"), TextDelta("2"), TextDelta("3"), RunCancelled("requested")


def following(live: LiveRun, push: Push | None = None) -> Follower:
    """Of a run in memory; no store is asked."""
    store = UnsteadyStore(Path("nowhere"))
    live.followers += 1
    return Follower(store, LiveRuns(store), live, live.run.id, 0, push)


class Taken(list[Batch]):
    """Takes all that is pushed."""

    def push(self, batch: Batch) -> bool:
        self.append(batch)
        return True


@pytest.fixture
def live() -> LiveRun:
    return LiveRun(running(), owned=True)


async def turns(count: int = 3) -> None:
    """Let whatever is due happen."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_comes_while_it_waits_is_pushed_and_the_task_sleeps_on(live: LiveRun) -> None:
    pushed = Taken()
    with closing(following(live, pushed.push)) as follower:
        waiting = asyncio.create_task(follower.next())
        await turns()
        assert follower.waiting
        for event in (ONE, TWO):
            live.publish([event])
            assert not pushed or pushed[-1].events != [event]  # not now: the committer goes on first
            await turns()
            assert pushed[-1].events == [event]
        assert not waiting.done()
        live.publish([STOPPED])
        assert await soon(waiting) is None
        assert follower.ended
    assert [batch.first_seq for batch in pushed] == [1, 2, 3]


async def test_one_that_cannot_go_on_wakes_its_task(live: LiveRun) -> None:
    pushed: list[Event] = []

    def push(batch: Batch) -> bool:
        pushed.extend(batch.events)
        return False

    with closing(following(live, push)) as follower:
        waiting = asyncio.create_task(follower.next())
        await turns()
        live.publish([ONE])
        await turns()
        live.publish([TWO])  # nobody waits, so nothing is pushed
        assert await soon(waiting) == Batch(2, ())
        assert pushed == [ONE]
        assert await soon(follower.next()) == Batch(2, [TWO])
        live.publish([STOPPED])
        assert await soon(follower.next()) == Batch(3, [STOPPED])
        assert await soon(follower.next()) is None


async def test_it_says_whether_there_is_more_to_hand_out(live: LiveRun) -> None:
    live.publish([ONE])
    with closing(following(live)) as follower:
        assert follower.behind
        await soon(follower.next())
        assert not follower.behind
        live.publish([STOPPED])
        assert follower.behind
        await soon(follower.next())
        assert not follower.behind


@pytest.mark.parametrize(
    ("owned", "whole", "certain"), [(True, True, True), (True, False, False), (False, True, False)]
)
async def test_it_knows_whether_more_may_be_committed(*, owned: bool, whole: bool, certain: bool) -> None:
    live = LiveRun(running(), owned=owned)
    live.whole = whole
    with closing(following(live)) as follower:
        assert follower.certain is certain
    over = Follower(UnsteadyStore(Path("nowhere")), LiveRuns(UnsteadyStore(Path("nowhere"))), None, "run_1", 0)
    assert over.certain


async def test_mistake_in_a_push_reaches_the_task(live: LiveRun) -> None:
    def push(_: Batch) -> bool:
        raise OSError("gone")

    with closing(following(live, push)) as follower:
        waiting = asyncio.create_task(follower.next())
        await turns()
        live.publish([ONE])
        with pytest.raises(OSError, match="gone"):
            await soon(waiting)


async def test_trouble_and_the_end_of_the_stream_reach_the_task(live: LiveRun) -> None:
    with closing(following(live, lambda _: True)) as follower:
        waiting = asyncio.create_task(follower.next())
        await turns()
        live.fail(StoreUnavailableError())
        with pytest.raises(StoreUnavailableError):
            await soon(waiting)
        live.trouble = None
        waiting = asyncio.create_task(follower.next())
        await turns()
        live.close()
        assert await soon(waiting) is None
        assert not follower.ended


async def test_one_that_was_closed_hears_nothing(live: LiveRun) -> None:
    pushed = Taken()
    follower = following(live, pushed.push)
    waiting = asyncio.create_task(follower.next())
    await turns()
    live.publish([ONE])
    follower.close()  # before the loop came to it
    await turns()
    assert not pushed
    assert not live.followers
    waiting.cancel()
    await asyncio.wait({waiting})


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), max_size=12),
    st.integers(1, 4),
)
async def test_pushed_or_pulled_each_event_comes_once_and_in_order(
    steps: Sequence[tuple[int, bool, int]], page: int
) -> None:
    live = LiveRun(running(), owned=True)
    got: list[tuple[int, Sequence[Event]]] = []
    answers = [answer for _, answer, _ in steps]

    def push(batch: Batch) -> bool:
        got.append((batch.first_seq, batch.events))
        return answers.pop() if answers else True

    async def read(follower: Follower) -> None:
        while (batch := await follower.next()) is not None:
            if batch.events:
                got.append((batch.first_seq, batch.events))

    with pytest.MonkeyPatch.context() as patch, closing(following(live, push)) as follower:
        patch.setattr(chat_live, "FOLLOW_EVENTS", page)
        reading = asyncio.create_task(read(follower))
        said: list[Event] = []
        for count, _, rest in steps:
            for _ in range(count):
                said.append(TextDelta(str(len(said))))
                live.publish([said[-1]])
            await turns(rest)
        live.publish([STOPPED])
        await soon(reading)
    assert [event for _, events in got for event in events] == [*said, STOPPED]
    assert [first for first, _ in got] == [1 + sum(len(events) for _, events in got[:n]) for n in range(len(got))]


async def test_follower_is_behind_while_there_is_more_to_hand_out(live: LiveRun) -> None:
    with closing(following(live)) as follower:
        assert not follower.behind
        live.publish([ONE])
        assert follower.behind
        await soon(follower.next())
        assert not follower.behind
    assert follower.behind  # nothing in memory says where the end is
