"""Functions that become tools, and what the model is told when they go wrong."""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from chat.events import Source
from chat.functions import load_tools, tool_of
from chat.steps import Call
from chat.terms import ToolSpec
from chat.tools import FAILED, LONGEST_RESULT, Tool, Toolbox, ToolContext, ToolError
from tests.ledger import running
from tests.patience import PATIENCE, soon
from tests.scripted import UnsteadyStore

Pieces = Annotated[int, Field(ge=1, description="How many.")]


async def order(context: ToolContext, article: str, pieces: Pieces = 1) -> Any:
    """Order an article.

    Ask before you do.
    """
    if article == "broken":
        raise RuntimeError("a secret path")
    if article == "sold out":
        raise ToolError("It is sold out.")
    if article == "slow":
        await asyncio.Event().wait()
    return {"article": article, "pieces": pieces, "call": context.call_id, "user": context.run.user_id}


def weather(city: str) -> str:
    """The weather now."""
    return f"It rains in {city}." * (LONGEST_RESULT if city == "London" else 1)


def rate(value: float) -> float:
    """Rate something."""
    return value


async def answered(name: str, arguments: str) -> Call:
    box = Toolbox([tool_of(order, timeout=0.05), tool_of(weather), tool_of(rate)])
    return await soon(box.answer(Call("call_1", name, arguments), running(), UnsteadyStore(Path("nowhere"))))


def test_function_is_described_by_its_name_docstring_and_types() -> None:
    spec = tool_of(order).spec
    assert (spec.name, spec.description) == ("order", "Order an article.\n\nAsk before you do.")
    assert spec.parameters == {
        "type": "object",
        "additionalProperties": False,
        "required": ["article"],
        "properties": {
            "article": {"title": "Article", "type": "string"},
            "pieces": {"default": 1, "description": "How many.", "minimum": 1, "title": "Pieces", "type": "integer"},
        },
    }


async def test_result_is_text_or_json() -> None:
    call = await answered("order", '{"article": "tea", "pieces": 2}')
    assert call.result == '{"article":"tea","pieces":2,"call":"call_1","user":"ann"}'
    assert (await answered("weather", '{"city": "Oslo"}')).result == "It rains in Oslo."
    assert len((await answered("weather", '{"city": "London"}')).result or "") == LONGEST_RESULT


async def broken(kind: str) -> str:
    """Goes wrong in many ways."""
    match kind:
        case "surrogate":
            raise ToolError("no file \udc80")
        case "long":
            raise ToolError("x" * 2 * LONGEST_RESULT)
        case "cancelled":
            raise asyncio.CancelledError
        case "its own timeout":
            raise TimeoutError
        case _:
            return 7  # type: ignore[return-value]


def leaving() -> None:
    """Wants to end the process."""
    raise SystemExit(1)


def wrapped() -> object:
    """A plain function around one that is none."""
    return answered_later()


async def answered_later() -> str:
    return "later"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("surrogate", "no file ?"),
        ("long", "x" * LONGEST_RESULT),
        ("cancelled", FAILED),
        ("its own timeout", FAILED),
    ],
)
async def test_whatever_a_tool_raises_can_be_stored_and_ends_nothing(kind: str, error: str) -> None:
    call = Call("1", "broken", f'{{"kind": "{kind}"}}')
    answer = await soon(Toolbox([tool_of(broken)]).answer(call, running(), UnsteadyStore(Path("x"))))
    assert (answer.result, answer.error) == (None, error)


async def test_call_that_is_cancelled_from_outside_is_cancelled() -> None:
    call = Call("1", "order", '{"article": "slow"}')
    calling = asyncio.create_task(Toolbox([tool_of(order)]).answer(call, running(), UnsteadyStore(Path("x"))))
    await asyncio.sleep(0.01)
    calling.cancel()
    await asyncio.wait({calling})
    assert calling.cancelled()


async def test_tool_that_returns_no_text_at_all_fails() -> None:
    async def run(_arguments: str, _context: ToolContext) -> str:
        return None  # type: ignore[return-value]

    tool = Tool(ToolSpec("odd", "Odd.", {"type": "object"}), run)
    answer = await Toolbox([tool]).answer(Call("1", "odd", "{}"), running(), UnsteadyStore(Path("x")))
    assert answer.error == FAILED


async def test_plain_functions_run_in_threads_that_end_nothing() -> None:
    box = Toolbox([tool_of(leaving), tool_of(wrapped)])
    left = await soon(box.answer(Call("1", "leaving", "{}"), running(), UnsteadyStore(Path("x"))))
    assert left.error == FAILED
    later = await soon(box.answer(Call("2", "wrapped", "{}"), running(), UnsteadyStore(Path("x"))))
    assert later.result == "later"


