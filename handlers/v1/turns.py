"""What clients of OpenAI's way to write a conversation say, as its turns."""

from collections.abc import Iterable, Sequence

from chat.errors import ChatError
from chat.sessions import Turn
from chat.steps import Call, Step, answered
from handlers.v1.bodies import CompletionMessage


def instructions_of(messages: Iterable[CompletionMessage]) -> list[str]:
    """What the client tells the model."""
    return [message.text for message in messages if message.role in ("system", "developer")]


def turns_of(messages: Iterable[CompletionMessage]) -> Sequence[Turn]:
    """The conversation. A tool's messages are part of the answer that called it, and so are those of the same answer.

    Raises:
        ChatError: ``invalid_request`` for results that nobody asked for, calls without a result, and an end that
            leaves nothing to answer.
    """
    reader = _Reader()
    for message in messages:
        reader.read(message)
    turns = reader.end()
    if not turns or (turns[-1].role == "assistant" and not turns[-1].steps):
        raise ChatError("invalid_request", "messages: the last one has to be the user's, or a tool's.")
    if turns[-1].role == "user" and not turns[-1].content:
        raise ChatError("invalid_request", "messages: the last one is empty.")
    return turns


class _Reader:
    """Reads messages. The last answer stays open: to make it anew with each result would take the square of them.

    ``_calls`` are the ids of all its calls, ``_waiting`` those of its last step without a result.
    """

    def __init__(self) -> None:
        self._turns: list[Turn] = []
        self._answer: str | None = None
        self._texts: list[str] = []
        self._steps: list[Step] = []
        self._calls: set[str] = set()
        self._waiting: set[str] = set()
        self._results: dict[str, str] = {}

    def read(self, message: CompletionMessage) -> None:
        if message.role == "tool":
            self._result(message)
            return
        self._refuse_open_calls()
        if message.role == "user":
            self._close()
            self._turns.append(Turn("user", message.text))
        elif message.role == "assistant":
            if self._answer is None or self._answer != message.answer:
                self._close()
            self._say(message)

    def end(self) -> list[Turn]:
        self._refuse_open_calls()
        self._close()
        return self._turns

    def _say(self, message: CompletionMessage) -> None:
        self._answer = message.answer
        self._texts.append(message.text)
        calls = [Call(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]
        if calls:
            self._close_step()
            self._steps.append(Step(message.text, calls))
            self._waiting = {call.id for call in calls}
            self._calls |= self._waiting

    def _result(self, message: CompletionMessage) -> None:
        call_id = message.tool_call_id
        if call_id is None or call_id not in self._calls:
            raise ChatError("invalid_request", "messages: a tool's message has to follow the call that it answers.")
        self._results.setdefault(call_id, message.text)
        self._waiting.discard(call_id)

    def _refuse_open_calls(self) -> None:
        if self._waiting:
            raise ChatError("invalid_request", "messages: every tool call has to be followed by its tool's message.")

    def _close(self) -> None:
        """The answer is over, if one is being read."""
        if self._texts:
            self._close_step()
            self._turns.append(Turn("assistant", "".join(self._texts), self._steps or ()))
        self._answer, self._texts, self._steps, self._calls = None, [], [], set()

    def _close_step(self) -> None:
        if self._results:
            told = [Step("", [Call(call_id, "", "", result=text) for call_id, text in self._results.items()])]
            self._steps[-1:] = answered(self._steps[-1:], told)
            self._results = {}
