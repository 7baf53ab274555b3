"""A model that says what a test wants when the test wants it, and an engine around it. No network.

gate = asyncio.Event()
model = ScriptedModel(["Hello ", gate, "world", STOP])
async with engine_on(tmp_path / "chat.db", model) as engine:
    started = await engine.start(message("Hi"))
    asked = await model.asked(0)
    gate.set()
    await soon(asked.closed.wait())
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from chat.commands import NewRun
from chat.commits import Append, Batch, Committed
from chat.embeddings import Embedder
from chat.engine import Engine, Timing
from chat.events import Event, ModelSelected, ReasoningDelta, Source, Terminal, TextDelta, ToolDelta, ToolStarted
from chat.ids import new_id
from chat.intake import Intake
from chat.live import LiveRun
from chat.memory import MemoryPolicy
from chat.policy import Policy
from chat.ports import ChatModel, Finished, ModelRequest, Part
from chat.sessions import NewSession, Turn
from chat.tools import NO_TOOLS, Toolbox
from chat.tracing import NO_TRACER, Tracer
from store.sqlite import SqliteStore
from tests.patience import PATIENCE

STOP = Finished("stop")

Step: TypeAlias = str | Part | Sequence[Part] | asyncio.Event | Exception
"""Text or parts are said in one read, an event is waited for, an exception is raised."""


async def until_more(live: LiveRun, seen: int) -> None:
    """Return when there are more than ``seen`` events to see, or no more will come."""
    while len(live.events) <= seen and not live.closed and live.trouble is None:
        woken = asyncio.Event()
        live.look_out(woken.set)
        try:
            await woken.wait()
        finally:
            live.overlook(woken.set)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, and whether its answer's stream has been closed, by its end or by who read it."""

    request: ModelRequest
    closed: asyncio.Event = field(default_factory=asyncio.Event)


class ScriptedModel:
    """Plays its scripts in turn, one a request, and the last one again and again.

    Behind the first read, text is offered to the request's ``hear``, as a model that is read from a socket does.
    """

    name = "scripted"

    def __init__(self, *scripts: Sequence[Step]) -> None:
        self.requests: list[Asked] = []
        self.closed = False
        self.scripts = scripts or ([STOP],)
        self._arrived = asyncio.Condition()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Part], None]:
        script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
        asked = Asked(request)
        self.requests.append(asked)
        try:
            async with self._arrived:
                self._arrived.notify_all()
            begun = False
            for step in script:
                parts: Sequence[Part]
                match step:
                    case asyncio.Event():
                        await step.wait()
                        continue
                    case Exception():
                        raise step
                    case str():
                        parts = [TextDelta(step)]
                    case TextDelta() | ReasoningDelta() | ToolStarted() | ToolDelta():
                        parts = [step]
                    case Source() | ModelSelected() | Finished():
                        parts = [step]
                    case _:
                        parts = step
                if not (begun and request.hear is not None and request.hear(parts)):
                    yield parts
                    begun = True
        finally:
            asked.closed.set()

    async def asked(self, number: int) -> Asked:
        """The request of this number, from 0; waits for it if it has not come yet."""
        async with asyncio.timeout(PATIENCE), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) > number)
        return self.requests[number]

    async def close(self) -> None:
        self.closed = True


class UnsteadyStore(SqliteStore):
    """A store whose commits can be held up, refused, or done and yet reported as refused."""

    def __init__(self, path: Path, *, lease: float = 10.0) -> None:
        super().__init__(path, lease=lease)
        self.commits: list[Sequence[Append]] = []
        self.fault: Exception | None = None
        self.done_anyway = False
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, batch: Sequence[Append]) -> Committed:
        self.commits.append(batch)
        self.begun.set()
        await self.gate.wait()
        if self.fault is None:
            return await self.write(batch)
        if self.done_anyway:
            await self.write(batch)
        raise self.fault

    async def write(self, batch: Sequence[Append]) -> Committed:
        return await super().commit(batch)


def message(text: str = "Hello", session_id: str = "ses_1", **more: Any) -> NewRun:
    """A user's message, and the run that is to answer it."""
    session = more.pop("session", NewSession(session_id, "ann"))
    values = {"id": new_id("run"), "user_id": None, "model": "scripted", "turns": [Turn("user", text)]}
    return NewRun(session=session, **(values | more))


@asynccontextmanager
async def opened(path: Path, *, lease: float = 10.0) -> AsyncIterator[UnsteadyStore]:
    """A store on this file, as one process has it open."""
    store = UnsteadyStore(path, lease=lease)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def engine_on(
    path: Path,
    model: ChatModel,
    policy: Policy | None = None,
    *,
    lease: float = 10.0,
    window: float = 0.0,
    history: float | None = None,
    tools: Toolbox = NO_TOOLS,
    tracer: Tracer = NO_TRACER,
    memory: MemoryPolicy | None = None,
    embedder: Embedder | None = None,
    intake: Intake | None = None,
) -> AsyncIterator[Engine]:
    """One process: an engine on a store of its own."""
    async with opened(path, lease=lease) as store:
        timing = Timing(window=window, lease=lease, history=history)
        engine = Engine(
            store,
            model,
            policy or Policy(),
            timing,
            tools,
            memory=memory,
            intake=intake,
            tracer=tracer,
            embedder=embedder,
        )
        async with engine.running():
            yield engine


def unsteady(engine: Engine) -> UnsteadyStore:
    """The engine's store, to make it fail."""
    assert isinstance(engine.store, UnsteadyStore)
    return engine.store


async def follow(engine: Engine, run_id: str, after: int) -> AsyncGenerator[Batch, None]:
    """What a follower gets, as it comes."""
    with closing(await engine.follower(run_id, after)) as follower:
        while (batch := await follower.next()) is not None:
            yield batch


def uncounted(event: Event | None) -> Event | None:
    """The event without what its run has used: most tests are about other things."""
    return replace(event, usage=None) if isinstance(event, Terminal) else event


async def everything(engine: Engine, run_id: str, after: int = 0) -> list[Event]:
    """All that a follower gets, to the end of its stream, uncounted; checks that nothing is missing or comes twice."""
    events: list[Event] = []
    async with asyncio.timeout(PATIENCE):
        async for batch in follow(engine, run_id, after):
            assert batch.first_seq == after + len(events) + 1
            events += batch.events
    return [event for event in map(uncounted, events) if event is not None]
