"""The AI SDK's UI message stream, version 1: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import NamedTuple, NoReturn

from chat.errors import ChatError
from chat.events import (
    Event,
    ImportDocument,
    ImportRefused,
    ImportStarted,
    ModelSelected,
    ReasoningDelta,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    Seam,
    Source,
    TextDelta,
    ToolApproval,
    ToolCalled,
    ToolDecided,
    ToolDelta,
    ToolEvent,
    ToolFinished,
    ToolStarted,
    ends,
    payload_of,
    usage_members,
)
from chat.runs import Run
from handlers.formats.encoder import Encoder
from handlers.formats.frames import PING

_FINISH_REASONS = {"stop": "stop", "length": "length", "content_filter": "content-filter", "tool_calls": "tool-calls"}


class Told(NamedTuple):
    """Events of a run that has ended, without its end."""

    run_id: str
    events: Sequence[Event]


class UIMessages(Encoder):
    """The parts of one message. ``tools`` are the client's own: it answers their calls, and nobody else's.

    A run that goes on with an earlier answer, to whose calls the client brought the results, adds to the message with
    the id ``message_id``. A client that has that message gets what is new; ``earlier`` is what comes before, for one
    that rebuilds it. ``decided`` are calls that the client has just said yes or no to: it has the run up to there.

    A stream ends where everything waits for such a yes: the client asks again with what was said.
    """

    replays = True
    headers: Mapping[str, str] = {"X-Vercel-AI-UI-Message-Stream": "v1"}

    def __init__(
        self,
        tools: Collection[str] = (),
        *,
        message_id: str | None = None,
        earlier: Iterable[Told] = (),
        decided: Collection[str] = (),
    ) -> None:
        self._tools = tools
        self._message_id = message_id
        self._earlier = earlier
        self._decided = frozenset(decided)
        self._skipping = bool(decided)
        self._after = 0
        self._open: tuple[str, str] | None = None
        self._head = ""
        """What stands before a delta of the open text; empty where more has to be said before it."""
        self._known: set[str] = set()
        """The calls that the client has heard of."""
        self._new_step()

    def _new_step(self) -> None:
        self._in_step = self._answered = False
        self._called: set[str] = set()
        self._unanswered: set[str] = set()
        """Calls of this step, without the client's own, which nobody answers here."""
        self._waiting: set[str] = set()
        self._denied: set[str] = set()

    def opening(self, run: Run, after: int) -> bytes:
        self._after = after
        metadata = {"run_id": run.id, "model": run.model}
        parts = [_part("start", messageId=self._message_id or run.answer_id, messageMetadata=metadata)]
        for run_id, events in self._earlier:
            for seq, event in enumerate(events, 1):
                parts += self._parts(run_id, seq, event)
            parts += self._end_step()
        return PING if after else _framed(f"{run.id}.0", parts)

    def encode(self, run_id: str, first_seq: int, events: Sequence[Event]) -> bytes:
        frames = [self._frame(run_id, seq, event) for seq, event in enumerate(events, first_seq)]
        return b"".join(frames[max(0, self._after + 1 - first_seq) :])

    def trouble(self, error: ChatError) -> bytes:
        return _framed(None, [_part("error", errorText=error.message)])

    def leaving(self, milliseconds: int) -> bytes:
        text = f"The answer goes on elsewhere: resume the stream in {milliseconds} ms."
        return _framed(None, [_part("error", errorText=text)])

    def _frame(self, run_id: str, seq: int, event: Event) -> bytes:
        if self._head and not self._skipping and isinstance(event, TextDelta):
            # Nearly all of them are: the same bytes as below, at a fraction of the cost.
            return f"id: {run_id}.{seq}\ndata: {self._head}{encode_basestring(event.text)}}}\n\n".encode()
        parts = self._parts(run_id, seq, event)
        everything_waits = bool(self._unanswered) and self._unanswered <= self._waiting
        self.rest = _REST if everything_waits and self._waiting.isdisjoint(self._decided) else b""
        if self._skipping and not ends(event):
            reached = self._waiting if everything_waits else _decided(event)
            self._skipping = reached.isdisjoint(self._decided)
            return b""
        return _framed(f"{run_id}.{seq}", parts)

    def _parts(self, run_id: str, seq: int, event: Event) -> list[str]:
        match event:
            case TextDelta(text):
                return [*self._begin("text", f"{run_id}.{seq}"), self._delta(text)]
            case ReasoningDelta(text):
                return [*self._begin("reasoning", f"{run_id}.{seq}"), self._delta(text)]
            case Source():
                return [_source(run_id, event)]
            case ModelSelected(model):
                return [_part("message-metadata", messageMetadata={"model": model})]
            case RunCompleted(finish_reason=reason, usage=usage):
                told = {} if usage is None else {"messageMetadata": {"usage": usage_members(usage)}}
                return self._end(_part("finish", finishReason=_FINISH_REASONS.get(reason, "other"), **told))
            case RunCancelled(reason):
                return self._end(_part("abort", reason=reason))
            case RunFailed(message=message):
                return self._end(_part("error", errorText=message))
            case RunInterrupted(reason):
                return self._end(_part("error", errorText=f"The answer was interrupted: {reason}."))
            case Seam() | ImportStarted() | ImportDocument() | ImportRefused():
                return []  # the text goes on where it was; and of an import there is none
        return self._call(run_id, event)

    def _call(self, run_id: str, event: ToolEvent) -> list[str]:
        call_id = event.call_id
        match event:
            case ToolStarted(_, name):
                self._known.add(call_id)
                return [*self._begin(), _part("tool-input-start", toolCallId=call_id, toolName=name, **self._by(name))]
            case ToolCalled(_, name, arguments):
                before = [] if self._in_step else self._begin()
                self._known.add(call_id)
                self._called.add(call_id)
                if name not in self._tools:
                    self._unanswered.add(call_id)
                called = _part("tool-input-available", toolCallId=call_id, toolName=name, **self._by(name))
                return [*before, _with(called, "input", arguments.strip() or "{}")]
            case ToolDecided(_, approved):
                self._waiting.discard(call_id)
                if not approved:
                    self._denied.add(call_id)
                return []
        if call_id not in self._known:
            return []
        match event:
            case ToolDelta(_, text):
                return [_part("tool-input-delta", toolCallId=call_id, inputTextDelta=text)]
            case ToolApproval():
                self._waiting.add(call_id)
                return [_part("tool-approval-request", approvalId=f"{run_id}.{call_id}", toolCallId=call_id)]
            case _:
                return [self._finished(event)]

    def _finished(self, event: ToolFinished) -> str:
        call_id, result = event.call_id, event.result
        self._answered = self._answered or call_id in self._called
        self._unanswered.discard(call_id)
        self._waiting.discard(call_id)
        if call_id in self._denied:
            return _part("tool-output-denied", toolCallId=call_id)
        if result is None:
            return _part("tool-output-error", toolCallId=call_id, errorText=event.error)
        told = _part("tool-output-available", toolCallId=call_id)
        return _with(told, "output", result if result[:1] in ("{", "[") else json.dumps(result, ensure_ascii=False))

    def _by(self, name: str) -> dict[str, bool]:
        return {} if name in self._tools else {"providerExecuted": True}

    def _begin(self, kind: str | None = None, part_id: str = "") -> list[str]:
        """What has to be said before the model says more of this kind; None is a call."""
        parts = self._end_step() if self._answered else []
        if not self._in_step:
            self._in_step = True
            parts.append(_part("start-step"))
        if self._open is None or self._open[0] != kind:
            parts += self._end_part()
            if kind is not None:
                self._open = (kind, part_id)
                parts.append(_part(f"{kind}-start", id=part_id))
                if kind == "text":
                    self._head = _part("text-delta", id=part_id)[:-1] + ', "delta": '
        return parts

    def _delta(self, text: str) -> str:
        assert self._open is not None
        kind, part_id = self._open
        return _part(f"{kind}-delta", id=part_id, delta=text)

    def _end_part(self) -> list[str]:
        if self._open is None:
            return []
        kind, part_id = self._open
        self._open, self._head = None, ""
        return [_part(f"{kind}-end", id=part_id)]

    def _end_step(self) -> list[str]:
        parts = [*self._end_part(), _part("finish-step")] if self._in_step else []
        self._new_step()
        return parts

    def _end(self, part: str) -> list[str]:
        return [*self._end_step(), part, _DONE]