async def test_plain_functions_that_hang_stop_no_others() -> None:
    gate = threading.Event()

    def hang() -> None:
        """Waits for ever."""
        gate.wait(PATIENCE)

    box = Toolbox([tool_of(hang, timeout=0.05), tool_of(weather)])
    store = UnsteadyStore(Path("x"))
    hanging = [box.answer(Call(str(number), "hang", "{}"), running(), store) for number in range(64)]
    assert {answer.error for answer in await soon(asyncio.gather(*hanging))} == {
        "The tool took too long. It may have taken effect."
    }
    answer = await soon(box.answer(Call("1", "weather", '{"city": "Oslo"}'), running(), store))
    assert answer.result == "It rains in Oslo."
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, complaint: complaints.append(complaint))
    gate.set()
    for thread in [each for each in threading.enumerate() if each.name == "tool hang"]:
        await asyncio.to_thread(thread.join, PATIENCE)  # what they return comes too late, and harms nothing
    await asyncio.sleep(0)
    assert complaints == []


async def test_few_of_many_problems_are_told() -> None:
    arguments = json.dumps({f"key_{number}": 1 for number in range(1_000)})
    answer = await answered("weather", arguments)
    assert len(answer.error or "") < 2_000


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("nothing", "{}", "There is no such tool."),
        ("order", '{"article": "sold out"}', "It is sold out."),
        ("order", '{"article": "slow"}', "The tool took too long. It may have taken effect."),
        ("order", '{"article": "broken"}', "The tool failed."),
        ("order", '{"article": "tea", "pieces": 0}', "The arguments do not fit: pieces: Input should be greater"),
        ("order", "", "The arguments do not fit: article: Field required"),
        ("rate", '{"value": NaN}', "The arguments do not fit: value: Input should be a finite number"),
        ("order", '{"article": "tea", "price": 0}', "The arguments do not fit: price: Extra inputs are not permitted"),
        ("order", '{"article": "te', "The arguments do not fit: : Invalid JSON"),
        ("order", "[" * 100_000, "The arguments do not fit: : Invalid JSON"),
    ],
)
async def test_model_is_told_what_went_wrong_and_no_secrets(name: str, arguments: str, error: str) -> None:
    call = await answered(name, arguments)
    assert call.result is None
    assert call.error is not None
    assert call.error.startswith(error)
    assert "secret" not in call.error


async def test_error_of_a_tool_without_words_still_says_something() -> None:
    def silent() -> None:
        """Fails."""
        raise ToolError

    call = await Toolbox([tool_of(silent)]).answer(Call("1", "silent", "{}"), running(), UnsteadyStore(Path("x")))
    assert call.error == "The tool failed."


def undocumented() -> None: ...


def untyped(city) -> None:  # type: ignore[no-untyped-def]
    """Has no type."""


def any_number(*cities: str) -> None:
    """Has no names."""


def positional(city: str, /) -> None:
    """Its parameter has no name for others."""


def impossible(thing: asyncio.Event) -> None:
    """No JSON becomes an event."""


def unknown(thing: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Its type is nowhere."""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_modules_bring_tools_and_prompts(modules: Path) -> None:
    own = "from tests.test_tools import *\n"
    (modules / "shop_a.py").write_text(own + "TOOLS = [order]\nSYSTEM_PROMPT = 'Be kind.'\n")
    (modules / "shop_b.py").write_text(own + "TOOLS = [tool_of(weather, timeout=3)]\n")
    box = load_tools(["shop_a", "shop_b"])
    assert ([spec.name for spec in box.specs], box.prompt) == (["order", "weather"], "Be kind.")
    assert load_tools([]).prompt is None


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("1 / 0", "cannot be imported: division by zero"),
        ("import nowhere_to_be_found", "cannot be imported: No module named"),
        ("", "has no list TOOLS"),
        ("TOOLS = []", "has no list TOOLS"),
        ("TOOLS = [undocumented]", "undocumented is no function with a docstring"),
        ("TOOLS = [untyped]", "untyped: city has no type"),
        ("TOOLS = [any_number]", "any_number: cities has no type, or is not one named value"),
        ("TOOLS = [positional]", "positional: city has no type, or is not one named value"),
        ("TOOLS = [impossible]", "impossible"),
        ("TOOLS = [unknown]", "Nowhere"),
        ("TOOLS = [order, order]", "there are two tools order"),
        ("TOOLS = [1]", "int is no function"),
    ],
)
def test_what_cannot_be_a_tool_is_named_at_the_start(modules: Path, source: str, error: str) -> None:
    imports = "from tests.test_tools import any_number, impossible, order, positional, undocumented, unknown, untyped\n"
    (modules / "shop_c.py").write_text(imports + source)
    with pytest.raises(ValueError, match="shop_c") as caught:
        load_tools(["shop_c"])
    assert error in str(caught.value)


async def test_what_a_tool_cites_is_no_source_where_there_is_no_answer() -> None:
    async def cites(context: ToolContext) -> bool:
        """Cites something."""
        return context.cite(Source("", url="https://a.example"))

    call = await Toolbox([tool_of(cites)]).answer(Call("1", "cites", "{}"), running(), UnsteadyStore(Path("x")))
    assert call.result == "false"
