"""Conversations in which nothing happens any more go by themselves, if that is wanted."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from chat import upkeep
from chat.engine import Engine
from chat.events import Event, RunCompleted
from chat.functions import tool_of
from chat.sessions import Session
from chat.tools import Toolbox
from store.sqlite import SqliteStore
from tests.patience import PATIENCE, soon
from tests.scripted import STOP, ScriptedModel, engine_on, message
from tests.shop import CALLS, Shop, order, started

HISTORY = 0.05
"""Seconds."""

pytestmark = pytest.mark.usefixtures("often")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "SWEEP_PAUSE", 0.01)


async def until_gone(engine: Engine, session_id: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while await engine.store.session(session_id) is not None:  # noqa: ASYNC110  # nobody says when
            await asyncio.sleep(0.01)


async def test_idle_sessions_go_and_one_that_answers_stays(file: Path, gate: asyncio.Event) -> None:
    model = ScriptedModel(["Hello", STOP], ["Hi ", gate, "there", STOP])
    async with engine_on(file, model, history=HISTORY) as engine:
        await engine.start(message(session_id="idle"))
        await soon(model.asked(0))
        run = (await engine.start(message(session_id="busy"))).run
        with closing(await engine.follower(run.id, 0)) as follower:  # who looks afterwards may find nothing
            await until_gone(engine, "idle")
            await asyncio.sleep(HISTORY * 2)  # longer than it may be idle: it is not
            gate.set()
            events: list[Event] = []
            while (batch := await soon(follower.next())) is not None:
                events += batch.events
        assert isinstance(events[-1], RunCompleted)
        await until_gone(engine, "busy")


async def test_who_never_says_yes_does_not_keep_a_session(file: Path) -> None:
    shop = Shop()
    model = ScriptedModel([[*order("bread"), CALLS]], ["Done.", STOP])
    async with engine_on(file, model, history=HISTORY, tools=Toolbox([tool_of(shop.order, approval=True)])) as engine:
        run = await started(engine)
        await until_gone(engine, run.session_id)
        assert await engine.store.run(run.id) is None
        assert shop.calls == []


async def test_sessions_stay_for_ever_if_nothing_else_is_wanted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept, sweep = asyncio.Event(), SqliteStore.sweep

    async def look(*_: object) -> Sequence[Session]:
        raise AssertionError("nobody asked for that")

    async def sweep_and_tell(self: SqliteStore, retention: float) -> None:
        await sweep(self, retention)
        swept.set()

    monkeypatch.setattr(SqliteStore, "idle_sessions", look)
    monkeypatch.setattr(SqliteStore, "sweep", sweep_and_tell)
    async with engine_on(file, ScriptedModel()) as engine:
        run = (await engine.start(message())).run
        await engine.result(run.id)
        swept.clear()
        await soon(swept.wait())
        assert await engine.store.session(run.session_id) is not None
