"""The items of a response while they are written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from chat.events import Source
from handlers.formats.response_views import Annotation, Item, ItemStatus, OutputText, ReasoningText, ToolError

SERVER = "parley"
"""What the service's own tools are said to be on: an ``mcp_call`` has to name a server."""


def citation(source: Source, before: int) -> Annotation:
    """The source as text has it that stands behind so many characters of the answer."""
    start, end = max(0, (source.start or 0) - before), max(0, (source.end or 0) - before)
    if source.url is None:
        file_id = source.document or source.id
        return {"type": "file_citation", "file_id": file_id, "filename": source.title or file_id, "index": end}
    title = source.title or source.url
    return {"type": "url_citation", "url": source.url, "title": title, "start_index": start, "end_index": end}


@dataclass(slots=True)
class TextItem:
    """A message, or what the model thought. It is shown with its text, so never without any."""

    key: str
    index: int
    kind: Literal["output_text", "reasoning_text"]
    status: ItemStatus = "in_progress"
    texts: list[str] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    mould: tuple[str, str, str] = field(init=False)
    """A delta's frame, without its number and its text."""

    def __post_init__(self) -> None:
        name = f"response.{self.kind}.delta"
        before = f'event: {name}\ndata: {{"type": "{name}", "sequence_number": '
        more = f", {json.dumps(self.more)[1:-1]}" if self.more else ""
        self.mould = before, f', {json.dumps(self.place)[1:-1]}, "delta": ', f"{more}}}\n\n"

    @property
    def id(self) -> str:
        return f"{'msg' if self.kind == 'output_text' else 'rs'}_{self.key}_{self.index}"

    @property
    def place(self) -> Mapping[str, object]:
        """Where its one part is found."""
        return {"item_id": self.id, "output_index": self.index, "content_index": 0}

    @property
    def more(self) -> Mapping[str, object]:
        """What its events have besides."""
        return {"logprobs": []} if self.kind == "output_text" else {}

    def part(self, text: str) -> OutputText | ReasoningText:
        if self.kind == "output_text":
            return {"type": "output_text", "text": text, "annotations": list(self.annotations), "logprobs": []}
        return {"type": "reasoning_text", "text": text}

    def view(self) -> Item:
        content: list[Any] = [self.part("".join(self.texts))] if self.texts or self.annotations else []
        if self.kind == "output_text":
            return {
                "id": self.id,
                "type": "message",
                "role": "assistant",
                "status": self.status,
                "content": content,
            }
        return {"id": self.id, "type": "reasoning", "status": self.status, "summary": [], "content": content}


@dataclass(slots=True)
class CallItem:
    """A call of a tool, the client's or ours."""

    key: str
    index: int
    kind: Literal["function_call", "mcp_call"]
    call_id: str
    name: str
    written: list[str] = field(default_factory=list)
    status: Any = "in_progress"
    waits: bool = False
    output: str | None = None
    error: str | None = None

    @property
    def id(self) -> str:
        return f"{'fc' if self.kind == 'function_call' else 'mcp'}_{self.key}_{self.index}"

    @property
    def place(self) -> Mapping[str, object]:
        return {"item_id": self.id, "output_index": self.index}

    def view(self) -> Item:
        if self.kind == "function_call":
            return {
                "id": self.id,
                "type": "function_call",
                "status": self.status,
                "call_id": self.call_id,
                "name": self.name,
                "arguments": "".join(self.written),
            }
        error: ToolError | None = None
        if self.error is not None:
            error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": self.error}]}
        return {
            "id": self.id,
            "type": "mcp_call",
            "status": self.status,
            "server_label": SERVER,
            "name": self.name,
            "arguments": "".join(self.written),
            "approval_request_id": self.call_id if self.waits else None,
            "output": self.output,
            "error": error,
        }