_DONE = "[DONE]"


def _part(kind: str, **members: object) -> str:
    return json.dumps({"type": kind, **members}, ensure_ascii=False)


def _source(run_id: str, source: Source) -> str:
    """A page or a document. Neither has a place for the passage or the span: that is what the metadata is for."""
    names = {"document", "place", "score", "text", "start", "end"}
    more = {name: value for name, value in payload_of(source).items() if name in names}
    members: dict[str, object] = {"sourceId": f"{run_id}.{source.id}"}
    if source.url is not None:
        members |= {"url": source.url} | ({} if source.title is None else {"title": source.title})
    else:
        members |= {"mediaType": "text/plain", "title": source.title or source.document or source.id}
    if more:
        members["providerMetadata"] = {"parley": more}
    return _part("source-document" if source.url is None else "source-url", **members)


def _decided(event: Event) -> set[str]:
    return {event.call_id} if isinstance(event, ToolDecided) else set()


def _with(part: str, name: str, text: str) -> str:
    """The part with one more member: what the text says, if it is JSON that the client takes, or else the text."""
    try:
        json.loads(text, parse_constant=_refuse, object_hook=_refuse_prototypes)
    except (ValueError, RecursionError):
        text = json.dumps(text, ensure_ascii=False)
    value = text.replace("\n", " ").replace("\r", " ")  # only between the values are there any
    return f'{part[:-1]}, "{name}": {value}}}'


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN is JSON to Python alone


def _refuse_prototypes(members: dict[str, object]) -> None:
    if "__proto__" in members or "constructor" in members:
        raise ValueError("the client's parser takes this for an attack, and the whole stream for broken")


def _framed(event_id: str | None, parts: Sequence[str]) -> bytes:
    """A record for each part. Only the last one has the id: a client that saw but the first has not seen the event."""
    records = [f"data: {part}\n\n" for part in parts]
    if event_id is not None and records:
        records[-1] = f"id: {event_id}\n{records[-1]}"
    return "".join(records).encode()


_REST = _framed(None, [_part("finish-step"), _part("finish", finishReason="tool-calls"), _DONE])
