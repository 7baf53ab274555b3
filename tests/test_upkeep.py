import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from chat import upkeep
from chat.commands import OnBusy
from chat.engine import Engine
from chat.errors import StoreUnavailableError
from chat.events import RunCancelled, TextDelta, completed
from chat.runs import Run, RunStatus
from chat.sessions import NewSession
from store import journal
from store.rows import Rows
from store.sqlite import SqliteStore
from tests.patience import PATIENCE, soon
from tests.scripted import STOP, ScriptedModel, engine_on, everything, follow, message, opened, uncounted

HI, THERE = TextDelta("Hi "), TextDelta("there")


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "FAILING_PAUSE", 0.001)
    monkeypatch.setattr(upkeep, "IDLE_POLL", 0.005)


@pytest.fixture
async def engine(file: Path, model: ScriptedModel) -> AsyncIterator[Engine]:
    async with engine_on(file, model, lease=0.3) as engine:
        yield engine


class Turns:
    """Counts the turns of one of the loops, which may fail for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: object, name: str) -> None:
        self.count = 0
        self.fault: Exception | None = None
        self._work: Callable[..., object] = getattr(store, name)
        self._taken = asyncio.Semaphore(0)
        monkeypatch.setattr(store, name, self._turn)

    async def _turn(self, *args: object) -> object:
        self.count += 1
        self._taken.release()
        if self.fault is not None:
            raise self.fault
        return await self._work(*args)  # type: ignore[misc]

    async def next(self, count: int = 1) -> None:
        """Until so many more turns have begun."""
        while self._taken.locked() is False:
            await self._taken.acquire()
        for _ in range(count):
            await soon(self._taken.acquire())


async def take(db: Rows, owner: int | None, heir: int) -> None:
    """As another process does when an owner stands still for longer than its lease."""
    await db.rows("DELETE FROM owners WHERE id = ?", (owner,))
    await db.rows("UPDATE runs SET owner = ?, epoch = epoch + 1 WHERE owner = ?", (heir, owner))


# --- runs that are anybody's


async def test_runs_of_a_dead_process_are_answered(file: Path, engine: Engine, gate: asyncio.Event) -> None:
    async with opened(file) as dead:
        run = (await dead.start_run(message())).run
    gate.set()
    assert await everything(engine, run.id) == [HI, THERE, completed("Hi there", "stop", None)]


async def test_message_that_waits_gets_its_turn_at_once(file: Path) -> None:
    gate = asyncio.Event()
    async with engine_on(file, ScriptedModel([gate, "Hi ", STOP]), lease=3600) as engine:  # not by the clock
        first = (await engine.start(message("One"))).run
        second = (await engine.start(message("Two", on_busy=OnBusy.QUEUE))).run
        third = (await engine.start(message("Three", on_busy=OnBusy.QUEUE))).run
        gate.set()
        for run in (third, second, first):
            assert (await everything(engine, run.id))[-1] == completed("Hi ", "stop", None)


async def test_queue_that_moved_is_looked_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine_on(file, ScriptedModel(["Hi ", STOP]), lease=3600) as engine:
        claims = Turns(monkeypatch, engine.store, "claim")
        first = (await engine.start(message("One"))).run
        second = (await engine.start(message("Two", on_busy=OnBusy.QUEUE))).run
        for run in (first, second):
            assert (await soon(engine.result(run.id))).status is RunStatus.COMPLETED
        assert claims.count <= 2  # when the process began, and when the first had ended


async def test_process_that_drains_says_that_it_lives_and_takes_nothing(
    file: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await soon(engine.drain(0))
    beats = Turns(monkeypatch, engine.store, "beat")
    async with opened(file) as other:
        run = (await other.start_run(message())).run
    await beats.next(2)
    assert (await engine.run(run.id)).epoch == 1


async def test_runs_that_are_handed_back_are_taken_at_once(file: Path) -> None:
    gate = asyncio.Event()
    async with engine_on(file, ScriptedModel(["there", STOP]), lease=3600) as heir:  # not by the clock
        async with engine_on(file, ScriptedModel(["Hi ", gate]), lease=3600) as engine:
            run = (await engine.start(message())).run
            following = follow(engine, run.id, 0)
            assert (await soon(anext(following))).events == [HI]
            await soon(engine.drain(0))
            assert [batch async for batch in following] == []
        assert (await soon(heir.result(run.id))).status is RunStatus.COMPLETED
        assert (await heir.run(run.id)).epoch == 2


async def test_process_that_was_declared_dead_sends_its_followers_away_however_silent_its_model(
    file: Path, model: ScriptedModel
) -> None:
    async with engine_on(file, model, lease=3600) as engine, opened(file) as other:
        run = (await engine.start(message())).run
        following = follow(engine, run.id, 0)
        assert (await soon(anext(following))).events == [HI]
        await other._database.write(lambda db: take(db, run.owner, other.owner), durable=False)
        engine._journal.queue_moved.set()  # its next sign of life
        assert await soon(anext(following, None)) is None
        await soon((await model.asked(0)).closed.wait())


async def test_followers_of_others_runs_are_sent_away_when_the_store_is_out_of_reach_for_long(
    file: Path, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing() -> list[Run]:
        return []

    async with engine_on(file, model) as engine, engine_on(file, ScriptedModel(), lease=0.1) as cut_off:
        monkeypatch.setattr(cut_off.store, "claim", nothing)  # the other one may be slow, and is not dead
        run = (await engine.start(message())).run
        following = follow(cut_off, run.id, 0)
        assert (await soon(anext(following))).events == [HI]
        tails = Turns(monkeypatch, cut_off.store, "cancel_requests")
        tails.fault = StoreUnavailableError()
        async with opened(file) as other:
            await other.create_session(NewSession("ses_2", "ann"))
        assert await soon(anext(following, None)) is None
        assert not cut_off._live.foreign
        tails.fault = None
        assert (await soon(anext(follow(cut_off, run.id, 0)))).events == [HI]


# --- what others ask and commit


async def test_stop_that_another_process_asks_for_reaches_the_run(file: Path, engine: Engine) -> None:
    run = (await engine.start(message())).run
    async with opened(file) as other:
        await other.request_cancel(run.id, "requested")
        assert (await everything(engine, run.id))[-1] == RunCancelled("requested")


async def test_stop_that_nobody_has_heard_yet_is_heard_by_who_takes_the_run_over(file: Path) -> None:
    async with opened(file) as dead:
        run = (await dead.start_run(message())).run
        await dead.request_cancel(run.id, "requested")
    async with engine_on(file, ScriptedModel(["Hi ", asyncio.Event()])) as engine:
        assert (await everything(engine, run.id))[-1] == RunCancelled("requested")


async def test_run_of_another_process_is_followed_to_its_end(file: Path, engine: Engine, gate: asyncio.Event) -> None:
    run = (await engine.start(message())).run
    async with engine_on(file, ScriptedModel()) as other:
        following = follow(other, run.id, 0)
        assert (await soon(anext(following))).events == [HI]
        assert other._live.foreign
        gate.set()
        rest = [uncounted(event) async for batch in following for event in batch.events]
        assert rest == [THERE, completed("Hi there", "stop", None)]
        assert not other._live.foreign


async def test_everything_that_others_commit_is_read_however_much_it_is(
    file: Path, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "TAIL_ENTRIES", 2)
    model = ScriptedModel(["Hi ", gate, *[TextDelta(f"{number} ") for number in range(6)], STOP])
    async with engine_on(file, model) as engine, engine_on(file, ScriptedModel()) as other:
        run = (await engine.start(message())).run
        following = follow(other, run.id, 0)
        assert (await soon(anext(following))).events == [HI]
        news: list[bool] = []

        async def changed() -> bool:
            return bool(news and news.pop())

        monkeypatch.setattr(other.store, "changed", changed)
        gate.set()
        await soon(engine.result(run.id))
        news.append(True)  # once, for all of it
        async with asyncio.timeout(10):
            rest = [event async for batch in following for event in batch.events]
        assert len(rest) == 7


async def test_who_reads_along_asks_only_now_and_then_what_others_want_of_it(
    file: Path, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ScriptedModel(["Hi ", gate, "there", asyncio.Event()])
    async with engine_on(file, model) as engine, engine_on(file, ScriptedModel()) as other:
        run = (await engine.start(message())).run
        following = follow(other, run.id, 0)
        assert (await soon(anext(following))).events == [HI]
        requests = Turns(monkeypatch, other.store, "cancel_requests")
        monkeypatch.setattr(upkeep, "IDLE_POLL", 3600)
        gate.set()
        assert (await soon(anext(following))).events == [THERE]
        assert requests.count == 0
        async with asyncio.timeout(PATIENCE):
            while not other._upkeep._unasked:  # noqa: ASYNC110  # it may have come with a look that had begun before
                await asyncio.sleep(0.001)

        async def changed() -> bool:
            return False

        monkeypatch.setattr(other.store, "changed", changed)
        await asyncio.gather(*(other._upkeep._look() for _ in range(2)))  # nothing has been committed since
        assert requests.count == 0
        monkeypatch.setattr(upkeep, "IDLE_POLL", 0.005)
        await requests.next()
        await following.aclose()


async def test_look_that_failed_is_taken_again(file: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    run = (await engine.start(message())).run
    requests = Turns(monkeypatch, engine.store, "cancel_requests")
    requests.fault = StoreUnavailableError()
    async with opened(file) as other:
        await other.request_cancel(run.id, "requested")  # the only commit that there is to notice
        await requests.next(2)
        requests.fault = None
        assert (await everything(engine, run.id))[-1] == RunCancelled("requested")


# --- upkeep that fails


async def test_store_that_is_away_is_mentioned_once_and_found_again(
    file: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = Turns(monkeypatch, engine.store, "changed")
    looks.fault = StoreUnavailableError()
    await looks.next(5)
    assert caplog.messages.count("the store cannot be reached: store_unavailable") == 1
    looks.fault = None
    await looks.next(2)
    looks.fault = StoreUnavailableError()
    await looks.next(2)
    assert caplog.messages.count("the store cannot be reached: store_unavailable") == 2


async def test_mistake_in_the_upkeep_is_logged_and_does_not_end_it(
    engine: Engine, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    claims = Turns(monkeypatch, engine.store, "claim")
    claims.fault = ZeroDivisionError()
    engine._journal.queue_moved.set()
    await claims.next()
    engine._journal.queue_moved.set()
    await claims.next()
    claims.fault = None
    [first, *_] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert first.message == "upkeep failed"
    assert first.exc_info is not None
    gate.set()
    run = (await engine.start(message())).run
    assert (await engine.result(run.id)).status is RunStatus.COMPLETED


async def test_old_logs_are_swept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "SWEEP_PAUSE", 0.001)
    seen: list[float] = []
    again = asyncio.Event()

    async def sweep(self: SqliteStore, retention: float) -> None:
        seen.append(retention)
        if len(seen) == 3:
            again.set()

    monkeypatch.setattr(SqliteStore, "sweep", sweep)
    async with engine_on(file, ScriptedModel()):
        await soon(again.wait())
    assert set(seen) == {24 * 3600.0}
