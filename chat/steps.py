"""The steps of a run: what the model said in each, which tools it called, and what they answered."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from chat.events import (
    SPEECH,
    Event,
    Source,
    TextDelta,
    ToolApproval,
    ToolCalled,
    ToolDecided,
    ToolFinished,
    ToolStarted,
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool. Without ``result`` and ``error`` nobody knows whether it took effect."""

    id: str
    name: str
    arguments: str
    result: str | None = None
    error: str | None = None

    @property
    def answered(self) -> bool:
        return self.result is not None or self.error is not None


@dataclass(frozen=True, slots=True)
class Step:
    """One answer of the model that called tools: the text before the calls, and the calls. Never without calls."""

    text: str
    calls: Sequence[Call]


def steps_of(log: Iterable[Event]) -> tuple[list[Step], str]:
    """The steps that a log tells of, and the text behind the last of them.

    A step's calls are all there before the first of them is answered: whatever the model says after an answer belongs
    to the next step. Calls of which only a part was written are left out.
    """
    steps: list[Step] = []
    texts: list[str] = []
    calls: dict[str, Call] = {}
    answered = False

    def close() -> None:
        nonlocal texts, calls, answered
        steps.append(Step("".join(texts), tuple(calls.values())))
        texts, calls, answered = [], {}, False

    for event in log:
        if answered and isinstance(event, SPEECH):
            close()
        match event:
            case TextDelta(text):
                texts.append(text)
            case ToolCalled(call_id, name, arguments):
                calls[call_id] = Call(call_id, name, arguments)
            case ToolFinished(call_id, result, error) if call_id in calls:
                calls[call_id] = replace(calls[call_id], result=result, error=error)
                answered = True
    if calls:
        close()
    return steps, "".join(texts)


def log_of(text: str, steps: Iterable[Step], sources: Iterable[Source] = ()) -> list[Event]:
    """A log that would have led to this text of all steps, and what comes behind them, and to these steps."""
    events: list[Event] = []
    for step in steps:
        text = text.removeprefix(step.text)
        events += [TextDelta(step.text)] if step.text else []
        for call in step.calls:
            events += [ToolStarted(call.id, call.name), ToolCalled(call.id, call.name, call.arguments)]
            events += [ToolFinished(call.id, call.result, call.error)] if call.answered else []
    return [*events, *([TextDelta(text)] if text else []), *sources]


def answered(steps: Iterable[Step], known: Iterable[Step]) -> list[Step]:
    """The steps, and for their calls without an answer what ``known`` says of the same ids."""
    answers = {call.id: call for step in known for call in step.calls}

    def answer(call: Call) -> Call:
        told = answers.get(call.id, call)
        return call if call.answered else replace(call, result=told.result, error=told.error)

    return [replace(step, calls=tuple([answer(call) for call in step.calls])) for step in steps]


class Stage(Enum):
    """How far a call has come that has no answer."""

    WRITTEN = "written"
    WAITING = "waiting"
    DENIED = "denied"
    MADE = "made"


def open_calls(log: Iterable[Event]) -> dict[str, Stage]:
    """The ids of the calls that were begun and not answered, in their order."""
    calls: dict[str, Stage] = {}
    for event in log:
        match event:
            case ToolStarted(call_id):
                calls[call_id] = Stage.WRITTEN
            case ToolCalled(call_id):
                calls[call_id] = Stage.MADE
            case ToolApproval(call_id):
                calls[call_id] = Stage.WAITING
            case ToolDecided(call_id, approved):
                calls[call_id] = Stage.MADE if approved else Stage.DENIED
            case ToolFinished(call_id):
                calls.pop(call_id, None)
    return calls
