"""What a response is asked about, as the conversation's turns."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from chat.errors import ChatError
from chat.sessions import Turn
from chat.steps import Call, Step
from handlers.v1.response_bodies import (
    FunctionCallInput,
    FunctionCallOutput,
    InputItem,
    McpCallInput,
    MessageInput,
    text_of,
)


def instructions_in(items: Iterable[InputItem]) -> list[str]:
    """What the client tells the model among its items."""
    told = [item for item in items if isinstance(item, MessageInput) and item.role in ("system", "developer")]
    return [text_of(item.content) for item in told]


def turns_in(items: Iterable[InputItem]) -> tuple[Mapping[str, str], list[Turn]]:
    """The outputs that stand before everything, by their calls' ids: those of an answer that is continued. Then the
    turns. Neighbouring items of the assistant's are one answer, up to the first output of its calls.

    Raises:
        ChatError: ``invalid_request`` for outputs that nobody asked for, calls without an output, and an end that
            leaves nothing to answer.
    """
    reader = _Reader()
    for item in items:
        match item:
            case FunctionCallOutput():
                reader.result(item.call_id, text_of(item.output))
            case FunctionCallInput():
                reader.call(Call(item.call_id, item.name, item.arguments), theirs=True)
            case McpCallInput():
                error = None if item.error is None else text_of(item.error.content) or item.error.message
                reader.call(Call(item.id, item.name, item.arguments, item.output, error), theirs=False)
            case MessageInput(role="user"):
                reader.ask(text_of(item.content))
            case MessageInput(role="assistant"):
                reader.say(text_of(item.content))
    return reader.end()


def with_results(turn: Turn, results: Mapping[str, str]) -> Turn:
    """The answer with these results for its calls.

    Raises:
        ChatError: ``invalid_request``: it has no such call.
    """
    calls = {call.id for step in turn.steps for call in step.calls}
    if not calls.issuperset(results):
        raise _not_called()

    def answered(call: Call) -> Call:
        return replace(call, result=results[call.id], error=None) if call.id in results else call

    steps = [replace(step, calls=tuple([answered(call) for call in step.calls])) for step in turn.steps]
    return replace(turn, steps=steps)


def refuse_open_calls(turn: Turn) -> None:
    """Raises ChatError ``invalid_request`` for an answer that waits for its client's tools."""
    if not all(call.answered for step in turn.steps for call in step.calls):
        raise _wrong("every function_call has to be followed by its function_call_output.")


class _Reader:
    """Reads items: ``_waiting`` are the calls without an output, ``_known`` all of the last answer, ``_outputs``
    what came of them; ``_asks`` is whether the last item is to be answered."""

    def __init__(self) -> None:
        self._results: dict[str, str] = {}
        self._turns: list[Turn] = []
        self._waiting: set[str] = set()
        self._known: set[str] = set()
        self._outputs: dict[str, str] = {}
        self._asks = False
        self._steps: list[Step] = []
        self._texts: list[str] = []
        self._calls: list[Call] = []

    def ask(self, text: str) -> None:
        self._begin()
        if not text:
            raise _wrong("a user's message is empty.")
        self._turns.append(Turn("user", text))
        self._asks = True

    def say(self, text: str) -> None:
        self._go_on()
        if self._calls and not self._waiting:  # the model has seen what came of them
            self._close_step()
        self._texts.append(text)

    def call(self, call: Call, *, theirs: bool) -> None:
        self._go_on()
        self._calls.append(call)
        if theirs:
            self._waiting.add(call.id)

    def result(self, call_id: str, text: str) -> None:
        self._close()
        self._asks = True
        if not self._turns:
            self._results[call_id] = text
            return
        if call_id not in self._known:
            raise _not_called()
        self._outputs[call_id] = text
        self._waiting.discard(call_id)

    def end(self) -> tuple[Mapping[str, str], list[Turn]]:
        self._begin()
        if not self._asks:
            raise _wrong("the last item has to be the user's message or a function_call_output.")
        return self._results, self._turns

    def _go_on(self) -> None:
        """The assistant's next item, be it of the same answer or of another."""
        if self._asks:
            self._begin()
        self._asks = False

    def _begin(self) -> None:
        self._close()
        if self._waiting:
            raise _wrong("every function_call has to be followed by its function_call_output.")
        if self._outputs:  # all at once: to make the answer anew with each would take the square of them
            self._turns[-1] = with_results(self._turns[-1], self._outputs)
        self._known, self._outputs = set(), {}

    def _close(self) -> None:
        """The answer is over, if one is being read."""
        if not (self._texts or self._calls or self._steps):
            return
        rest = "".join(self._texts)
        if self._calls:
            self._close_step()
            rest = ""
        text = "".join([step.text for step in self._steps]) + rest
        self._turns.append(Turn("assistant", text, self._steps))
        self._known = {call.id for step in self._steps for call in step.calls}
        self._steps, self._texts = [], []

    def _close_step(self) -> None:
        self._steps.append(Step("".join(self._texts), tuple(self._calls)))
        self._texts, self._calls = [], []


def _wrong(what: str) -> ChatError:
    return ChatError("invalid_request", f"input: {what}")


def _not_called() -> ChatError:
    return _wrong("a function_call_output has to follow the function_call that it is for.")
