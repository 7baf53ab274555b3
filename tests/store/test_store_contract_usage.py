"""What every store does, :class:`chat.ports.Store`: what runs have used, and sums of it."""

import time
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from chat.commits import Settlement
from chat.errors import ChatError
from chat.events import RunCancelled, TextDelta, Usage, completed
from chat.ports import Store
from chat.sessions import NewSession
from chat.spending import total_of
from chat.usage import Share, UsageBy, UsageQuery, UsageSum
from tests.scripted import message
from tests.store.sites import said

HI = TextDelta("Hi")


async def spent(
    store: Store,
    usage: Usage | None,
    cost: int | None = None,
    *,
    session_id: str = "ses_1",
    user_id: str = "ann",
    model: str = "scripted",
) -> str:
    """A run that has ended and used this; its id."""
    shares = [] if usage is None else [Share(model, usage, cost)]
    return await shared(store, *shares, session_id=session_id, user_id=user_id)


async def shared(store: Store, *shares: Share, session_id: str = "ses_1", user_id: str = "ann") -> str:
    """A run that has ended and used these; its id."""
    run = (await store.start_run(message(session=NewSession(session_id, user_id)))).run
    end = completed("Hi", "stop", total_of({share.model: share.usage for share in shares}))
    append = said(run, HI, end)
    append.settlement = Settlement(end, "Hi", [HI, end], shares=shares)
    assert not (await store.commit([append])).lost
    return run.id


async def sums(store: Store, by: UsageBy, **which: Any) -> list[UsageSum]:
    query = replace(UsageQuery(by, limit=100), **which)
    page = await store.usage(query)
    assert page.next is None
    return list(page.items)


def at(monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    """It is noon in UTC on this day."""
    noon = int(datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=UTC).timestamp())
    monkeypatch.setattr(time, "time_ns", lambda: noon * 1_000_000_000)


async def test_run_knows_what_it_has_used_and_what_that_cost(store: Store, other: Store) -> None:
    usage = Usage(30, 20, cached_tokens=10, reasoning_tokens=5)
    run_id = await spent(store, usage, 7_500)
    for process in (store, other):
        run = await process.run(run_id)
        assert run is not None
        assert run.terminal is not None
        assert (run.terminal.usage, run.cost) == (usage, 7_500)


async def test_run_without_a_price_has_no_cost(store: Store) -> None:
    run = await store.run(await spent(store, Usage(30, 20)))
    assert run is not None
    assert run.cost is None


async def test_nothing_used_is_no_sum(store: Store) -> None:
    await spent(store, None)
    for by in UsageBy:
        assert await sums(store, by) == []


async def test_sums_are_of_all_that_was_used_and_say_what_is_estimated(store: Store) -> None:
    await spent(store, Usage(30, 20, cached_tokens=10, reasoning_tokens=5), 7_500)
    await spent(store, Usage(3, 2, "estimated"), None)
    await spent(store, Usage(100, 50), 500)
    found = await sums(store, UsageBy.SESSION)
    assert found == [UsageSum("ses_1", 3, 133, 72, 10, 5, 1, 5, 8_000, 5)]


async def test_sum_of_runs_without_a_price_has_no_cost(store: Store) -> None:
    await spent(store, Usage(3, 2))
    [found] = await sums(store, UsageBy.MODEL)
    assert found.cost is None


async def test_run_of_two_models_is_one_run_and_each_has_its_share(store: Store) -> None:
    shares = Share("small", Usage(30, 20), 500), Share("large", Usage(3, 2, "estimated"), 7_000)
    run = await store.run(await shared(store, *shares))
    assert run is not None
    assert run.terminal is not None
    assert (run.terminal.usage, run.cost) == (Usage(33, 22, "estimated"), 7_500)
    for by in (UsageBy.SESSION, UsageBy.USER, UsageBy.DAY):
        [found] = await sums(store, by)
        assert replace(found, key="") == UsageSum("", 1, 33, 22, 0, 0, 1, 5, 7_500, 0)
    assert await sums(store, UsageBy.MODEL) == [
        UsageSum("large", 1, 3, 2, 0, 0, 1, 5, 7_000, 0),
        UsageSum("small", 1, 30, 20, 0, 0, 0, 0, 500, 0),
    ]


