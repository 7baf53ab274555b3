"""The events of a run's log: a closed union of immutable values.

``seq`` counts them from 1 without gaps; it is the place in the log and not part of the value. Position 0 is the
run's start: it is known before the model says anything and stands in no log.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in and out; ``source`` says whether the upstream counted them or we did."""

    input_tokens: int
    output_tokens: int
    source: Literal["reported", "estimated"] = "reported"


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text that is appended to the answer. Never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """Text of the model's reasoning. Never part of the answer, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Seam:
    """Another process, or the same after a restart, went on from here: ``epoch`` is the run's new owner's."""

    epoch: int


@dataclass(frozen=True, slots=True)
class RunCompleted:
    """The model said that it is done.

    ``text_length`` counts Unicode code points and ``text_sha256`` is over the UTF-8 bytes of the joined text
    deltas: a client that has them can prove that it lost nothing.
    """

    finish_reason: str
    text_length: int
    text_sha256: str
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class RunFailed:
    """The model's side, or ours, failed. What was shown is kept."""

    code: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class RunCancelled:
    """Somebody asked for a stop."""

    reason: str


@dataclass(frozen=True, slots=True)
class RunInterrupted:
    """The process died and the run was not taken up again."""

    reason: str


Delta: TypeAlias = TextDelta | ReasoningDelta
Terminal: TypeAlias = RunCompleted | RunFailed | RunCancelled | RunInterrupted
Event: TypeAlias = Delta | Seam | Terminal

_KINDS: dict[str, type[Event]] = {
    "text.delta": TextDelta,
    "reasoning.delta": ReasoningDelta,
    "seam": Seam,
    "run.completed": RunCompleted,
    "run.failed": RunFailed,
    "run.cancelled": RunCancelled,
    "run.interrupted": RunInterrupted,
}
_NAMES: dict[type[Event], str] = {kind: name for name, kind in _KINDS.items()}


def name_of(event: Event) -> str:
    """The event's name on the wire and in the store, such as ``text.delta``."""
    return _NAMES[type(event)]


def payload_of(event: Event) -> dict[str, object]:
    """The event's members as JSON-ready values; absent optional ones are left out."""
    if isinstance(event, TextDelta | ReasoningDelta):  # the hot path: no recursion through asdict
        return {"text": event.text}
    return {key: value for key, value in asdict(event).items() if value is not None}


def dump(event: Event) -> tuple[str, str]:
    """The event as the store keeps it: its name, and its text (deltas) or its members as JSON."""
    if isinstance(event, TextDelta | ReasoningDelta):
        return _NAMES[type(event)], event.text
    return _NAMES[type(event)], json.dumps(payload_of(event), ensure_ascii=False)


def load(name: str, body: str) -> Event:
    """The inverse of :func:`dump`.

    Raises:
        KeyError: the name is of no kind that this version knows.
    """
    kind = _KINDS[name]
    if kind is TextDelta or kind is ReasoningDelta:
        return kind(body)
    members = json.loads(body)
    if isinstance(members.get("usage"), dict):
        members["usage"] = Usage(**members["usage"])
    return kind(**members)


def answer_text(events: Iterable[Event]) -> str:
    """The answer so far: the joined text deltas, nothing else."""
    return "".join([event.text for event in events if isinstance(event, TextDelta)])


def completed(text: str, finish_reason: str, usage: Usage | None) -> RunCompleted:
    """The completed event that proves ``text``."""
    return RunCompleted(finish_reason, len(text), hashlib.sha256(text.encode()).hexdigest(), usage)
