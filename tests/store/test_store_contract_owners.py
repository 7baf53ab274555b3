"""What every store does when there are several processes: runs pass on, old owners are refused, others read along."""

import asyncio
from functools import partial

import pytest

from chat.commands import NewRetry, OnBusy
from chat.events import Event, RunCancelled, Seam, TextDelta
from chat.ports import Store
from chat.runs import Run, RunStatus
from tests.patience import PATIENCE
from tests.scripted import message
from tests.store.sites import Site, logged, read_along, said

HI, THERE, STOPPED = TextDelta("Hi "), TextDelta("there"), RunCancelled("requested")


async def started(store: Store, session_id: str = "ses_1", on_busy: OnBusy = OnBusy.REJECT) -> Run:
    return (await store.start_run(message("Hello", session_id, on_busy=on_busy))).run


async def waiting(store: Store, session_id: str = "ses_1") -> Run:
    return await started(store, session_id, OnBusy.QUEUE)


def ids(runs: object) -> set[str]:
    assert isinstance(runs, list)
    return {run.id for run in runs}


# --- passing on


async def test_runs_of_a_process_that_lives_are_nobody_elses(store: Store, other: Store) -> None:
    await started(store)
    for _ in range(3):
        assert list(await other.claim()) == []
        assert list(await store.claim()) == []


async def test_runs_of_a_dead_process_are_taken_once(site: Site, store: Store, other: Store) -> None:
    run = await started(store)
    await store.commit([said(run, HI)])
    await site.kill(store)
    [taken] = await other.claim()
    assert (taken.id, taken.status, taken.epoch) == (run.id, RunStatus.RUNNING, 2)
    assert taken.owner not in (None, run.owner)
    assert await logged(other, run.id) == [HI]
    assert list(await other.claim()) == []
    assert list(await (await site.process()).claim()) == []


async def test_trace_of_a_request_stays_with_its_run_whoever_takes_it(site: Site, store: Store, other: Store) -> None:
    run = (await store.start_run(message(trace="whose"))).run
    waits = (await store.start_run(message(on_busy=OnBusy.QUEUE))).run
    again = (await store.retry_run(NewRetry("run_again", run.id, "scripted", OnBusy.QUEUE, trace="another's"))).run
    assert (run.trace, waits.trace, again.trace) == ("whose", None, "another's")
    await site.kill(store)
    assert [taken.trace for taken in await other.claim()] == ["whose"]
    adopted = await other.adopt(again.id)
    assert adopted is not None
    assert adopted.trace == "another's"


async def test_single_run_can_be_handed_over_by_its_owner_alone(store: Store, other: Store) -> None:
    run, kept = await started(store), await started(store, "ses_2")
    await store.commit([said(run, HI), said(kept, HI)])
    await other.release(run.id)
    assert list(await other.claim()) == []
    await store.release(run.id)
    [taken] = await other.claim()
    assert (taken.id, taken.epoch) == (run.id, 2)
    assert not (await store.commit([said(kept, THERE, before=[HI])])).lost
    await store.release(run.id)  # it is another's by now
    assert list(await store.claim()) == []
    await store.commit([said(kept, STOPPED, before=[HI, THERE])])
    await store.release(kept.id)
    assert list(await other.claim()) == []


async def test_what_an_old_owner_writes_is_refused(site: Site, store: Store, other: Store) -> None:
    run = await started(store)
    await store.commit([said(run, HI)])
    await site.kill(store)
    [taken] = await other.claim()
    kept = await started(other, "ses_2")
    committed = await store.commit([said(run, THERE, before=[HI]), said(kept, TextDelta("not lost"))])
    assert committed.lost == {run.id}
    assert (await store.commit([said(run, STOPPED, before=[HI])])).lost == {run.id}
    assert await logged(other, run.id) == [HI]
    assert await logged(other, kept.id) == [TextDelta("not lost")]
    log: list[Event] = [HI, Seam(2), THERE]
    assert not (await other.commit([said(taken, *log[1:], before=[HI])])).lost
    assert not (await other.commit([said(taken, STOPPED, before=log)])).lost
    assert await logged(store, run.id) == [*log, STOPPED]
    answer = (await store.messages("ses_1", 10, None)).items[-1]
    assert (answer.content, answer.status) == ("Hi there", "cancelled")


async def test_process_that_was_taken_for_dead_comes_back_as_a_new_owner(
    site: Site, store: Store, other: Store
) -> None:
    run = await started(store)
    await site.kill(store)
    assert ids(await other.claim()) == {run.id}
    await store.beat()
    fresh = await started(store, "ses_2")
    assert fresh.owner not in (None, run.owner)
    assert not (await store.commit([said(fresh, HI)])).lost
    assert list(await other.claim()) == []
    assert (await store.commit([said(run, HI)])).lost == {run.id}


