"""What one run has used so far, kept while it is generated."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import NamedTuple

from chat.events import SPEECH, Event, ModelSelected, ReasoningDelta, Seam, TextDelta, ToolDelta, ToolFinished, Usage
from chat.sessions import Turn
from chat.steps import Step
from chat.usage import tokens_in


class Said(NamedTuple):
    """All that the models have said in a run so far. ``arguments`` are those of the calls that they wrote."""

    answer: str
    reasoning: str
    arguments: str


class Spending:
    """By model: the answers that are over as they were reported, the one under way as it can be estimated."""

    def __init__(self) -> None:
        self._over: dict[str, Usage] = {}
        self._asked: tuple[str, int] | None = None  # who has the request under way, and its tokens
        self._before = (0, 0, 0)  # characters of what was said in front of what it brings

    def ask(self, model: str, tokens: int, said: Said) -> None:
        """A request goes out. One that was still under way has brought what was said until now."""
        self.end(None, said)
        self._asked = model, tokens
        self._before = len(said.answer), len(said.reasoning), len(said.arguments)

    def select(self, selected: ModelSelected) -> None:
        """Another model than the one that was asked answers the request under way."""
        assert self._asked is not None
        _, tokens = self._asked
        self._charge(selected.charged, tokens)
        self._asked = selected.model, tokens

    def end(self, reported: Usage | None, said: Said) -> None:
        """The answer to the request under way is complete, with what the upstream says that it used."""
        if self._asked is not None:
            model, tokens = self._asked
            self._add(model, reported or self._estimate(tokens, said))
            self._asked = None

    def drop(self, charged: Iterable[str]) -> None:
        """The request under way came to nothing; it is charged to those models that had taken it up."""
        assert self._asked is not None
        self._charge(charged, self._asked[1])
        self._asked = None

    def recover(self, model: str, messages: Iterable[Turn], log: Iterable[Event]) -> None:
        """Add what earlier owners of the run asked, as far as the log tells: who had nothing to say left no trace.

        ``model`` is the run's own, which speaks where the log names no other.
        """
        sent = tokens_of(messages)
        for answer in _answers(model, log):
            said, thought, told = (tokens_in("".join(texts)) for texts in (answer.said, answer.thought, answer.told))
            self._charge(answer.charged, sent)
            if said or thought:
                self._add(answer.model, Usage(sent, said + thought, "estimated", reasoning_tokens=thought))
            sent += said + told

    def shares(self, said: Said) -> Mapping[str, Usage]:
        """All of it up to now, by model."""
        if self._asked is None:
            return self._over
        model, tokens = self._asked
        estimate = self._estimate(tokens, said)
        return self._over | {model: self._over[model] + estimate if model in self._over else estimate}

    def _estimate(self, tokens: int, said: Said) -> Usage:
        answer, thought, written = (tokens_in(text[start:]) for text, start in zip(said, self._before, strict=True))
        return Usage(tokens, answer + thought + written, "estimated", reasoning_tokens=thought)

    def _charge(self, models: Iterable[str], tokens: int) -> None:
        for model in models:
            self._add(model, Usage(tokens, 0, "estimated"))

    def _add(self, model: str, usage: Usage) -> None:
        self._over[model] = self._over[model] + usage if model in self._over else usage


def total_of(shares: Mapping[str, Usage]) -> Usage | None:
    """All of them together; None if no model was asked."""
    return reduce(add, shares.values()) if shares else None


def tokens_of(messages: Iterable[Turn], steps: Iterable[Step] = (), prefix: str = "") -> int:
    """What a request comes to, as far as it can be estimated."""
    said = sum([tokens_in(turn.content) + _tokens_of(turn.steps, text=False) for turn in messages])
    return said + _tokens_of(steps) + tokens_in(prefix)


def _tokens_of(steps: Iterable[Step], *, text: bool = True) -> int:
    """What the calls and their answers come to; with ``text`` what was said beside them, too."""
    parts = [part or "" for step in steps for call in step.calls for part in (call.arguments, call.result, call.error)]
    return sum(map(tokens_in, parts)) + sum([tokens_in(step.text) for step in steps if text])


@dataclass(slots=True)
class _Answer:
    """One answer of a model, its calls included, what tools told it then, and who was asked in vain before it."""

    model: str
    said: list[str] = field(default_factory=list)
    thought: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    charged: Sequence[str] = ()


def _answers(model: str, log: Iterable[Event]) -> list[_Answer]:
    """An answer ends where another owner goes on, and where a model speaks again behind what tools have answered."""
    answers = [_Answer(model)]
    for event in log:
        last = answers[-1]
        if isinstance(event, Seam) or (last.told and isinstance(event, (*SPEECH, ModelSelected))):
            last = _Answer(model)
            answers.append(last)
        match event:
            case TextDelta(text) | ToolDelta(_, text):
                last.said.append(text)
            case ReasoningDelta(text):
                last.thought.append(text)
            case ToolFinished(_, result, error):
                last.told.append(result or error or "")
            case ModelSelected():
                last.model, last.charged = event.model, event.charged
            case _:
                pass
    return answers