async def test_run_of_which_a_share_has_no_price_has_no_cost_and_the_sum_says_what_it_leaves_out(store: Store) -> None:
    run = await store.run(await shared(store, Share("small", Usage(30, 20), 500), Share("large", Usage(3, 2))))
    assert run is not None
    assert run.cost is None
    [found] = await sums(store, UsageBy.SESSION)
    assert (found.cost, found.unpriced_tokens) == (500, 5)


async def test_sums_are_by_session_user_and_model_in_order(store: Store) -> None:
    await spent(store, Usage(1, 0), session_id="ses_2", user_id="bob", model="small")
    await spent(store, Usage(2, 0), session_id="ses_1", user_id="ann", model="large")
    await spent(store, Usage(4, 0), session_id="ses_3", user_id="ann", model="small")
    found = {by: [(item.key, item.input_tokens) for item in await sums(store, by)] for by in UsageBy}
    assert found[UsageBy.SESSION] == [("ses_1", 2), ("ses_2", 1), ("ses_3", 4)]
    assert found[UsageBy.USER] == [("ann", 6), ("bob", 1)]
    assert found[UsageBy.MODEL] == [("large", 2), ("small", 5)]


async def test_sums_can_be_of_one_user_or_session(store: Store) -> None:
    await spent(store, Usage(1, 0), session_id="ses_2", user_id="bob")
    await spent(store, Usage(2, 0), session_id="ses_1", user_id="ann")
    assert [item.key for item in await sums(store, UsageBy.SESSION, user_id="bob")] == ["ses_2"]
    assert [item.key for item in await sums(store, UsageBy.USER, session_id="ses_1")] == ["ann"]
    assert await sums(store, UsageBy.USER, session_id="ses_1", user_id="bob") == []


async def test_days_are_in_utc_and_come_latest_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for day, tokens in (("2026-11-20", 1), ("2026-12-01", 2), ("2026-11-21", 4)):
        at(monkeypatch, day)
        await spent(store, Usage(tokens, 0))
    found = [(item.key, item.input_tokens) for item in await sums(store, UsageBy.DAY)]
    assert found == [("2026-12-01", 2), ("2026-11-21", 4), ("2026-11-20", 1)]
    since = await sums(store, UsageBy.DAY, first=date(2026, 11, 21))
    assert [item.key for item in since] == ["2026-12-01", "2026-11-21"]
    until = await sums(store, UsageBy.DAY, last=date(2026, 11, 21))
    assert [item.key for item in until] == ["2026-11-21", "2026-11-20"]
    [both] = await sums(store, UsageBy.USER, first=date(2026, 11, 20), last=date(2026, 11, 21))
    assert both.input_tokens == 5


@pytest.mark.parametrize("by", UsageBy)
async def test_pages_are_neighbours(store: Store, monkeypatch: pytest.MonkeyPatch, by: UsageBy) -> None:
    for number in range(1, 6):
        at(monkeypatch, f"2026-11-0{number}")
        await spent(store, Usage(number, 0), session_id=f"s{number}", user_id=f"u{number}", model=f"m{number}")
    whole = await sums(store, by)
    found: list[UsageSum] = []
    after: str | None = None
    for _ in range(3):
        page = await store.usage(UsageQuery(by, limit=2, after=after))
        found += page.items
        after = page.next
    assert (found, after) == (whole, None)
    assert len(whole) == 5


@pytest.mark.parametrize("after", ["", "yesterday", "7", "2026-13-01"])
async def test_cursor_that_is_no_day_is_refused(store: Store, after: str) -> None:
    with pytest.raises(ChatError) as caught:
        await store.usage(UsageQuery(UsageBy.DAY, limit=2, after=after))
    assert caught.value.code == "invalid_request"


async def test_what_was_spent_outlives_its_session(store: Store) -> None:
    await spent(store, Usage(3, 2), 500)
    before = await sums(store, UsageBy.SESSION)
    assert await store.delete_session("ses_1")
    assert await sums(store, UsageBy.SESSION) == before


async def test_end_that_is_refused_spends_nothing(store: Store) -> None:
    run = (await store.start_run(message())).run
    await store.commit([said(run, RunCancelled("requested", Usage(3, 2)))])
    assert (await store.commit([said(run, RunCancelled("twice", Usage(30, 20)))])).lost
    [found] = await sums(store, UsageBy.USER)
    assert (found.runs, found.input_tokens) == (1, 3)
