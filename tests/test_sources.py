"""Sources on their way from the model to the log, over steps and processes."""

import asyncio
from dataclasses import replace
from pathlib import Path

from chat.events import Event, Seam, Source, TextDelta, answer_text, completed, ends
from chat.live import FOLLOW_CHARS, LiveRun
from chat.ports import Finished
from chat.sessions import Turn
from chat.sources import MAX_SOURCES, MAX_TEXT
from tests.ledger import running
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel, Step, engine_on, everything, message, opened, until_more
from tests.shop import Shop, order

A, B = Source("", "https://a.example"), Source("", "https://b.example", "B", start=1, end=3)


def named(source: Source, number: int, **changes: int) -> Source:
    return replace(source, id=f"source_{number}", **changes)  # type: ignore[arg-type]


async def log_of(file: Path, *scripts: list[Step]) -> list[Event]:
    async with engine_on(file, ScriptedModel(*scripts), tools=Shop().box) as engine:
        return await everything(engine, (await engine.start(message("Hello"))).run.id)


async def test_sources_are_recorded_where_they_came_and_once(file: Path) -> None:
    log = await log_of(file, [A, "Hi ", [TextDelta("there"), B, A], "!", [B], STOP])
    hi: list[Event] = [TextDelta("Hi "), TextDelta("there"), named(B, 2), TextDelta("!")]
    assert log == [named(A, 1), *hi, completed("Hi there!", "stop", None)]
    async with opened(file) as store:
        [_, answer] = (await store.messages("ses_1", 10, None)).items
    assert list(answer.sources) == [named(A, 1), named(B, 2)]


async def test_source_counts_from_where_the_model_began_to_say_it(file: Path) -> None:
    """What a model says behind a tool's answer is another answer to it, and a part of the same one to its reader."""
    first: list[Step] = ["I order. ", [B, *order("bread"), Finished("tool_calls")]]
    log = await log_of(file, first, ["Done.", [B, A], STOP])
    found = [event for event in log if isinstance(event, Source)]
    assert found == [named(B, 1), named(B, 2, start=10, end=12), named(A, 3)]
    assert answer_text(log)[10:12] == "on"


async def test_run_takes_so_many_sources_and_its_answer_goes_on(file: Path) -> None:
    many = [Source("", f"https://a.example/{number}") for number in range(MAX_SOURCES + 9)]
    log = await log_of(file, ["Hi ", many, "there", STOP])
    assert [event.url for event in log if isinstance(event, Source)] == [source.url for source in many[:MAX_SOURCES]]
    assert log[-1] == completed("Hi there", "stop", None)


async def test_run_that_goes_on_elsewhere_repeats_no_source(file: Path) -> None:
    model = ScriptedModel([[TextDelta("Hi "), A, B], asyncio.Event()])
    async with engine_on(file, model) as engine:
        run = (await engine.start(message("Hello"))).run
        live = engine._live.owned(run.id)
        assert live is not None
        await soon(until_more(live, 2))
        await soon(engine.drain(0))
        async with engine_on(file, ScriptedModel(["there", [A, B], STOP])) as successor:
            log = await everything(successor, run.id)
            said = await successor.answer(await successor.run(run.id))
    assert log == [
        TextDelta("Hi "),
        named(A, 1),
        named(B, 2),
        Seam(2),
        TextDelta("there"),
        named(B, 3, start=4, end=6),  # at another place in the answer
        completed("Hi there", "stop", None),
    ]
    assert said == Turn("assistant", "Hi there", sources=(log[1], log[2], log[5]))  # type: ignore[arg-type]


async def test_answer_of_sources_alone_is_one_that_was_shown(file: Path) -> None:
    """It is not asked for again as if nothing had come, or they would be there twice."""
    log = await log_of(file, [[A]], ["Hi", STOP])
    assert log[0] == named(A, 1)
    assert len(log) == 2
    assert ends(log[-1])


def test_sources_of_another_process_are_known_here() -> None:
    live = LiveRun(running(), owned=False)
    live.feed(1, [TextDelta("Hi"), named(A, 1)])
    live.feed(2, [named(A, 1), named(B, 2)])
    assert live.sources == [named(A, 1), named(B, 2)]


def test_page_of_sources_is_no_longer_than_one_of_text() -> None:
    live = LiveRun(running(), owned=True)
    long: list[Event] = [Source(f"source_{n}", f"https://a.example/{n}", text="x" * MAX_TEXT) for n in range(100)]
    live.publish(long)
    assert len(live.page(0).events) == 1 + FOLLOW_CHARS // (MAX_TEXT + len("https://a.example/10"))
