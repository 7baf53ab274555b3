import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.context import SUMMARY_BYTES
from chat.echo import EchoModel
from chat.events import TextDelta
from chat.memory import record_of
from chat.ports import Finished, ModelRequest
from chat.runs import RunKind
from chat.sessions import Branch, Summary, Turn


async def echo(*turns: Turn, prefix: str = "") -> tuple[list[str], Finished]:
    model = EchoModel(0)
    parts = [part async for read in model.stream(ModelRequest(turns, prefix)) for part in read]
    await model.close()
    texts = [part.text for part in parts[:-1] if isinstance(part, TextDelta)]
    assert len(texts) == len(parts) - 1
    assert isinstance(parts[-1], Finished)
    return texts, parts[-1]


async def test_words_keep_the_space_behind_them() -> None:
    texts, _ = await echo(Turn("user", "Hello from the backend"))
    assert texts == ["Hello ", "from ", "the ", "backend"]


async def test_newlines_and_runs_of_space_survive() -> None:
    texts, _ = await echo(Turn("user", "\n  a\n\n\tb \r\n"))
    assert texts == ["\n  ", "a\n\n\t", "b \r\n"]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\u3000"])
async def test_message_without_words_works(text: str) -> None:
    texts, finished = await echo(Turn("user", text))
    assert "".join(texts) == text
    assert finished.reason == "stop"


@given(st.text())
async def test_words_join_up_to_the_message(text: str) -> None:
    texts, _ = await echo(Turn("user", text))
    assert "".join(texts) == text
    assert all(texts)


async def test_last_message_of_the_user_is_the_one() -> None:
    texts, _ = await echo(
        Turn("user", "first"), Turn("assistant", "first"), Turn("user", "second"), Turn("system", "s")
    )
    assert texts == ["second"]


async def test_without_a_user_there_is_nothing_to_say() -> None:
    texts, finished = await echo(Turn("system", "Be brief."))
    assert texts == []
    assert finished.reason == "stop"


async def test_usage_is_estimated() -> None:
    _, finished = await echo(Turn("system", "four"), Turn("user", "ääää!"))
    assert finished.usage is not None
    assert (finished.usage.input_tokens, finished.usage.output_tokens, finished.usage.source) == (4, 3, "estimated")


async def test_goes_on_exactly_behind_the_prefix() -> None:
    texts, _ = await echo(Turn("user", "Hello from the backend"), prefix="Hello fr")
    assert texts == ["om ", "the ", "backend"]


async def test_whole_answer_as_prefix_leaves_nothing() -> None:
    texts, _ = await echo(Turn("user", "Hello"), prefix="Hello")
    assert texts == []


async def test_foreign_prefix_is_followed_by_the_whole_on_a_new_line() -> None:
    texts, _ = await echo(Turn("user", "Hello there"), prefix="Hi")
    assert "".join(texts) == "\nHello there"


async def test_name_is_echo() -> None:
    assert EchoModel(0).name == "echo"


# --- what is made beside the answers


async def remembered(kind: RunKind, *turns: Turn, earlier: str | None = None) -> str:
    summary = None if earlier is None else Summary(earlier, "msg_1", "run_1", "echo", 0)
    record = record_of(Branch(summary, turns), 10_000, 100_000)
    request = ModelRequest([Turn("system", "Do it."), Turn("user", record)], kind=kind)
    parts = [part async for read in EchoModel(0).stream(request) for part in read]
    return "".join(part.text for part in parts if isinstance(part, TextDelta))


SAID = (Turn("user", "My name is Ann. \n" + "word " * 30), Turn("assistant", "Hello, Ann!"), Turn("user", "Bye"))


async def test_title_is_the_first_words_of_the_first_message() -> None:
    assert await remembered(RunKind.TITLE, *SAID) == "My name is Ann. word word"
    assert await remembered(RunKind.TITLE, SAID[1]) == ""


async def test_summary_is_the_first_words_of_the_users_messages_behind_the_earlier_one() -> None:
    assert await remembered(RunKind.SUMMARY, *SAID) == "My name is Ann." + " word" * 12 + "\nBye"
    assert await remembered(RunKind.SUMMARY, SAID[2], earlier="I like tea.\nYes.") == "I like tea.\nYes.\nBye"


async def test_summary_does_not_grow_for_ever() -> None:
    earlier = "\n".join(f"{number:04}" for number in range(800))  # as long as one may be
    summary = await remembered(RunKind.SUMMARY, SAID[2], earlier=earlier)
    assert len(summary) <= SUMMARY_BYTES
    assert summary.startswith("0001\n")
    assert summary.endswith("0799\nBye")
