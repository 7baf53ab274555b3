"""OpenAI's responses as a stream: https://platform.openai.com/docs/api-reference/responses-streaming"""

import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any, Literal, TypeAlias

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
    Terminal,
    TextDelta,
    ToolApproval,
    ToolCalled,
    ToolDecided,
    ToolDelta,
    ToolFinished,
    ToolStarted,
    Usage,
)
from chat.runs import Run, RunStatus
from chat.sessions import Turn
from chat.steps import log_of
from chat.terms import Terms
from handlers.formats.encoder import Encoder
from handlers.formats.frames import PING
from handlers.formats.response_items import CallItem, TextItem, citation
from handlers.formats.response_views import (
    IncompleteDetails,
    ResponseError,
    ResponseStatus,
    ResponseTool,
    ResponseUsage,
    ResponseView,
)

Incomplete: TypeAlias = Literal["max_output_tokens", "content_filter"]
_INCOMPLETE: Mapping[str, Incomplete] = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseEvents(Encoder):
    """Events of one response, numbered from 0 in the order of the log: those up to ``starting_after`` are left out.

    Calls of tools that are not in the ``terms`` are the service's own. They go out as ``mcp_call``: clients know that
    these are made for them. There is no event for a stop: it is a ``response.failed`` whose response is ``cancelled``,
    for what is no failure could pass for a whole answer.

    ``number`` is the last event's that was told, and ``seq`` the place in the log of what it tells of; the log is
    ``folded`` where that skips some.
    """

    replays = True

    def __init__(self, terms: Terms, starting_after: int = -1) -> None:
        self.terms = terms
        self.number = -1
        self.seq = 0
        self.folded = False
        self._theirs = {spec.name for spec in terms.tools}
        self._starting_after = starting_after
        self._after = 0
        self._frames: list[bytes] = []
        self._items: list[TextItem | CallItem] = []
        self._text: TextItem | None = None
        self._sources: list[Source] = []
        """That have no text yet."""
        self._calls: dict[str, CallItem] = {}
        self._ended: Terminal | None = None
        self._run: Run
        self._model: str

    def opening(self, run: Run, after: int) -> bytes:
        self._run, self._model, self._after = run, run.model, after
        self._tell("response.created", response=self._response("queued"))
        if after or not self._frames:
            return PING
        return f"id: {run.id}.0\n".encode() + self._frames.pop()

    def encode(self, run_id: str, first_seq: int, events: Sequence[Event]) -> bytes:
        told: list[bytes] = []
        self.folded = self.folded or first_seq > self.seq + 1
        for seq, event in enumerate(events, first_seq):
            self._frames = []
            self._take(event)
            if self._frames and seq > self._after:
                # Only the last one has the id: a client that saw but some of them has not seen the event.
                self._frames[-1] = f"id: {run_id}.{seq}\n".encode() + self._frames[-1]
                told += self._frames
        self.seq = first_seq + len(events) - 1
        return b"".join(told)

    def trouble(self, error: ChatError) -> bytes:
        return self._error(error.code, error.message)

    def leaving(self, milliseconds: int) -> bytes:
        message = f"The response goes on elsewhere: in {milliseconds} ms ask for it again, behind this sequence_number."
        return self._error("draining", message)

    def response(self, run: Run) -> ResponseView:
        """The response as far as it was told; ``run`` is what is known of its run now."""
        status: ResponseStatus = "queued" if run.status is RunStatus.QUEUED and self.number == 0 else "in_progress"
        view = self._response(status if self._ended is None else _status_of(self._ended))
        if view["status"] == "completed" and run.finished_at is not None:
            view["completed_at"] = run.finished_at // 1000
        return view

    def _take(self, event: Event) -> None:
        if self.number == 0:
            self._tell("response.in_progress", response=self._response("in_progress"))
        match event:
            case TextDelta(text):
                self._write("output_text", text)
            case ReasoningDelta(text):
                self._write("reasoning_text", text)
            case ToolStarted(call_id, name):
                self._start_call(call_id, name)
            case ToolDelta() | ToolCalled() | ToolApproval() | ToolDecided() | ToolFinished():
                if event.call_id in self._calls:
                    self._take_call(self._calls[event.call_id], event)
            case Source():
                self._add_source(event)
            case ModelSelected(model):
                self._model = model
            case RunCompleted() | RunFailed() | RunCancelled() | RunInterrupted():
                self._end(event)

    def _take_call(
        self, call: CallItem, event: ToolDelta | ToolCalled | ToolApproval | ToolDecided | ToolFinished
    ) -> None:
        match event:
            case ToolDelta(_, text):
                call.written.append(text)
                self._tell(f"response.{call.kind}_arguments.delta", **call.place, delta=text)
            case ToolCalled(_, _, arguments):
                self._called(call, arguments)
            case ToolFinished(_, result, error):
                self._finished(call, result, error)
            case _:  # no event says so, but the response itself does
                call.waits = isinstance(event, ToolApproval)

    def _write(self, kind: Literal["output_text", "reasoning_text"], text: str) -> None:
        if self._text is None or self._text.kind != kind:
            self._close_text("completed")
            self._text = self._open_text(kind)
        self._text.texts.append(text)
        self.number += 1
        if self.number > self._starting_after:  # nearly all of them are: what `_tell` does, at a fraction of the cost
            before, between, behind = self._text.mould
            self._frames.append(f"{before}{self.number}{between}{encode_basestring(text)}{behind}".encode())

    def _open_text(self, kind: Literal["output_text", "reasoning_text"]) -> TextItem:
        item = TextItem(self._key, len(self._items), kind)
        self._items.append(item)
        self._tell_item("added", item)
        self._tell("response.content_part.added", **item.place, part=item.part(""))
        if kind == "output_text":
            self._cite(item)
        return item

    def _add_source(self, source: Source) -> None:
        self._sources.append(source)
        if self._text is not None and self._text.kind == "output_text":
            self._cite(self._text)

    def _cite(self, item: TextItem) -> None:
        """Only text has annotations. A source that comes before it, or between two, belongs to the next."""
        texts = [other for other in self._items if isinstance(other, TextItem) and other.kind == "output_text"]
        before = sum([len(text) for other in texts if other is not item for text in other.texts])
        sources, self._sources = self._sources, []
        for source in sources:
            annotation = citation(source, before)
            place = {**item.place, "annotation_index": len(item.annotations)}
            item.annotations.append(annotation)
            self._tell("response.output_text.annotation.added", **place, annotation=annotation)

    def _close_text(self, status: Literal["completed", "incomplete"]) -> None:
        if self._text is not None:
            item, self._text = self._text, None
            item.status = status
            text = "".join(item.texts)
            self._tell(f"response.{item.kind}.done", **item.place, text=text, **item.more)
            self._tell("response.content_part.done", **item.place, part=item.part(text))
            self._tell_item("done", item)

    def _start_call(self, call_id: str, name: str) -> None:
        self._close_text("completed")
        kind: Literal["function_call", "mcp_call"] = "function_call" if name in self._theirs else "mcp_call"
        call = self._calls[call_id] = CallItem(self._key, len(self._items), kind, call_id, name)
        self._items.append(call)
        self._tell_item("added", call)
        if kind == "mcp_call":
            self._tell("response.mcp_call.in_progress", **call.place)

    def _called(self, call: CallItem, arguments: str) -> None:
        call.written = [arguments]
        self._tell(f"response.{call.kind}_arguments.done", **call.place, arguments=arguments)
        if call.kind == "mcp_call":
            call.status = "calling"
            return
        del self._calls[call.call_id]
        call.status = "completed"
        self._tell_item("done", call)

    def _finished(self, call: CallItem, result: str | None, error: str | None) -> None:
        """A tool of ours has answered; or the call was cut off while it was written, be it theirs or ours."""
        del self._calls[call.call_id]
        if call.kind == "mcp_call":
            call.output, call.error = result, error
            call.status = "completed" if error is None else "failed"
            self._tell(f"response.mcp_call.{call.status}", **call.place)
        else:
            call.status = "incomplete"
        self._tell_item("done", call)

    def _end(self, ending: Terminal) -> None:
        self._ended, status = ending, _status_of(ending)
        if self._sources:
            self._close_text("completed")
            self._text = self._open_text("output_text")
        if status == "completed" or status == "incomplete":
            self._close_text(status)
        for item in self._items:
            if item.status in ("in_progress", "calling"):
                item.status = "incomplete"
        self._tell(f"response.{'failed' if status == 'cancelled' else status}", response=self._response(status))

    def _tell_item(self, what: Literal["added", "done"], item: TextItem | CallItem) -> None:
        self._tell(f"response.output_item.{what}", output_index=item.index, item=item.view())

    def _tell(self, name: str, **members: object) -> None:
        self.number += 1
        if self.number > self._starting_after:
            self._frames.append(_frame(name, self.number, members))

    def _error(self, code: str, message: str) -> bytes:
        """It has the number of the last event that the client has: that is where it goes on."""
        seen = max(self.number, self._starting_after)
        return _frame("error", seen, {"code": code, "message": message, "param": None})

    @property
    def _key(self) -> str:
        return self._run.id.removeprefix("run_")

    def _response(self, status: ResponseStatus) -> ResponseView:
        labels: Mapping[str, Any] = self.terms.labels
        usage = None if self._ended is None else self._ended.usage
        return {
            "id": response_id(self._run),
            "object": "response",
            "created_at": self._run.created_at // 1000,
            "completed_at": None,
            "status": status,
            "model": self._model,
            "conversation": {"id": self._run.session_id},
            "previous_response_id": labels.get("previous_response_id"),
            "output": [item.view() for item in self._items],
            "error": _error_of(self._ended),
            "incomplete_details": _incomplete_details(self._ended),
            "usage": None if usage is None else _usage_object(usage),
            "background": bool(labels.get("background")),
            "store": True,
            "instructions": labels.get("instructions"),
            "metadata": labels.get("metadata") or {},
            "tools": _tools(self.terms),
            "tool_choice": labels.get("tool_choice") or "auto",
            "parallel_tool_calls": labels.get("parallel_tool_calls") is not False,
            "temperature": labels.get("temperature"),
            "top_p": labels.get("top_p"),
            "max_output_tokens": labels.get("max_output_tokens"),
            "reasoning": labels.get("reasoning") or {},
            "text": labels.get("text") or {"format": {"type": "text"}},
            "truncation": "auto",
        }


