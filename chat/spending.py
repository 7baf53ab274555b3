"""What one run has used so far, kept while it is generated."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from chat.events import SPEECH, Event, ReasoningDelta, Seam, TextDelta, ToolCalled, ToolFinished, Usage
from chat.ports import ModelRequest
from chat.steps import Step
from chat.usage import tokens_in


class Spending:
    """The model's answers that are over as they were reported, the one under way as it can be estimated.

    What was said is given as the whole answer and the whole reasoning of the run so far.
    """

    def __init__(self) -> None:
        self._over: Usage | None = None
        self._input: int | None = None  # tokens of the request under way
        self._before = (0, 0)  # characters of answer and reasoning in front of what it brings

    def ask(self, request: ModelRequest, answer: str, reasoning: str) -> None:
        """A request goes out. One that was still under way has brought what was said until now."""
        self.end(None, answer, reasoning)
        said = sum([tokens_in(turn.content) + _tokens(turn.steps, told=False) for turn in request.messages])
        self._input = said + _tokens(request.steps) + tokens_in(request.prefix)
        self._before = (len(answer), len(reasoning))

    def end(self, reported: Usage | None, answer: str, reasoning: str) -> None:
        """The answer to the request under way is complete, with what the upstream says that it used."""
        self._over = _plus(self._over, reported or self._estimate(answer, reasoning))
        self._input = None

    def drop(self) -> None:
        """The request under way was turned down: nothing was said, and nothing is charged."""
        self._input = None

    def recover(self, messages: Iterable[str], log: Sequence[Event]) -> None:
        """Add what earlier owners of the run asked, as far as the log tells: who had nothing to say left no trace."""
        sent = sum([tokens_in(message) for message in messages])
        for said, thought, answered in _answers(log):
            if said or thought:
                self._over = _plus(self._over, Usage(sent, said + thought, "estimated", reasoning_tokens=thought))
            sent += said + answered

    def total(self, answer: str, reasoning: str) -> Usage | None:
        """All of it up to now; None if the model was never asked."""
        return _plus(self._over, self._estimate(answer, reasoning))

    def _estimate(self, answer: str, reasoning: str) -> Usage | None:
        if self._input is None:
            return None
        texts, thoughts = self._before
        thought = tokens_in(reasoning[thoughts:])
        return Usage(self._input, tokens_in(answer[texts:]) + thought, "estimated", reasoning_tokens=thought)


def _tokens(steps: Iterable[Step], *, told: bool = True) -> int:
    """What the calls and their answers come to; with ``told`` what was said beside them, too."""
    texts = [text or "" for step in steps for call in step.calls for text in (call.arguments, call.result, call.error)]
    return sum(map(tokens_in, texts)) + sum([tokens_in(step.text) for step in steps if told])


def _plus(one: Usage | None, other: Usage | None) -> Usage | None:
    return one + other if one is not None and other is not None else one or other


class _Told(NamedTuple):
    """One answer of the model, its calls included, and what tools told it then."""

    said: list[str]
    thought: list[str]
    answered: list[str]


def _answers(log: Sequence[Event]) -> list[tuple[int, int, int]]:
    """Tokens of what each answer said, thought and was answered.

    An answer ends where another owner goes on, and where the model speaks again behind what tools have answered.
    """
    answers = [_Told([], [], [])]
    for event in log:
        last = answers[-1]
        if isinstance(event, Seam) or (last.answered and isinstance(event, SPEECH)):
            last = _Told([], [], [])
            answers.append(last)
        match event:
            case TextDelta(text) | ToolCalled(_, _, text):
                last.said.append(text)
            case ReasoningDelta(text):
                last.thought.append(text)
            case ToolFinished(_, result, error):
                last.answered.append(result or error or "")
            case _:
                pass
    return [(_tokens_of(one.said), _tokens_of(one.thought), _tokens_of(one.answered)) for one in answers]


def _tokens_of(texts: Iterable[str]) -> int:
    return tokens_in("".join(texts))
