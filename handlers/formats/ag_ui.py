"""AG-UI's events: https://docs.ag-ui.com/concepts/events"""

import json
from collections.abc import Iterator, Sequence
from typing import TypeAlias, assert_never

from chat.errors import ChatError
from chat.events import (
    Event,
    ReasoningDelta,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    Source,
    Terminal,
    TextDelta,
    ToolApproval,
    ToolCalled,
    ToolDelta,
    ToolFinished,
    ToolStarted,
    Usage,
    ends,
    payload_of,
)
from chat.runs import Run
from handlers.formats.encoder import Encoder
from handlers.formats.frames import PING

Members: TypeAlias = dict[str, object]


class AgUiEvents(Encoder):
    """One run for one client, which knows it as ``run_id`` of its ``thread_id``.

    An event of the log may take several frames. So frames are counted, and not events: ``{run}.{frame}``, from 0.
    Each text behind a tool's answer is a message of its own, ``{answer}.m{n}``: so these clients show them. A client
    that ``resumes`` comes back when its stream ends too early; for others that would be the end of the answer.
    """

    replays = True
    counts_frames = True

    def __init__(self, thread_id: str, run_id: str, *, resumes: bool = False) -> None:
        self._ids: Members = {"threadId": thread_id, "runId": run_id}
        self._resumes = resumes
        self._run: Run
        self._after = 0
        self._frames = 0
        self._messages = 0
        self._thoughts = 0
        self._writing: str | None = None
        self._thinking: str | None = None
        self._called = False  # a call was answered since the message began: what is said next is another one
        self._calls: set[str] = set()
        self._open: list[ToolCalled] = []

    @property
    def frames(self) -> int:
        """How many there are of what it was given."""
        return self._frames

    def opening(self, run: Run, after: int) -> bytes:
        self._run, self._after = run, after
        started = self._frame({"type": "RUN_STARTED", **self._ids})
        return PING if after else started

    def encode(self, run_id: str, first_seq: int, events: Sequence[Event]) -> bytes:  # noqa: ARG002  # frames have places
        frames = b"".join([self._frame(members) for event in events for members in self._said(event)])
        if ends(events[-1]) and self._after >= self._frames - 1:
            # Who asks for more than the end has seen it, but not the end of the stream, and trusts only both.
            return _data(self._ended(events[-1]))
        return frames

    def trouble(self, error: ChatError) -> bytes:
        return PING if self._resumes else self._cut(error.code, error.message)

    def leaving(self, milliseconds: int) -> bytes:
        message = f"The answer goes on elsewhere: in {milliseconds} ms send the same again."
        return PING if self._resumes else self._cut("draining", message)

    def _cut(self, code: str, message: str) -> bytes:
        """Without an id: it is in no log."""
        return _data({"type": "RUN_ERROR", "message": message, "code": code})

    def _frame(self, members: Members) -> bytes:
        place = self._frames
        self._frames += 1
        if self._after and place <= self._after:
            return b""
        return f"id: {self._run.id}.{place}\n".encode() + _data(members)

    def _said(self, event: Event) -> Iterator[Members]:
        match event:
            case TextDelta(text):
                yield from self._write()
                yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": self._writing, "delta": text}
            case ReasoningDelta(text):
                yield from self._think()
                yield {"type": "REASONING_MESSAGE_CONTENT", "messageId": self._thinking, "delta": text}
            case ToolStarted(call_id, name):
                yield from self._call(call_id, name)
            case ToolDelta(call_id, text) if call_id in self._calls:
                yield {"type": "TOOL_CALL_ARGS", "toolCallId": call_id, "delta": text}
            case ToolCalled(call_id):
                yield from self._written(call_id)
                self._open.append(event)
            case ToolApproval() | Source():
                yield self._custom(event)
            case ToolFinished(call_id, result, error):
                yield from self._answered(call_id, result, error)
            case RunCompleted() | RunCancelled() | RunFailed() | RunInterrupted():
                yield from self._closed()
                if isinstance(event, RunCompleted):
                    yield from map(_left, self._open)
                yield self._ended(event)
            case _:
                pass

    def _custom(self, event: ToolApproval | Source) -> Members:
        """What AG-UI has no event of its own for."""
        if isinstance(event, Source):
            return {"type": "CUSTOM", "name": "source", "value": payload_of(event)}
        value = {"callId": event.call_id, "runId": self._run.id}
        return {"type": "CUSTOM", "name": "tool.approval", "value": value}

    def _write(self) -> Iterator[Members]:
        if self._writing is not None:
            return
        yield from self._thought()
        yield {"type": "TEXT_MESSAGE_START", "messageId": self._message(), "role": "assistant"}
        self._writing = self._message()

    def _think(self) -> Iterator[Members]:
        if self._thinking is not None:
            return
        yield from self._wrote()
        self._thoughts += 1
        self._thinking = f"{self._run.answer_id}.r{self._thoughts}"
        yield {"type": "REASONING_START", "messageId": self._thinking}
        yield {"type": "REASONING_MESSAGE_START", "messageId": self._thinking, "role": "reasoning"}

    def _call(self, call_id: str, name: str) -> Iterator[Members]:
        yield from self._thought()
        yield from self._wrote()
        yield from self._written(call_id)  # the same id again would be a call that is open twice
        parent = self._message()
        yield {"type": "TOOL_CALL_START", "toolCallId": call_id, "toolCallName": name, "parentMessageId": parent}
        self._calls.add(call_id)

    def _answered(self, call_id: str, result: str | None, error: str | None) -> Iterator[Members]:
        yield from self._written(call_id)
        self._called = True
        self._open = [call for call in self._open if call.call_id != call_id]
        told = result if error is None else f"Error: {error}"
        place = f"{self._run.answer_id}.t.{call_id}"
        yield {"type": "TOOL_CALL_RESULT", "messageId": place, "toolCallId": call_id, "content": told, "role": "tool"}

    def _message(self) -> str:
        """The message that is being made: the next one behind what tools have answered."""
        if self._called:
            self._called = False
            self._messages += 1
        return f"{self._run.answer_id}.m{self._messages}" if self._messages else self._run.answer_id

    def _wrote(self) -> Iterator[Members]:
        if self._writing is not None:
            yield {"type": "TEXT_MESSAGE_END", "messageId": self._writing}
            self._writing = None

    def _thought(self) -> Iterator[Members]:
        if self._thinking is not None:
            yield {"type": "REASONING_MESSAGE_END", "messageId": self._thinking}
            yield {"type": "REASONING_END", "messageId": self._thinking}
            self._thinking = None

    def _written(self, call_id: str) -> Iterator[Members]:
        if call_id in self._calls:
            self._calls.remove(call_id)
            yield {"type": "TOOL_CALL_END", "toolCallId": call_id}

    def _closed(self) -> Iterator[Members]:
        """Nothing may be open when a run ends."""
        yield from self._thought()
        yield from self._wrote()
        for call_id in sorted(self._calls):
            yield from self._written(call_id)

    def _ended(self, event: Terminal) -> Members:
        match event:
            case RunCompleted():
                left = [call.call_id for call in self._open]
                outcome: Members = {"type": "success"} | ({"pendingToolCallIds": left} if left else {})
                ended: Members = {"type": "RUN_FINISHED", **self._ids, "outcome": outcome}
            case RunCancelled():
                ended = {"type": "RUN_FINISHED", **self._ids, "outcome": {"type": "cancelled"}}
            case RunFailed(code, message):
                ended = {"type": "RUN_ERROR", "message": message, "code": code}
            case RunInterrupted(reason):
                ended = {"type": "RUN_ERROR", "message": reason, "code": "run_interrupted"}
            case _:
                assert_never(event)
        return ended if event.usage is None else {**ended, "usage": [_usage(event.usage)]}


def _data(members: Members) -> bytes:
    return f"data: {json.dumps(members, ensure_ascii=False)}\n\n".encode()


def _left(call: ToolCalled) -> Members:
    """A call that is left to the client. TanStack AI's waits for this to make it; others go by the calls' ends."""
    value = {"toolCallId": call.call_id, "toolName": call.name, "input": _input(call.arguments)}
    return {"type": "CUSTOM", "name": "tool-input-available", "value": value}


def _input(arguments: str) -> object:
    """As it is where it is no JSON: it is the tool that has to refuse it."""
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _usage(usage: Usage) -> Members:
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        "reasoningTokens": usage.reasoning_tokens,
        "cachedInputTokens": usage.cached_tokens,
    }
