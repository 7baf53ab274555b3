"""OpenAI's chat completions as a stream: https://platform.openai.com/docs/api-reference/chat-streaming"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import Literal, TypeAlias, get_args

from typing_extensions import TypedDict  # typing's own cannot be described before Python 3.12

from chat.errors import ChatError
from chat.events import (
    Event,
    ModelSelected,
    ReasoningDelta,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    Source,
    TextDelta,
    ToolDelta,
    ToolStarted,
    Usage,
)
from chat.runs import Run
from handlers.formats.encoder import Encoder
from handlers.formats.frames import PING

FinishReason: TypeAlias = Literal["stop", "length", "content_filter", "tool_calls"]
FINISH_REASONS: Mapping[str, FinishReason] = {reason: reason for reason in get_args(FinishReason)}


class CompletionChunks(Encoder):
    """Chunks of one answer. ``tools`` are the client's own: calls of others are none of its business.

    Reasoning goes out as ``reasoning_content``, as DeepSeek's and vLLM's servers send it. A run that was stopped or
    failed is an ``error``, in which clients raise: as anything else, a part of an answer would pass for a whole one.
    """

    replays = True

    def __init__(self, tools: Collection[str] = (), *, usage: bool = False) -> None:
        self._tools = tools
        self._usage = usage
        self._indexes: dict[str, int] = {}
        self._sources: list[Source] = []
        self._after = 0
        self._run: Run

    def opening(self, run: Run, after: int) -> bytes:
        self._run, self._after = run, after
        self._speaks(run.model)
        return PING if after else self._chunk(f"{run.id}.0", {"role": "assistant", "content": ""})

    def encode(self, run_id: str, first_seq: int, events: Sequence[Event]) -> bytes:
        frames = [self._frame(f"{run_id}.{seq}", event) for seq, event in enumerate(events, first_seq)]
        return b"".join(frames[max(0, self._after + 1 - first_seq) :])

    def trouble(self, error: ChatError) -> bytes:
        return _data({"error": error_object(error.code, error.message)})

    def leaving(self, milliseconds: int) -> bytes:
        message = f"The answer goes on elsewhere: in {milliseconds} ms ask again with the same Idempotency-Key."
        return _data({"error": error_object("draining", message)})

    def _frame(self, event_id: str, event: Event) -> bytes:
        match event:
            case TextDelta(text):  # nearly all of them are: the same bytes as below, at a fraction of the cost
                content = encode_basestring(text)
                return f'id: {event_id}\ndata: {self._head}{{"content": {content}}}{_GOING_ON}\n\n'.encode()
            case ReasoningDelta(text):
                return self._chunk(event_id, {"reasoning_content": text})
            case ToolStarted(call_id, name) if name in self._tools:
                self._indexes[call_id] = len(self._indexes)
                function = {"name": name, "arguments": ""}
                return self._call(event_id, call_id, {"id": call_id, "type": "function", "function": function})
            case ToolDelta(call_id, text) if call_id in self._indexes:
                return self._call(event_id, call_id, {"function": {"arguments": text}})
            case Source() | ModelSelected():
                self._note(event)
            case RunCompleted(finish_reason=reason, usage=usage):
                return self._end(event_id, reason, usage)
            case RunFailed(code, message):
                return _data({"error": error_object(code, message)}, event_id)
            case RunCancelled():
                return _data({"error": error_object("run_cancelled", "The answer was stopped.")}, event_id)
            case RunInterrupted(reason):
                return _data({"error": error_object("run_interrupted", reason)}, event_id)
        return b""  # an id alone would be an event without data to OpenAI's client, which then fails

    def _note(self, event: Source | ModelSelected) -> None:
        """What later chunks say."""
        if isinstance(event, Source):
            self._sources.append(event)
        else:
            self._speaks(event.model)

    def _speaks(self, model: str) -> None:
        self._about = {
            "id": completion_id(self._run),
            "object": "chat.completion.chunk",
            "created": self._run.created_at // 1000,
            "model": model,
        }
        self._head = f'{json.dumps(self._about, ensure_ascii=False)[:-1]}, "choices": [{{"index": 0, "delta": '

    def _chunk(self, event_id: str, delta: Mapping[str, object]) -> bytes:
        return f"id: {event_id}\ndata: {self._head}{json.dumps(delta, ensure_ascii=False)}{_GOING_ON}\n\n".encode()

    def _call(self, event_id: str, call_id: str, members: Mapping[str, object]) -> bytes:
        return self._chunk(event_id, {"tool_calls": [{"index": self._indexes[call_id], **members}]})

    def _end(self, event_id: str, reason: str, usage: Usage | None) -> bytes:
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish_reason(reason)}
        frames = [_data({**self._about, "choices": [choice]})]
        if annotations := annotations_of(self._sources):
            # All in one, as OpenAI has it: npm's client keeps but the last list. And PyPI's wants an index in each.
            numbered = [{"index": index, **annotation} for index, annotation in enumerate(annotations)]
            cited = {"index": 0, "delta": {"annotations": numbered}, "logprobs": None, "finish_reason": None}
            frames.insert(0, _data({**self._about, "choices": [cited]}))
        if self._usage:
            told = None if usage is None else usage_object(usage)
            frames.append(_data({**self._about, "choices": [], "usage": told}))
        # Only the last one has the id: a client that saw but the first has not seen the end.
        return b"".join(frames) + f"id: {event_id}\ndata: [DONE]\n\n".encode()


_GOING_ON = ', "logprobs": null, "finish_reason": null}]}'


def completion_id(run: Run) -> str:
    return f"chatcmpl-{run.id}"


def finish_reason(reason: str) -> FinishReason:
    """The reason as clients know it; an upstream's own word becomes ``stop``."""
    return FINISH_REASONS.get(reason, "stop")


class UrlCitation(TypedDict):
    url: str
    title: str
    start_index: int
    end_index: int


class Annotation(TypedDict):
    """What the characters are from; both indexes are 0 where nobody knows which those are."""

    type: Literal["url_citation"]
    url_citation: UrlCitation


def annotations_of(sources: Iterable[Source]) -> list[Annotation]:
    """Pages alone: there is no annotation for a document."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "url": source.url,
                "title": source.title or source.url,
                "start_index": source.start or 0,
                "end_index": source.end or 0,
            },
        }
        for source in sources
        if source.url is not None
    ]


class CachedTokens(TypedDict):
    cached_tokens: int


class ReasoningTokens(TypedDict):
    reasoning_tokens: int


class CompletionUsage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: ReasoningTokens


def usage_object(usage: Usage) -> CompletionUsage:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def error_object(code: str, message: str, kind: str = "server_error") -> dict[str, object]:
    """The ``error`` of https://platform.openai.com/docs/guides/error-codes."""
    return {"message": message, "type": kind, "param": None, "code": code}


def _data(members: Mapping[str, object], event_id: str | None = None) -> bytes:
    head = "" if event_id is None else f"id: {event_id}\n"
    return f"{head}data: {json.dumps(members, ensure_ascii=False)}\n\n".encode()
