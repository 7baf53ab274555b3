"""A shop whose tools a scripted model calls, and what becomes of the run."""

import asyncio
import json
from contextlib import aclosing
from pathlib import Path

from chat.engine import Engine, Timing
from chat.events import (
    Event,
    ToolCalled,
    ToolDelta,
    ToolStarted,
)
from chat.functions import tool_of
from chat.policy import Policy
from chat.ports import Finished, Part
from chat.runs import Run
from chat.tools import Toolbox, ToolContext
from tests.patience import soon
from tests.scripted import ScriptedModel, everything, follow, message, opened

CALLS = Finished("tool_calls")


class Shop:
    """Tools that are held up, count, and remember what they were called with."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gates = {name: asyncio.Event() for name in ("tea", "milk")}
        self.begun, self.both = asyncio.Event(), asyncio.Event()

    @property
    def box(self) -> Toolbox:
        return Toolbox([tool_of(self.order), tool_of(self.note)])

    async def order(self, article: str) -> str:
        """Order an article."""
        self.calls.append(article)
        if len(self.calls) == 2:
            self.both.set()
        if article in self.gates:
            self.begun.set()
            await self.gates[article].wait()
        return f"{article} is on its way"

    async def note(self, context: ToolContext, text: str) -> str:
        """Write something down."""
        return await context.save("note", {"text": text})


def order(article: str, call_id: str = "call_1") -> list[Part]:
    return [ToolStarted(call_id, "order"), ToolDelta(call_id, json.dumps({"article": article}))]


def ordered(article: str, call_id: str = "call_1") -> list[Event]:
    arguments = json.dumps({"article": article})
    return [ToolStarted(call_id, "order"), ToolDelta(call_id, arguments), ToolCalled(call_id, "order", arguments)]


async def started(engine: Engine, text: str = "Hello") -> Run:
    return (await engine.start(message(text))).run


async def log_of(engine: Engine, run: Run) -> list[Event]:
    return await everything(engine, run.id)


async def crashed(path: Path, model: ScriptedModel, tools: Toolbox, after: int) -> Run:
    """A process that dies when so many events of its run are committed."""
    async with opened(path) as store:
        dying = Engine(store, model, Policy(), Timing(window=0.0), tools)
        loops = dying.running()
        await loops.__aenter__()
        run = await started(dying)
        async with aclosing(follow(dying, run.id, after - 1)) as batches:
            await soon(anext(batches))
        for job in dying._runner._jobs.values():
            job.live.owned = False
            job.generating.cancel()
        await loops.__aexit__(None, None, None)
        return run