async def test_runs_handed_back_are_taken_at_once_and_written_by_nobody_else(store: Store, other: Store) -> None:
    run = await started(store)
    await store.commit([said(run, HI)])
    await store.hand_back()
    assert (await store.commit([said(run, THERE, before=[HI])])).lost == {run.id}
    assert (await store.commit([said(run, STOPPED, before=[HI])])).lost == {run.id}
    [taken] = await other.claim()
    assert (taken.id, taken.epoch) == (run.id, 2)
    assert (await store.commit([said(run, THERE, before=[HI])])).lost == {run.id}
    assert await logged(other, run.id) == [HI]
    assert await read_along(other, 0) == await read_along(store, 0)
    assert [event for _, _, event in (await read_along(other, 0)).entries] == [HI]


async def test_runs_that_are_given_away_are_noticed(store: Store, other: Store) -> None:
    given, kept = await started(store), await started(store, "ses_2")
    await waiting(store, "ses_2")
    assert not await other.abandoned()
    for give in (partial(store.release, given.id), store.hand_back):
        while await other.changed():
            pass
        await give()
        async with asyncio.timeout(PATIENCE):
            while not await other.changed():
                await other.doorbell(0.01)
        assert await other.abandoned()
        taken = ids(await other.claim())
        assert not await other.abandoned()
    assert taken == {kept.id}


async def test_message_whose_turn_has_come_is_noticed(store: Store, other: Store) -> None:
    running = await started(store)
    first = await waiting(store)
    assert not await other.abandoned()
    await store.commit([said(running, STOPPED)])
    assert await other.abandoned()
    assert ids(await other.claim()) == {first.id}
    assert not await other.abandoned()


async def test_process_knows_itself_by_the_owner_of_its_runs(site: Site, store: Store, other: Store) -> None:
    run = await started(store)
    assert store.owner == run.owner != other.owner
    await site.kill(store)
    assert [taken.owner for taken in await other.claim()] == [other.owner]
    await store.beat()
    assert store.owner not in (run.owner, other.owner)


async def test_process_that_handed_its_runs_back_can_work_on(store: Store, other: Store) -> None:
    await store.hand_back()
    run = await started(store)
    assert not (await store.commit([said(run, HI, STOPPED)])).lost
    assert list(await other.claim()) == []


async def test_process_that_closes_leaves_its_runs_to_others(site: Site, other: Store) -> None:
    leaving = await site.process()
    run = await started(leaving)
    await leaving.close()
    assert ids(await other.claim()) == {run.id}


async def test_lost_end_leaves_no_trace(site: Site, store: Store, other: Store) -> None:
    run = await started(store)
    await store.commit([said(run, HI, STOPPED)])
    assert (await store.commit([said(run, THERE, RunCancelled("twice"), before=[HI])])).lost == {run.id}
    gone = await started(store, "ses_2")
    await other.delete_session("ses_2")
    assert (await store.commit([said(gone, THERE, STOPPED)])).lost == {gone.id}
    assert await logged(other, run.id) == [HI, STOPPED]
    assert await logged(other, gone.id) == []
    assert [event for _, _, event in (await read_along(other, 0)).entries] == [HI, STOPPED]
    assert (await other.messages("ses_1", 10, None)).items[-1].content == "Hi "


# --- whose turn it is


async def test_first_that_waits_is_taken_when_its_session_is_idle(store: Store) -> None:
    running = await started(store)
    first, second = await waiting(store), await waiting(store)
    assert list(await store.claim()) == []
    await store.commit([said(running, STOPPED)])
    [taken] = await store.claim()
    assert (taken.id, taken.status, taken.epoch) == (first.id, RunStatus.RUNNING, 1)
    assert list(await store.claim()) == []
    await store.commit([said(taken, STOPPED)])
    assert ids(await store.claim()) == {second.id}


async def test_sessions_do_not_wait_for_one_another(store: Store) -> None:
    running = [await started(store, session_id) for session_id in ("ses_1", "ses_2", "ses_3")]
    firsts = [await waiting(store, session_id) for session_id in ("ses_1", "ses_2", "ses_3")]
    await waiting(store, "ses_1")
    await store.commit([said(run, STOPPED) for run in running[:2]])
    assert ids(await store.claim()) == {first.id for first in firsts[:2]}


async def test_waiting_run_goes_on_behind_the_run_of_a_dead_process(site: Site, store: Store, other: Store) -> None:
    running = await started(store)
    first = await waiting(store)
    await site.kill(store)
    [taken] = await other.claim()
    assert taken.id == running.id
    await other.commit([said(taken, STOPPED)])
    assert ids(await other.claim()) == {first.id}


