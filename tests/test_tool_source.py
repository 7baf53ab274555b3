"""Tools that come and go while the process runs."""

import asyncio
from pathlib import Path

import pytest

from chat.events import ToolApproval, ToolFinished, ToolStarted
from chat.functions import tool_of
from chat.steps import Call
from chat.terms import ToolSpec
from chat.tools import Tool, Toolbox, ToolContext
from tests.ledger import running
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel, UnsteadyStore, engine_on
from tests.shop import CALLS, log_of, started
from tests.test_approvals import until


def note() -> str:
    """One that is always there."""
    return "noted"


class Source:
    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}
        self.asking: set[str] = set()
        self.waited_for, self.ready = asyncio.Event(), asyncio.Event()

    def asks(self, name: str) -> bool:
        return name in self.asking

    async def settled(self) -> None:
        self.waited_for.set()
        await self.ready.wait()

    def come(self, name: str) -> None:
        async def run(arguments: str, _: ToolContext) -> str:
            return f"{name} of the source"

        self.tools[name] = Tool(ToolSpec(name, "Something.", {"type": "object"}), run)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def box(source: Source) -> Toolbox:
    return Toolbox([tool_of(note)], prompt="Be kind.").joined(source)


async def said(box: Toolbox, name: str) -> str | None:
    call = await box.answer(Call("call_1", name, "{}"), running(), UnsteadyStore(Path("nowhere")))
    return call.result or call.error


async def test_tools_come_and_go(source: Source, box: Toolbox) -> None:
    assert [spec.name for spec in box.specs] == ["note"]
    assert await said(box, "search") == "There is no such tool."
    source.come("search")
    assert [spec.name for spec in box.specs] == ["note", "search"]
    assert await said(box, "search") == "search of the source"
    source.tools.clear()
    assert [spec.name for spec in box.specs] == ["note"]
    assert box.prompt == "Be kind."


async def test_tools_that_stay_go_first(source: Source, box: Toolbox) -> None:
    source.come("note")
    source.asking.add("note")
    assert [spec.description for spec in box.specs] == ["One that is always there."]
    assert await said(box, "note") == "noted"
    assert not box.asks(Call("1", "note", "{}"))


async def test_run_begins_when_it_is_known_which_tools_there_are(file: Path, source: Source, box: Toolbox) -> None:
    model = ScriptedModel([STOP])
    async with engine_on(file, model, tools=box) as engine:
        run = await started(engine)
        await soon(source.waited_for.wait())
        assert model.requests == []
        source.come("search")
        source.ready.set()
        await log_of(engine, run)
        assert [spec.name for spec in model.requests[0].request.tools] == ["note", "search"]


async def test_call_that_needs_a_yes_waits_for_it_when_its_tool_is_away(
    file: Path, source: Source, box: Toolbox
) -> None:
    source.ready.set()
    source.asking.add("delete")
    model = ScriptedModel([[ToolStarted("call_1", "delete"), CALLS]], [STOP])
    async with engine_on(file, model, tools=box) as engine:
        run = await started(engine)
        await until(engine, run, ToolApproval("call_1"))
        source.come("delete")
        await engine.approve(run.id, "call_1", approved=True)
        log = await log_of(engine, run)
    assert ToolFinished("call_1", "delete of the source") in log
