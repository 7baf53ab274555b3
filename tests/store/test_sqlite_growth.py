"""Nothing takes longer because there is more of everything: SQLite's steps are counted, which no clock disturbs."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.filling import LONG, Size, fill, session_id, user_id
from chat.commands import Claim, Leaf, Matching, NewRetry, NewRun, NewSideRun, OnBusy, Place, Under
from chat.events import RunCancelled, TextDelta, completed
from chat.ids import new_id
from chat.runs import RunKind
from chat.search import Search
from chat.sessions import NewSession, Turn
from store.sqlite import SqliteStore
from tests.store.files import opened_store
from tests.store.sites import read_along, said

SMALL = Size(sessions=120, long=240, users=1)
LARGE = Size(sessions=600, long=2_400, users=2)

STOPPED = RunCancelled("requested")
NOBODY_LONGER = 10**6
"""Seconds of retention: a sweep finds nothing to fold."""


class Meter:
    """Counts how often SQLite jumps back: a turn of a loop, or the end of a statement."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self._steps = 0

    async def attach(self, store: SqliteStore) -> None:
        database = store._database
        for connection in (database._usable(), *database._readers._queue):  # type: ignore[attr-defined]
            await connection.set_progress_handler(self._step, 1)

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        self._steps = 0
        yield
        self.found[what] = self._steps

    def _step(self) -> None:
        self._steps += 1


def _asked(session: str, place: Place | None = None, *, claim: str | None = None) -> NewRun:
    return NewRun(
        new_id("run"),
        NewSession(session, user_id(0)),
        None,
        [Turn("user", "Hello")],
        "scripted",
        place=place or Leaf(),
        on_busy=OnBusy.QUEUE,
        claim=(claim and Claim(claim, "print")) or None,
    )


async def _everything(file: Path, size: Size) -> dict[str, int]:
    """The steps of all that a store can be asked."""
    await asyncio.to_thread(fill, file, size)
    meter = Meter()
    async with opened_store(file) as store:
        await meter.attach(store)
        await _runs(store, meter)
        await _reading(store, meter)
    return meter.found


async def _runs(store: SqliteStore, meter: Meter) -> None:
    with meter.of("start"):
        await store.start_run(_asked("ses_new"))
    with meter.of("start with a key"):
        await store.start_run(_asked("ses_other", claim="key"))
    with meter.of("start again"):
        await store.start_run(_asked("ses_other", claim="key"))
    with meter.of("start in the long session"):
        run = (await store.start_run(_asked(LONG))).run
    with meter.of("queue behind it"):
        waiting = (await store.start_run(_asked(LONG, Under(run.answer_id)))).run
    with meter.of("queue at the root"):
        await store.start_run(_asked(LONG, Matching()))
    with meter.of("retry"):
        await store.retry_run(NewRetry(new_id("run"), run.id, "scripted", OnBusy.QUEUE))
    with meter.of("commit"):
        await store.commit([said(run, TextDelta("Hi"))])
    with meter.of("follow"):
        assert (await store.events(run.id, 0, 10)).events
    with meter.of("ask to cancel"):
        await store.request_cancel(run.id, "requested")
    with meter.of("look for that"):
        assert await store.cancel_requests()
    with meter.of("end"):
        assert (await store.commit([said(run, STOPPED, before=[TextDelta("Hi")])])).waiting
    with meter.of("claim what waits"):
        assert [taken.id for taken in await store.claim()] == [waiting.id]
    with meter.of("claim nothing"):
        assert not await store.claim()
    with meter.of("take the next out of its turn"):
        await store.adopt(run.id)
    with meter.of("follow what has ended"):
        assert (await store.events(run.id, 0, 10)).events
    with meter.of("find a run"):
        assert await store.run(run.id)
        assert await store.active_run(LONG)
        await store.terms(run.id)
    with meter.of("find what every run has said"):
        await read_along(store, 0)
        await store.position()
    with meter.of("sweep"):
        await store.sweep(NOBODY_LONGER)
        await store.sweep(NOBODY_LONGER)


async def _reading(store: SqliteStore, meter: Meter) -> None:
    with meter.of("sessions"):
        found = await store.sessions(None, 50, None)
    with meter.of("sessions further down"):
        assert len((await store.sessions(None, 50, found.next)).items) == 50
    with meter.of("sessions of a user"):
        found = await store.sessions(user_id(0), 50, None)
    with meter.of("sessions of a user further down"):
        assert len((await store.sessions(user_id(0), 50, found.next)).items) == 50
    with meter.of("session"):
        assert await store.session(LONG)
        await store.create_session(NewSession("ses_created", user_id(0)))
        await store.update_session(LONG, {"title": "Long"})
    with meter.of("messages"):
        page = await store.messages(LONG, 50, None)
    with meter.of("messages further up"):
        assert len((await store.messages(LONG, 50, page.next)).items) == 50
    searcher = NewRun(new_id("run"), NewSession("ses_searched", "searcher"), None, [Turn("user", "needle")], "scripted")
    await store.start_run(searcher)
    await store.sweep(NOBODY_LONGER)
    # Of how many parts the index is made depends on when it was last merged; their number grows with the logarithm.
    merge = "INSERT INTO messages_index (messages_index) VALUES ('optimize')"
    await store._database.write(lambda db: db.rows(merge), durable=False)
    with meter.of("search in a short history"):
        assert len((await store.search(Search(["needle"], "searcher"))).items) == 1
    with meter.of("what a model gets to see"):
        assert len(await store.history(page.items[-1].id, 10_000))
    with meter.of("what it is asked when there is a summary"):
        assert (await store.branch(page.items[-1].id, 10_000)).summary is None
    answer = next(item for item in reversed(page.items) if item.run_id is not None)
    assert answer.run_id is not None
    run = await store.run(answer.run_id)
    assert run is not None
    with meter.of("what its end makes due"):
        assert await store.recollection(run, list(RunKind), 10_000)
    with meter.of("begin a summary"):
        new = NewSideRun(new_id("run"), RunKind.SUMMARY, LONG, answer.id, "scripted", None)
        summing = await store.start_side_run(new)
        assert summing is not None
    with meter.of("end a summary"):
        await store.commit([said(summing, TextDelta("Sum"), completed("Sum", "stop", None))])
    with meter.of("find a summary"):
        assert (await store.branch(page.items[-1].id, 10_000)).summary
    with meter.of("delete an ordinary session"):
        assert await store.delete_session(session_id(7))


async def test_nothing_takes_more_steps_in_a_large_database(tmp_path: Path) -> None:
    small = await _everything(tmp_path / "small.db", SMALL)
    large = await _everything(tmp_path / "large.db", LARGE)
    assert {what: (small[what], large[what]) for what in small if large[what] > 1.3 * small[what]} == {}
