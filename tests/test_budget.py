"""How many tokens a run may use, and what becomes of one that needs more."""

import asyncio
from pathlib import Path

import pytest

from chat.errors import ModelError
from chat.events import ReasoningDelta, RunCompleted, RunFailed, TextDelta, ToolDelta, ToolStarted, Usage
from chat.hearing import Hearing
from chat.policy import Policy
from chat.ports import Finished, Part
from chat.runs import Run
from tests.patience import soon
from tests.scripted import STOP, ScriptedModel, Step, engine_on, everything, message
from tests.shop import Shop, order

HELLO = 2
"""Tokens of the message that everybody here says."""


async def ended(file: Path, model: ScriptedModel, tokens: int, shop: Shop | None = None) -> tuple[Run, str]:
    """A run that may use so many tokens, when it has ended, and what it answered."""
    async with engine_on(file, model, Policy(run_tokens=tokens), tools=(shop or Shop()).box) as engine:
        run = await soon(engine.result((await engine.start(message())).run.id))
        return run, (await engine.answer(run)).content


def over(run: Run) -> Usage | None:
    """What a run has used that ended because of its budget."""
    assert isinstance(run.terminal, RunFailed)
    assert (run.terminal.code, run.terminal.retryable) == ("too_many_tokens", False)
    return run.terminal.usage


@pytest.mark.parametrize("token", ["1234", "\N{GRINNING FACE}", "1", "12", "\N{KATAKANA LETTER A}"])
async def test_answer_is_cut_where_it_goes_over_the_budget(file: Path, token: str) -> None:
    run, answer = await ended(file, ScriptedModel([*[token] * 500, STOP]), HELLO + 100)
    bytes_said = len(answer.encode())
    assert over(run) == Usage(HELLO, -(-bytes_said // 4), "estimated")
    assert 99 * 4 < bytes_said <= 100 * 4


async def test_answer_that_uses_the_whole_budget_is_complete(file: Path) -> None:
    run, answer = await ended(file, ScriptedModel([*["1234"] * 100, STOP]), HELLO + 100)
    assert isinstance(run.terminal, RunCompleted)
    assert answer == "1234" * 100


@pytest.mark.parametrize(
    "said", [[ReasoningDelta("1234")] * 20, [ToolStarted("call_1", "order"), *[ToolDelta("call_1", "1234")] * 20]]
)
async def test_reasoning_and_calls_are_part_of_it(file: Path, said: list[Part]) -> None:
    used = over((await ended(file, ScriptedModel([said, STOP]), HELLO + 10))[0])
    assert used is not None
    assert (used.input_tokens, used.output_tokens) == (HELLO, 10)


async def test_request_that_would_go_over_it_is_not_sent(file: Path) -> None:
    model = ScriptedModel()
    run, _ = await ended(file, model, HELLO - 1)
    assert over(run) is None
    assert model.requests == []


@pytest.mark.parametrize("usage", [None, Usage(900, 90)])
async def test_step_that_would_go_over_it_is_not_begun_and_what_was_said_is_kept(
    file: Path, usage: Usage | None
) -> None:
    shop = Shop()
    model = ScriptedModel(["Well. ", [*order("bread"), Finished("tool_calls", usage)]], ["Done.", STOP])
    first = usage or Usage(HELLO, 2 + 5, "estimated")
    spent = first.input_tokens + first.output_tokens
    second = HELLO + 2 + 5 + 5  # with the call, and what the tool has answered
    run, answer = await ended(file, model, spent + second - 1, shop)
    assert (over(run), answer) == (first, "Well. ")
    assert (len(model.requests), shop.calls) == (1, ["bread"])
    model = ScriptedModel(*model.scripts)
    run, answer = await ended(file.with_name("other.db"), model, spent + second + 2, Shop())
    assert isinstance(run.terminal, RunCompleted)
    assert answer == "Well. Done."


async def test_first_words_that_go_over_it_were_asked_for(file: Path) -> None:
    run, answer = await ended(file, ScriptedModel(["Hi ", STOP]), HELLO)
    assert (over(run), answer) == (Usage(HELLO, 0, "estimated"), "")


async def test_repeat_that_would_go_over_it_is_not_sent(file: Path) -> None:
    late = ModelError("upstream_timeout", "It is late.", retryable=True, transient=True)
    late.charged = ("scripted",)
    model = ScriptedModel([late], ["Hi ", STOP])
    assert over((await ended(file, model, HELLO * 2 - 1))[0]) == Usage(HELLO, 0, "estimated")
    assert len(model.requests) == 1


async def test_what_a_dead_process_has_used_counts(file: Path) -> None:
    gate = asyncio.Event()
    async with engine_on(file, model := ScriptedModel(["1234" * 10, gate])) as dead:
        run = (await dead.start(message())).run
        await model.asked(0)
        follower = await dead.follower(run.id, 0)
        await soon(follower.next())
        follower.close()
    again = ScriptedModel(["1234", STOP])
    async with engine_on(file, again, Policy(run_tokens=2 * (HELLO + 10) - 1)) as engine:
        assert TextDelta("1234") not in await everything(engine, run.id)
        assert over(await engine.run(run.id)) == Usage(HELLO, 10, "estimated")
    assert again.requests == []


async def test_tokens_are_not_counted_one_by_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[int] = []
    room = Hearing._room_behind

    def counted(self: Hearing, text: str, asked: int = 0) -> int:
        found = room(self, text, asked)
        rooms.append(found)
        return found

    monkeypatch.setattr(Hearing, "_room_behind", counted)
    words: list[Step] = [[TextDelta("1234")] * 1_000] * 10
    over((await ended(file, ScriptedModel(words), HELLO + 9_000))[0])
    assert 2 < len(rooms) < 50
