"""Models that answer, summarise and give titles by scripts of their own, and how to wait for what they do.

minds = Minds(answers=["Hi", STOP], summaries=["Ann is here.", STOP])
async with engine_on(file, minds, policy, memory=BOTH) as engine:
    await answer(engine, "Hello, I am Ann")
    await quiet(engine)
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from chat.context import Budgets
from chat.engine import Engine
from chat.errors import ModelError
from chat.events import Event
from chat.memory import MemoryPolicy
from chat.policy import Policy
from chat.ports import ModelRequest, Part
from chat.runs import Run, RunKind
from chat.sessions import Summary
from tests.patience import PATIENCE, soon
from tests.scripted import STOP, Asked, ScriptedModel, Step, everything, message

BOTH = MemoryPolicy(summaries=True, titles=True)
SUMMARIES = MemoryPolicy(summaries=True)
TITLES = MemoryPolicy(titles=True)

SMALL = Policy(budgets=Budgets(100), retries=0)
"""400 bytes, 100 of them for the summary: the second exchange of two texts of 60 has the first one folded."""

BROKEN = ModelError("upstream_unavailable", "It is down.", retryable=True, transient=True)


class Minds:
    """A scripted model for each kind of run."""

    name = "scripted"

    def __init__(
        self, answers: Sequence[Step] = (), summaries: Sequence[Step] = (), titles: Sequence[Step] = ()
    ) -> None:
        self.answers = ScriptedModel(answers or ("a" * 60, STOP))
        self.summaries = ScriptedModel(summaries or ("Sum.", STOP))
        self.titles = ScriptedModel(titles or ("A title", STOP))

    def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Part], None]:
        return self.of(request.kind).stream(request)

    def of(self, kind: RunKind) -> ScriptedModel:
        return {RunKind.ANSWER: self.answers, RunKind.SUMMARY: self.summaries, RunKind.TITLE: self.titles}[kind]

    async def close(self) -> None:
        """Nothing is held open."""


def asked(request: Asked) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in request.request.messages]


def padded(text: str) -> str:
    """A text of 60 bytes."""
    return text.ljust(60, ".")


async def answer(engine: Engine, text: str = "", **more: Any) -> list[Event]:
    """Say something of 60 bytes, and wait for the answer."""
    return await everything(engine, (await engine.start(message(padded(text), **more))).run.id)


async def quiet(engine: Engine) -> None:
    """Return when nothing is generated, and nothing is about to be."""
    async with asyncio.timeout(PATIENCE):
        while tasks := [*[job.task for job in engine._runner._jobs.values() if job.task], *engine._background]:
            await asyncio.wait(tasks)


async def talk(engine: Engine, *texts: str) -> None:
    """Say these, one after the other, and let what follows from each come to its end."""
    for text in texts:
        await answer(engine, text)
        await quiet(engine)


async def beside(engine: Engine, session_id: str = "ses_1") -> Run:
    """The run that is going beside the conversation, once there is one."""
    async with asyncio.timeout(PATIENCE):
        while True:
            run = await engine.store.active_run(session_id, beside=True)
            if run is not None and run.kind is not RunKind.ANSWER:
                return run


async def summary(engine: Engine, session_id: str = "ses_1") -> Summary | None:
    """Of the branch that is spoken to."""
    session = await soon(engine.store.session(session_id))
    assert session is not None
    assert session.leaf_id is not None
    return await engine.store.summary(session.leaf_id)


async def title(engine: Engine, session_id: str = "ses_1") -> str | None:
    session = await engine.store.session(session_id)
    assert session is not None
    return session.title
