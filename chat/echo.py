"""The built-in model: says what it was told. For trying things out, and for tests without a network."""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence

from chat.context import SUMMARY_BYTES
from chat.events import TextDelta, ToolDelta, ToolStarted, Usage
from chat.memory import read_record
from chat.ports import Finished, ModelRequest, Part
from chat.runs import RunKind
from chat.usage import tokens_in

# A word and the space behind it, so that the words join up to the text, byte for byte.
_WORD = re.compile(r"\S+\s*|\s+")

# A tool's name and its arguments, such as `/submit_feedback {"text": "More lockers"}`.
_COMMAND = re.compile(r"/(\w+)\s*(.*)", re.DOTALL)


TITLE_WORDS = 6

SUMMARY_WORDS = 16
"""Of each of the user's messages."""


class EchoModel:
    """Answers with the last user's message, a word at a time, ``delay`` seconds apart.

    A message that is a slash and a tool's name calls the tool, with the JSON behind it as its arguments; the answer is
    then what the tool said. Its summaries and titles are made of the messages' first words.
    """

    name = "echo"

    def __init__(self, delay: float) -> None:
        self._delay = delay

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Part], None]:
        """The words; see :class:`chat.ports.ChatModel`. What cannot be continued is said again on a new line."""
        answer = next((turn.content for turn in reversed(request.messages) if turn.role == "user"), "")
        if request.kind is not RunKind.ANSWER:
            answer = _remembered(answer, request.kind)
        asked = sum(tokens_in(turn.content) for turn in request.messages)
        command = _COMMAND.fullmatch(answer)
        steps = request.steps or [step for turn in request.messages[-1:] for step in turn.steps]  # the client's, then
        if command is not None and not steps and command[1] in [tool.name for tool in request.tools]:
            call_id = f"call_{command[1]}"
            yield [ToolStarted(call_id, command[1]), *([ToolDelta(call_id, command[2])] if command[2] else [])]
            yield [Finished("tool_calls", Usage(asked, tokens_in(answer), source="estimated"))]
            return
        if steps:
            answer = "\n".join([call.result or call.error or "" for call in steps[-1].calls])
        rest = answer.removeprefix(request.prefix)
        if not answer.startswith(request.prefix):
            rest = "\n" + answer
        for word in _WORD.findall(rest):
            yield [TextDelta(word)]
            await asyncio.sleep(self._delay)
        yield [Finished("stop", Usage(asked, tokens_in(rest), source="estimated"))]

    async def close(self) -> None:
        """Nothing is held open."""


def _remembered(record: str, kind: RunKind) -> str:
    lines = read_record(record)
    said = [line["content"].split() for line in lines if line.get("role") == "user"]
    if kind is RunKind.TITLE:
        return " ".join(said[0][:TITLE_WORDS]) if said else ""
    summary = [line for earlier in lines if "summary" in earlier for line in earlier["summary"].split("\n")]
    summary += [" ".join(words[:SUMMARY_WORDS]) for words in said]
    while len("\n".join(summary).encode()) > SUMMARY_BYTES:
        summary.pop(0)
    return "\n".join(summary)
