"""What an operator's traces are made of: a run, its steps, and in each the call of the model and those of tools."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from chat.events import Terminal, Usage
from chat.runs import Run

Headers: TypeAlias = Callable[[str], Sequence[str]]
"""The values of a request's header, by its name in lower case."""


class Span(Protocol):
    """What takes time, from where its ``with`` block begins to where it ends.

    Whoever implements it is told of codes, counts, names and ids alone; of an exception that passes it may tell the
    code or the class, and never the text, which may quote what was said.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ToolSpan(Span, Protocol):
    """A tool's run, without the wait for somebody's yes."""

    def failed(self, code: str) -> None:
        """The call has come to nothing; the model is told, and goes on."""
        ...


class ModelSpan(Span, Protocol):
    """A request to the model with all its repeats, and whichever of the chain's models answers."""

    def attempt_failed(self, code: str) -> None:
        """The model failed, be it that it is asked again or that the call fails with it."""
        ...

    def answered(self, model: str | None, finish_reason: str, usage: Usage | None) -> None:
        """The answer is whole. ``model`` is set where the run's log says who spoke; ``usage`` is as reported."""
        ...


class StepSpan(Span, Protocol):
    """One call of the model, and the calls of tools that came of it."""

    def model_call(self, model: str) -> ModelSpan: ...

    def tool_call(self, call_id: str, name: str | None) -> ToolSpan:
        """``name`` is None where there is no such tool: what the model has made up is part of what it said."""
        ...


class RunSpan(Protocol):
    """A run for as long as this process generates it. It begins in one task and ends in another."""

    @property
    def recording(self) -> bool:
        """Whether it is worth finding out what it could be told."""
        ...

    def counted(self, messages: int) -> None:
        """So many messages are in the session, with the one that is being answered."""
        ...

    def step(self, number: int) -> StepSpan:
        """``number`` counts from 1, over all of the run's owners."""
        ...

    def end(self, terminal: Terminal | None) -> None:
        """``terminal`` is stored; None if the run goes on, or is settled, elsewhere."""
        ...


class Tracer(Protocol):
    """Told of runs, steps and calls, never of a token."""

    def carried(self, headers: Headers) -> str | None:
        """The trace that a request belongs to, as it is stored with the run: for :meth:`run`, in any process."""
        ...

    def run(self, run: Run) -> RunSpan:
        """This process takes the run up, from its start or from where another left it."""
        ...


class NoSpan:
    """Nobody looks: any of the spans."""

    recording = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def failed(self, code: str) -> None:
        pass

    def attempt_failed(self, code: str) -> None:
        pass

    def answered(self, model: str | None, finish_reason: str, usage: Usage | None) -> None:
        pass

    def model_call(self, model: str) -> ModelSpan:
        return self

    def tool_call(self, call_id: str, name: str | None) -> ToolSpan:
        return self

    def step(self, number: int) -> StepSpan:
        return self

    def counted(self, messages: int) -> None:
        pass

    def end(self, terminal: Terminal | None) -> None:
        pass


class NoTracer:
    """Nobody looks."""

    def carried(self, headers: Headers) -> str | None:
        return None

    def run(self, run: Run) -> RunSpan:
        return NO_SPAN


NO_SPAN = NoSpan()
NO_TRACER: Tracer = NoTracer()
