"""The events of a run's log: a closed union of immutable values.

``seq`` counts them from 1 without gaps; it is the place in the log and not part of the value. Position 0 is the
run's start: it is known before the model says anything and stands in no log.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias, TypeGuard, get_args


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in and out; ``source`` says whether the upstream counted them or we did.

    ``cached_tokens`` are those of the input that the upstream had read before, ``reasoning_tokens`` those of the output
    that are no part of the answer: both are counted in the whole already.
    """

    input_tokens: int
    output_tokens: int
    source: Literal["reported", "estimated"] = "reported"
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Both together: ``estimated`` if a part of it is."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            "reported" if self.source == other.source == "reported" else "estimated",
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


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


Reason: TypeAlias = Literal["requested", "default", "fallback"]


@dataclass(frozen=True, slots=True)
class ModelSelected:
    """Which model speaks from here on, and why; the run's own model does where nothing says otherwise.

    ``default``: the run's own is not known here any more. ``fallback``: it failed, as ``cause`` says. ``requested``:
    it is the run's own that goes on where another has spoken. ``charged`` are those that were asked before it and
    failed when they had taken the request up: they may charge for it.
    """

    model: str
    reason: Reason
    cause: str | None = None
    charged: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """The model begins to write a call. What it writes of the arguments follows as deltas, for show."""

    call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """Text that is appended to a call's arguments. Never empty."""

    call_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The call is whole. Committed before the tool runs, so that no crash makes it run twice.

    ``arguments`` are as the model wrote them: JSON, if it did well.
    """

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolApproval:
    """The call waits for somebody's yes or no."""

    call_id: str


@dataclass(frozen=True, slots=True)
class ToolDecided:
    """Somebody has said whether the call may be made. Committed before it is."""

    call_id: str
    approved: bool


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """What came of a call, as the model is told: a ``result``, or else an ``error``."""

    call_id: str
    result: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """What something in the answer is from: a page of the web, by its ``url``, or a passage of a ``document``.

    ``id`` is its name in the run. ``document`` is a document's id and ``place`` says where in it, for people;
    ``score`` is the larger the better it fitted, ``text`` is the passage. ``start`` and ``end`` are the characters of
    the whole answer that it belongs to, where that is known: both or neither.
    """

    id: str
    url: str | None = None
    title: str | None = None
    document: str | None = None
    place: str | None = None
    score: float | None = None
    text: str | None = None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class ImportStarted:
    """So many files are imported, of so many bytes in all. The first event of such a run, in which nobody answers."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ImportDocument:
    """A file has become a document, of so many chunks. ``done`` files of all have been seen to, this one included."""

    file: str
    document: str
    chunks: int
    done: int
    of: int


@dataclass(frozen=True, slots=True)
class ImportRefused:
    """A file has not become a document, and ``code`` says why; the others go on."""

    file: str
    code: str
    message: str
    done: int
    of: int


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
    """The model's side, or ours, failed. What was shown is kept.

    ``retry_after``: seconds that the model's side has asked for.
    """

    code: str
    message: str
    retryable: bool
    usage: Usage | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class RunCancelled:
    """Somebody asked for a stop."""

    reason: str
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class RunInterrupted:
    """The process died and the run was not taken up again."""

    reason: str
    usage: Usage | None = None


Delta: TypeAlias = TextDelta | ReasoningDelta
Terminal: TypeAlias = RunCompleted | RunFailed | RunCancelled | RunInterrupted
ToolEvent: TypeAlias = ToolStarted | ToolDelta | ToolCalled | ToolApproval | ToolDecided | ToolFinished
ImportEvent: TypeAlias = ImportStarted | ImportDocument | ImportRefused
Event: TypeAlias = Delta | ToolEvent | Source | Seam | ModelSelected | ImportEvent | Terminal

_KINDS: dict[str, type[Event]] = {
    "text.delta": TextDelta,
    "reasoning.delta": ReasoningDelta,
    "tool.started": ToolStarted,
    "tool.delta": ToolDelta,
    "tool.called": ToolCalled,
    "tool.approval": ToolApproval,
    "tool.decided": ToolDecided,
    "tool.finished": ToolFinished,
    "source": Source,
    "seam": Seam,
    "model.selected": ModelSelected,
    "import.started": ImportStarted,
    "import.document": ImportDocument,
    "import.refused": ImportRefused,
    "run.completed": RunCompleted,
    "run.failed": RunFailed,
    "run.cancelled": RunCancelled,
    "run.interrupted": RunInterrupted,
}
_NAMES: dict[type[Event], str] = {kind: name for name, kind in _KINDS.items()}


SPEECH = (TextDelta, ReasoningDelta, ToolStarted)
"""What a model's answer begins with: behind what tools have answered, it is the next one."""

_ENDS = frozenset(get_args(Terminal))


def ends(event: Event) -> TypeGuard[Terminal]:
    """Whether it is a terminal event. Asked for each token: a fifth of what ``isinstance`` takes with four classes."""
    return type(event) in _ENDS


def name_of(event: Event) -> str:
    """The event's name on the wire and in the store, such as ``text.delta``."""
    return _NAMES[type(event)]


def payload_of(event: Event) -> dict[str, object]:
    """The event's members as JSON-ready values; absent optional ones are left out."""
    if isinstance(event, TextDelta | ReasoningDelta):  # the hot path: no recursion through asdict
        return {"text": event.text}
    members = {key: value for key, value in asdict(event).items() if value not in (None, ())}
    if isinstance(event, ModelSelected) and event.charged:
        members["charged"] = list(event.charged)
    if isinstance(event, Terminal) and event.usage is not None:
        members["usage"] = usage_members(event.usage)
    return members


def usage_members(usage: Usage) -> dict[str, object]:
    """The usage as JSON-ready values, without the parts that the upstream said nothing of."""
    optional = {"cached_tokens", "reasoning_tokens"}
    return {key: value for key, value in asdict(usage).items() if value or key not in optional}


def dump(event: Event) -> tuple[str, str]:
    """The event as the store keeps it: its name, and its text (deltas) or its members as JSON."""
    if type(event) is TextDelta:  # nearly always
        return "text.delta", event.text
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
    if kind is ModelSelected:
        members["charged"] = tuple(members.get("charged", ()))
    return kind(**members)


def answer_text(events: Iterable[Event]) -> str:
    """The answer so far: the joined text deltas, nothing else."""
    return "".join([event.text for event in events if isinstance(event, TextDelta)])


def completed(text: str, finish_reason: str, usage: Usage | None = None) -> RunCompleted:
    """The completed event that proves ``text``."""
    return RunCompleted(finish_reason, len(text), hashlib.sha256(text.encode()).hexdigest(), usage)
