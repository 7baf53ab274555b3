"""The model searches the documents by itself: what it is told is in the log, and is nobody else's."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chat.documents import Chunk, NewDocument
from chat.engine import Engine
from chat.events import Event, RunCompleted, Seam, Source, ToolCalled, ToolDelta, ToolFinished, ToolStarted
from chat.functions import tool_of
from chat.generation import LOST
from chat.ids import new_id
from chat.policy import Policy
from chat.ports import Part
from chat.searching import FOUND, NO_DOCUMENTS, NOTHING, SEARCH_TOOL
from chat.sessions import NewSession
from chat.sources import MAX_SOURCES
from chat.terms import Terms, ToolSpec
from chat.tools import LONGEST_RESULT, Toolbox
from chat.usage import BYTES_PER_TOKEN
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel, Step, UnsteadyStore, engine_on, everything, message, unsteady
from tests.shop import CALLS

HOURS = "The shop opens at nine."


async def add(engine: Engine, *texts: str, user_id: str | None = None, collection: str = "handbook") -> str:
    chunks = [Chunk(f"Hours, paragraph {number}", text) for number, text in enumerate(texts, 1)]
    new = NewDocument(new_id("doc"), user_id, collection, "Guide", "text/plain", 1, chunks)
    return (await engine.store.add_document(new, 0)).id


async def ask(engine: Engine, text: str = "Hello?", collection: str | None = "handbook", **more: Any) -> str:
    session = NewSession("ses_1", "ann", collection=collection)
    return (await engine.start(message(text, session=session, **more))).run.id


def searching(*queries: object, call_id: str = "call_1") -> list[Step]:
    """The model calls the tool with all of these at once; what is no text are its arguments."""
    calls: list[Part] = []
    for number, query in enumerate(queries, int(call_id[-1])):
        arguments = {"query": query} if isinstance(query, str) else query
        calls += [ToolStarted(f"call_{number}", SEARCH_TOOL), ToolDelta(f"call_{number}", json.dumps(arguments))]
    return [[*calls, CALLS]]


def told(log: list[Event], call_id: str = "call_1") -> list[dict[str, str]]:
    """The passages that the model was told of by a call."""
    [result] = [event.result for event in log if isinstance(event, ToolFinished) and event.call_id == call_id]
    assert result is not None
    before, behind = FOUND.split("{}")
    assert result.startswith(before)
    assert result.endswith(behind)
    return [json.loads(line) for line in result.removeprefix(before).removesuffix(behind).split("\n")]


def sources(log: list[Event]) -> list[Source]:
    return [event for event in log if isinstance(event, Source)]


async def test_what_a_search_finds_is_told_to_the_model_recorded_and_kept(file: Path) -> None:
    model = ScriptedModel(searching("shop opens"), ["At nine.", STOP])
    async with engine_on(file, model) as engine:
        document = await add(engine, HOURS, "Tea is free.")
        run_id = await ask(engine)
        log = await soon(everything(engine, run_id))
        stored = await engine.answer(await engine.result(run_id))
    [source] = sources(log)
    assert source == Source(
        "source_1", title="Guide", document=document, place="Hours, paragraph 1", score=source.score, text=HOURS
    )
    kinds = [type(event) for event in log]
    assert kinds[2:5] == [ToolCalled, Source, ToolFinished]
    assert told(log) == [{"title": "Guide", "place": "Hours, paragraph 1", "text": HOURS}]
    assert list(stored.sources) == [source]
    first, second = [asked.request for asked in model.requests]
    [spec] = first.tools
    assert spec.name == SEARCH_TOOL
    assert set(spec.parameters["properties"]) == {"query", "limit"}  # type: ignore[call-overload]
    [step] = second.steps
    assert step.calls[0].result is not None
    assert HOURS in step.calls[0].result


async def test_a_source_that_is_there_is_told_of_again_and_recorded_once(file: Path) -> None:
    model = ScriptedModel(searching("shop", "nine opens"), searching("tea", call_id="call_3"), ["Yes.", STOP])
    async with engine_on(file, model) as engine:
        await add(engine, HOURS, "Tea is free.")
        log = await soon(everything(engine, await ask(engine, "Where is the shop?")))
    assert [source.text for source in sources(log)] == [HOURS, "Tea is free."]
    assert [source.id for source in sources(log)] == ["source_1", "source_2"]
    for call, text in (("call_1", HOURS), ("call_2", HOURS), ("call_3", "Tea is free.")):
        assert [line["text"] for line in told(log, call)] == [text]
    assert [asked.request.messages for asked in model.requests] == [model.requests[0].request.messages] * 3


async def test_nothing_of_other_users_and_collections_is_found(file: Path) -> None:
    model = ScriptedModel(searching("shop"), ["Yes.", STOP])
    async with engine_on(file, model) as engine:
        await add(engine, "The shop of bob.", user_id="bob")
        await add(engine, "The shop of ann.", user_id="ann")
        await add(engine, "The shop of all.")
        await add(engine, "The shop of elsewhere.", user_id="ann", collection="other")
        log = await soon(everything(engine, await ask(engine)))
    assert sorted(line["text"] for line in told(log)) == ["The shop of all.", "The shop of ann."]
    assert sorted(source.text or "" for source in sources(log)) == ["The shop of all.", "The shop of ann."]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"query": "wind"}, NOTHING),
        ({"query": "?!"}, NOTHING),
        ({"query": ""}, NOTHING),
        ({"query": "shop", "limit": 17}, "limit"),
        ({"query": "shop", "limit": 0}, "limit"),
        ({"query": "shop", "user_id": "bob"}, "user_id"),
        ({"query": "shop", "collection": "other"}, "collection"),
        ({}, "query"),
    ],
)
async def test_search_that_finds_nothing_or_asks_for_too_much_says_so(
    file: Path, arguments: object, answer: str
) -> None:
    async with engine_on(file, ScriptedModel(searching(arguments), ["Yes.", STOP])) as engine:
        await add(engine, HOURS)
        log = await soon(everything(engine, await ask(engine)))
    [finished] = [event for event in log if isinstance(event, ToolFinished)]
    assert answer in (finished.result or finished.error or "")
    assert (sources(log), isinstance(log[-1], RunCompleted)) == ([], True)


async def test_search_keeps_to_its_limit_and_its_budget(file: Path) -> None:
    model = ScriptedModel(searching({"query": "shop", "limit": 2}, {"query": "shop", "limit": 16}), ["Yes.", STOP])
    policy = Policy(passage_tokens=400)
    async with engine_on(file, model, policy) as engine:
        await add(engine, *[f"shop {number} {'word ' * 40}" for number in range(16)])
        log = await soon(everything(engine, await ask(engine)))
    assert len(told(log)) == 2
    many = told(log, "call_2")
    assert 2 < len(many) < 16
    assert sum(len(json.dumps(line)) for line in many) <= 400 * BYTES_PER_TOKEN


async def test_result_is_never_cut_in_a_passage(file: Path) -> None:
    """As JSON these take six times their room, and a result may not be as long."""
    model = ScriptedModel(searching({"query": "shop", "limit": 16}), ["Yes.", STOP])
    policy = replace(Policy(passage_tokens=1_000_000), budgets=replace(Policy().budgets, default=1_000_000))
    async with engine_on(file, model, policy) as engine:
        await add(engine, *[f"shop {number} {'<' * 1_500}" for number in range(16)])
        log = await soon(everything(engine, await ask(engine)))
    lines = told(log)
    assert 16 > len(lines) > LONGEST_RESULT // 10_000
    assert len(sources(log)) == len(lines)


async def test_search_tells_of_no_more_than_the_log_does(file: Path) -> None:
    scripts = [searching({"query": f"shop{n}", "limit": 16}) for n in range(5)]
    model = ScriptedModel(*scripts, ["Yes.", STOP])
    async with engine_on(file, model, Policy(passage_tokens=10_000)) as engine:
        await add(engine, *[f"shop{n} {number}" for n in range(5) for number in range(16)])
        log = await soon(everything(engine, await ask(engine)))
    assert len(sources(log)) == MAX_SOURCES == 4 * 16
    results = [event.result for event in log if isinstance(event, ToolFinished)]
    assert [result == NOTHING for result in results] == [False] * 4 + [True]


async def test_tool_is_offered_where_there_is_a_collection_and_it_is_wanted(file: Path) -> None:
    for policy, collection, offered in (
        (Policy(), "handbook", True),
        (Policy(), None, False),
        (Policy(search_documents=False), "handbook", False),
        (Policy(passage_tokens=0), "handbook", False),
    ):
        model = ScriptedModel([STOP])
        async with engine_on(file, model, policy) as engine:
            run = await engine.start(message("Hello?", session=NewSession(new_id("ses"), "ann", collection=collection)))
            await soon(everything(engine, run.run.id))
        [asked] = model.requests
        assert bool(asked.request.tools) == offered


async def test_call_without_a_collection_is_told_that_there_are_no_documents(file: Path) -> None:
    model = ScriptedModel(searching("shop"), ["Yes.", STOP])
    async with engine_on(file, model) as engine:
        await add(engine, HOURS)
        log = await soon(everything(engine, await ask(engine, collection=None)))
    assert ToolFinished("call_1", error=NO_DOCUMENTS) in log


async def test_another_tool_of_that_name_takes_its_place(file: Path) -> None:
    async def search_documents(query: str) -> str:
        """Ours."""
        return f"own {query}"

    model = ScriptedModel(searching("shop"), ["Yes.", STOP])
    async with engine_on(file, model, tools=Toolbox([tool_of(search_documents)])) as engine:
        await add(engine, HOURS)
        log = await soon(everything(engine, await ask(engine)))
    assert ToolFinished("call_1", "own shop") in log
    assert [spec.description for spec in model.requests[0].request.tools] == ["Ours."]


async def test_clients_own_tool_of_that_name_is_the_clients(file: Path) -> None:
    spec = ToolSpec(SEARCH_TOOL, "The client's.", {"type": "object", "properties": {}})
    model = ScriptedModel(searching("shop"), ["Yes.", STOP])
    async with engine_on(file, model) as engine:
        await add(engine, HOURS)
        log = await soon(everything(engine, await ask(engine, terms=Terms(tools=[spec]))))
    assert [tool.description for tool in model.requests[0].request.tools] == ["The client's."]
    assert isinstance(log[-1], RunCompleted)
    assert log[-1].finish_reason == "tool_calls"
    assert not [event for event in log if isinstance(event, ToolFinished)]


async def test_search_that_a_crash_cut_off_is_not_made_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def hang(_: object) -> list[object]:
        asked.set()
        await never.wait()
        return []

    first = ScriptedModel(searching("shop"))
    async with engine_on(file, first) as engine:
        await add(engine, HOURS)
        monkeypatch.setattr(unsteady(engine), "passages", _first_nothing_then(unsteady(engine), hang))
        run_id = await ask(engine)
        await soon(asked.wait())
    monkeypatch.undo()
    second = ScriptedModel(["Well.", STOP])
    async with engine_on(file, second) as engine:
        log = await soon(everything(engine, run_id))
    assert [type(event) for event in log][2:5] == [ToolCalled, Seam, ToolFinished]
    assert ToolFinished("call_1", error=LOST) in log
    assert sources(log) == []
    assert [spec.name for spec in second.requests[0].request.tools] == [SEARCH_TOOL]


async def test_source_is_committed_together_with_the_result(file: Path) -> None:
    model = ScriptedModel(searching("shop"), ["Yes.", STOP])
    async with engine_on(file, model) as engine:
        await add(engine, HOURS)
        await soon(everything(engine, await ask(engine)))
        batches = [[type(event) for event in append.events] for batch in unsteady(engine).commits for append in batch]
    assert [Source, ToolFinished] in [batch[:2] for batch in batches]


def _first_nothing_then(store: UnsteadyStore, then: object) -> object:
    """The run's own passages are looked for as ever; what is asked for after that hangs."""
    before = store.passages

    async def passages(wanted: object) -> object:
        store.passages = then  # type: ignore[method-assign,assignment]
        return await before(wanted)  # type: ignore[arg-type]

    return passages
