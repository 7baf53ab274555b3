"""A ChatKit widget's view of a thread: it takes what the library's own types know, and nothing besides."""

import json
from datetime import datetime
from typing import Any

from chatkit.types import ThreadItem, ThreadStreamEvent
from pydantic import TypeAdapter

_EVENT: TypeAdapter[ThreadStreamEvent] = TypeAdapter(ThreadStreamEvent)
_ITEM: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)


def known(told: Any) -> Any:
    """The event, if the library reads it; a member that it has no name for would be lost on the way."""
    event = _EVENT.validate_python(told)
    assert _without_times(_EVENT.dump_python(event, mode="json", exclude_unset=True)) == _without_times(told)
    return told


def known_item(told: Any) -> Any:
    item = _ITEM.validate_python(told)
    assert _without_times(_ITEM.dump_python(item, mode="json", exclude_unset=True)) == _without_times(told)
    return told


def _without_times(value: Any) -> Any:
    """The same, with moments as moments: each side writes its milliseconds in its own way."""
    if isinstance(value, dict):
        return {
            name: datetime.fromisoformat(member) if name == "created_at" else _without_times(member)
            for name, member in value.items()
        }
    return [_without_times(member) for member in value] if isinstance(value, list) else value


def same(items: list[Any], others: list[Any]) -> bool:
    return bool(_without_times(items) == _without_times(others))


def events_in(stream: str) -> list[Any]:
    """The events of a stream's data lines, each known."""
    lines = [line.removeprefix("data: ") for line in stream.split("\n") if line.startswith("data: ")]
    return [known(json.loads(line)) for line in lines]


class Widget:
    """Puts a thread together from its stream."""

    def __init__(self) -> None:
        self.thread: Any = None
        self.items: dict[str, Any] = {}
        self.open: set[str] = set()
        self.beside: list[Any] = []
        """What is no item: options, notices and errors."""

    def see(self, *events: Any) -> None:
        for event in events:
            match event["type"]:
                case "thread.created":
                    assert self.thread is None
                    self.thread = event["thread"]
                case "thread.item.added":
                    assert event["item"]["id"] not in self.items
                    self._put(event["item"])
                    self.open.add(event["item"]["id"])
                case "thread.item.updated":
                    assert event["item_id"] in self.open
                    self._update(self.items[event["item_id"]], event["update"])
                case "thread.item.done":
                    self.open.discard(event["item"]["id"])
                    self._put(event["item"])
                case "thread.item.replaced":
                    assert event["item"]["id"] in self.items
                    self._put(event["item"])
                case _:
                    self.beside.append(event)

    @property
    def text(self) -> str:
        """All that the assistant has said."""
        return text_of(list(self.items.values()))

    def _put(self, item: Any) -> None:
        self.items[item["id"]] = json.loads(json.dumps(item))

    def _update(self, item: Any, update: Any) -> None:
        match update["type"]:
            case "assistant_message.content_part.added":
                assert len(item["content"]) == update["content_index"]
                item["content"].append(update["content"])
            case "assistant_message.content_part.text_delta":
                item["content"][update["content_index"]]["text"] += update["delta"]
            case "assistant_message.content_part.annotation_added":
                annotations = item["content"][update["content_index"]]["annotations"]
                assert len(annotations) == update["annotation_index"]
                annotations.append(update["annotation"])
            case "assistant_message.content_part.done":
                assert item["content"][update["content_index"]] == update["content"]
            case "workflow.task.added":
                assert len(item["workflow"]["tasks"]) == update["task_index"]
                item["workflow"]["tasks"].append(update["task"])
            case "workflow.task.updated":
                item["workflow"]["tasks"][update["task_index"]] = update["task"]
            case kind:
                raise AssertionError(kind)


def text_of(items: list[Any]) -> str:
    said = [item for item in items if item["type"] == "assistant_message"]
    return "".join([part["text"] for item in said for part in item["content"]])
