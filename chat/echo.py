"""The built-in model: says what it was told. For trying things out, and for tests without a network."""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence

from chat.events import TextDelta, Usage
from chat.ports import Finished, ModelRequest, Part

# A word and the space behind it, so that the words join up to the text, byte for byte.
_WORD = re.compile(r"\S+\s*|\s+")


class EchoModel:
    """Answers with the last user's message, a word at a time, ``delay`` seconds apart."""

    name = "echo"

    def __init__(self, delay: float) -> None:
        self._delay = delay

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Part], None]:
        """The words; see :class:`chat.ports.ChatModel`. What cannot be continued is said again on a new line."""
        answer = next((turn.content for turn in reversed(request.messages) if turn.role == "user"), "")
        rest = answer.removeprefix(request.prefix)
        if not answer.startswith(request.prefix):
            rest = "\n" + answer
        for word in _WORD.findall(rest):
            yield [TextDelta(word)]
            await asyncio.sleep(self._delay)
        asked = sum(_tokens(turn.content) for turn in request.messages)
        yield [Finished("stop", Usage(asked, _tokens(rest), source="estimated"))]

    async def close(self) -> None:
        """Nothing is held open."""


def _tokens(text: str) -> int:
    """What the text would be for a model: a token is about four bytes of English."""
    return (len(text.encode(errors="replace")) + 3) // 4