async def test_waiting_run_can_be_taken_out_of_its_turn_once(store: Store, other: Store) -> None:
    running = await started(store)
    first, second = await waiting(store), await waiting(store)
    adopted = await store.adopt(first.id)
    assert adopted is not None
    assert (adopted.status, adopted.epoch) == (RunStatus.QUEUED, 1)
    assert adopted.owner is not None
    assert await other.adopt(first.id) is None
    assert await store.adopt(running.id) is None
    assert await store.adopt("run_unknown") is None
    assert not (await store.commit([said(adopted, STOPPED)])).lost
    assert await logged(other, first.id) == [STOPPED]
    await store.commit([said(running, STOPPED)])
    assert ids(await other.claim()) == {second.id}


# --- stops


async def test_stop_reaches_the_owner_wherever_it_is_asked(store: Store, other: Store) -> None:
    run = await started(store)
    await started(store, "ses_2")
    await other.request_cancel(run.id, "requested")
    assert list(await store.cancel_requests()) == [(run.id, "requested")]
    assert list(await other.cancel_requests()) == []
    await store.commit([said(run, STOPPED)])
    assert list(await store.cancel_requests()) == []


async def test_stop_passes_on_with_the_run(site: Site, store: Store, other: Store) -> None:
    run = await started(store)
    await store.request_cancel(run.id, "requested")
    await site.kill(store)
    await other.claim()
    assert list(await other.cancel_requests()) == [(run.id, "requested")]


async def test_stop_of_what_has_ended_changes_nothing(store: Store) -> None:
    run = await started(store)
    await store.commit([said(run, HI, STOPPED)])
    ended = await store.run(run.id)
    await store.request_cancel(run.id, "too late")
    await store.request_cancel("run_unknown", "too early")
    assert list(await store.cancel_requests()) == []
    assert await store.run(run.id) == ended


# --- reading along


async def test_commits_of_others_are_noticed_once(store: Store, other: Store) -> None:
    run = await started(store)
    await other.changed()
    assert not await other.changed()
    await store.commit([said(run, HI)])
    async with asyncio.timeout(PATIENCE):
        while not await other.changed():
            await other.doorbell(0.01)
    assert not await other.changed()


async def test_tail_brings_everybodys_events_in_commit_order(store: Store, other: Store) -> None:
    reader = other
    start = await reader.position()
    one, two = await started(store), await started(other, "ses_2")
    await store.commit([said(one, HI)])
    await other.commit([said(two, TextDelta("Ho"))])
    middle = await reader.position()
    await store.commit([said(one, THERE, STOPPED, before=[HI])])
    entries = [(one.id, 1, HI), (two.id, 1, TextDelta("Ho")), (one.id, 2, THERE), (one.id, 3, STOPPED)]
    whole = await read_along(reader, start)
    assert (list(whole.entries), whole.complete) == (entries, True)
    assert whole.pos == await reader.position()
    rest = await read_along(reader, middle)
    assert (list(rest.entries), rest.pos, rest.complete) == (entries[2:], whole.pos, True)
    nothing = await read_along(reader, whole.pos)
    assert (list(nothing.entries), nothing.pos, nothing.complete) == ([], whole.pos, True)


async def test_long_tail_comes_in_pieces(store: Store) -> None:
    run = await started(store)
    events = [TextDelta(str(n)) for n in range(1, 10_001)]
    await store.commit([said(run, *events)])
    position, seen = await store.position() - len(events), []
    while (tail := await read_along(store, position)).entries:
        seen += [event for _, _, event in tail.entries]
        position = tail.pos
    assert seen == events


async def test_positions_only_grow_whatever_is_deleted(store: Store) -> None:
    doomed = await started(store)
    secret = "my secret"
    await store.commit([said(doomed, TextDelta("a"), TextDelta(secret), STOPPED)])
    before = await store.position()
    kept = await started(store, "ses_2")  # its log begins behind what is deleted next
    await store.delete_session("ses_1")
    assert await store.position() == before
    assert secret not in repr(await read_along(store, 0))
    await store.commit([said(kept, HI)])
    assert await store.position() > before
    assert await logged(store, kept.id) == [HI]
    tail = await read_along(store, before)
    assert (list(tail.entries), tail.complete) == ([(kept.id, 1, HI)], True)


@pytest.mark.parametrize("end", [STOPPED, None], ids=["ended", "live"])
async def test_tail_says_when_part_of_it_has_been_pruned(store: Store, other: Store, end: Event | None) -> None:
    run = await started(store)
    start = await other.position()
    await store.commit([said(run, HI, THERE)])
    await store.commit([said(run, end or TextDelta("!"), before=[HI, THERE])])
    await store.sweep(3600)
    assert (await read_along(other, start)).complete  # whoever reads along has until the next sweep
    await store.sweep(3600)
    tail = await read_along(other, start)
    assert tail.complete == (end is None)
    assert tail.entries[-1][:2] == (run.id, 3)
    assert await other.position() == tail.pos
    assert await logged(other, run.id) == [HI, THERE, end or TextDelta("!")]