def response_id(run: Run) -> str:
    return f"resp_{run.id.removeprefix('run_')}"


def run_id_of(response_id: str) -> str:
    """The inverse of :func:`response_id`; what is no response's id is no run's either."""
    return f"run_{response_id.removeprefix('resp_')}" if response_id.startswith("resp_") else ""


def remembered(said: Turn, ending: Terminal) -> Sequence[Event]:
    """A log that would have led to this answer and this end, for a run whose own is gone."""
    return [*log_of(said.content, said.steps, said.sources), ending]


def _frame(name: str, number: int, members: Mapping[str, object]) -> bytes:
    data = json.dumps({"type": name, "sequence_number": number, **members}, ensure_ascii=False)
    return f"event: {name}\ndata: {data}\n\n".encode()


def _status_of(ending: Terminal) -> ResponseStatus:
    match ending:
        case RunCompleted(finish_reason=reason):
            return "incomplete" if reason in _INCOMPLETE else "completed"
        case RunCancelled():
            return "cancelled"
        case _:
            return "failed"


def _error_of(ending: Terminal | None) -> ResponseError | None:
    match ending:
        case RunFailed(code, message):
            busy = code == "upstream_rate_limited"
            return {"code": "rate_limit_exceeded" if busy else "server_error", "message": message, "type": code}
        case RunInterrupted(reason):
            return {"code": "server_error", "message": f"The answer was cut off: {reason}", "type": "run_interrupted"}
        case _:
            return None


def _incomplete_details(ending: Terminal | None) -> IncompleteDetails | None:
    if isinstance(ending, RunCompleted) and ending.finish_reason in _INCOMPLETE:
        return {"reason": _INCOMPLETE[ending.finish_reason]}
    return None


def _usage_object(usage: Usage) -> ResponseUsage:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _tools(terms: Terms) -> list[ResponseTool]:
    return [
        {
            "type": "function",
            "name": spec.name,
            "description": spec.description,
            "parameters": dict(spec.parameters),
            "strict": spec.strict,
        }
        for spec in terms.tools
    ]
