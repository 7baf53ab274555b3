import asyncio
import time

import pytest

from chat.silence import OverdueError, SilenceLimit


async def test_wait_without_news_is_overdue() -> None:
    silence = SilenceLimit(0.01)
    with pytest.raises(OverdueError), silence:
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_wait_that_ends_in_time_is_none() -> None:
    silence = SilenceLimit(10)
    with silence:
        await asyncio.sleep(0)
    silence.close()


async def test_cancellation_by_others_at_the_same_time_wins() -> None:
    silence = SilenceLimit(0.5)
    waiting = asyncio.Event()

    async def wait() -> None:
        with silence:
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await waiting.wait()
    asyncio.get_running_loop().call_later(0.5, task.cancel)
    time.sleep(0.6)  # noqa: ASYNC251 - both timers are due when the loop looks again
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_shorter_limit_counts_from_now_and_a_longer_one_changes_nothing() -> None:
    loop = asyncio.get_running_loop()
    silence = SilenceLimit(60)
    silence.shorten(0.05)
    silence.shorten(60)
    start = loop.time()
    with pytest.raises(OverdueError), silence:
        await asyncio.Event().wait()
    assert 0.04 < loop.time() - start < 5


@pytest.mark.parametrize(("first", "later"), [(60, 0.05), (0.05, 60)])
async def test_limit_is_another_one_once_something_was_heard(first: float, later: float) -> None:
    silence = SilenceLimit(first, later)
    if later < first:
        silence.heard()
    with pytest.raises(OverdueError), silence:
        await asyncio.wait_for(asyncio.Event().wait(), 10)


async def test_limit_that_was_shortened_stays_so_when_something_is_heard() -> None:
    for first, later in ((60, 30), (0.04, 30)):
        silence = SilenceLimit(first, later)
        silence.shorten(0.05)
        silence.heard()
        with pytest.raises(OverdueError), silence:
            await asyncio.wait_for(asyncio.Event().wait(), 10)
