"""What a run says, as the items of a ChatKit thread: ``ThreadItem`` in ``openai-chatkit``'s ``chatkit.types``."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from chat.events import (
    Event,
    ReasoningDelta,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    Seam,
    Source,
    Terminal,
    TextDelta,
    ToolApproval,
    ToolCalled,
    ToolDecided,
    ToolFinished,
    ToolStarted,
    ends,
)
from handlers.views import timestamp

Members: TypeAlias = dict[str, Any]

YES, NO = "Yes", "No"
"""The answers to the question whether a call may be made."""

FIRST_THOUGHTS = 80
"""Characters of reasoning between two updates while there is little of it."""

MORE_THOUGHTS = 4
"""An update repeats the whole thought, so the next one waits for a quarter more: in all it is sent five times."""

_NOTICES = {
    "length": "The answer is cut off: it has reached the model's longest length.",
    "content_filter": "The answer is cut off by the model's content filter.",
}


class AnswerItems:
    """The items of one answer, and the stream events that tell a client of them. It is fed with the run's events.

    Text is a message; behind what tools have answered it is the next one. Reasoning is a workflow with one thought, and
    calls are the tasks of another. A call that waits for a yes is a structured input. The first message has the
    answer's id, ``{answer}.{n}`` are the others, and ``{run}.{call}`` are the inputs.
    """

    def __init__(self, thread_id: str, run_id: str, answer_id: str, created_at: int) -> None:
        self.thread_id = thread_id
        self.unanswered: dict[str, tuple[Members, int]] = {}
        """The workflow of each call that has no answer, and its place there."""
        self.waiting: dict[str, Members] = {}
        """The calls that wait for a yes, and the items that ask for it."""
        self.texts: list[str] = []
        """Of the message that is being written."""
        self.message: Members | None = None
        self._run_id, self._answer_id, self._created_at = run_id, answer_id, created_at
        self._items: list[Members] = []
        self._messages = 0
        self._said = 0
        """Characters of the messages that are done."""
        self._sources: list[Source] = []
        """That have no message yet."""
        self._thoughts: Members | None = None
        self._thought: list[str] = []
        self._length = self._shown = 0
        self._tools: Members | None = None

    @property
    def items(self) -> Sequence[Members]:
        """In their order; those that are still being written are as far as they have come."""
        self._write_down()
        return self._items

    def say(self, event: Event) -> Iterator[Members]:
        """The stream events that tell of this one."""
        match event:
            case TextDelta(text):
                if self.message is None:
                    yield from self._begin_message()
                yield self._updated(self.message, text_delta(text))
                self.texts.append(text)
            case ReasoningDelta(text):
                yield from self._think(text)
            case ToolStarted(call_id, name):
                yield from self._call(call_id, name)
            case ToolCalled() | ToolApproval() | ToolDecided() | ToolFinished():
                yield from self._called(event)
            case Source():
                self._sources.append(event)
                if self.message is not None:
                    yield from self._cite(self.message)
            case Seam():
                yield _notice("info", "The answer was interrupted, and goes on.")
            case _ if ends(event):
                yield from self._end(event)

    def _begin_message(self) -> Iterator[Members]:
        yield from self._end_thoughts()
        if not self.unanswered:
            yield from self._end_tools()
        content = {"type": "output_text", "text": "", "annotations": list[Members]()}
        self.message = self._item("assistant_message", content=[])
        yield {"type": "thread.item.added", "item": self.message}
        added = "assistant_message.content_part.added"
        yield self._updated(
            self.message, {"type": added, "content_index": 0, "content": {**content, "annotations": []}}
        )
        self.message["content"] = [content]
        yield from self._cite(self.message)

    def _cite(self, message: Members) -> Iterator[Members]:
        """Only messages have annotations. A source that comes before one, or between two, belongs to the next."""
        sources, self._sources = self._sources, []
        annotations = message["content"][0]["annotations"]
        for source in sources:
            place = {"content_index": 0, "annotation_index": len(annotations)}
            annotations.append(_annotation(source, self._said))
            added = "assistant_message.content_part.annotation_added"
            yield self._updated(message, {"type": added, **place, "annotation": annotations[-1]})

    def _end_message(self) -> Iterator[Members]:
        if self.message is not None:
            self._write_down()
            [content] = self.message["content"]
            done = "assistant_message.content_part.done"
            yield self._updated(self.message, {"type": done, "content_index": 0, "content": content})
            yield {"type": "thread.item.done", "item": self.message}
            self._said += sum(map(len, self.texts))
            self.message, self.texts = None, []

    def _write_down(self) -> None:
        if self.message is not None:
            self.message["content"][0]["text"] = "".join(self.texts)
        if self._thoughts is not None:
            self._thoughts["workflow"]["tasks"][0]["content"] = "".join(self._thought)

    def _think(self, text: str) -> Iterator[Members]:
        self._thought.append(text)
        self._length += len(text)
        if self._thoughts is None:
            yield from self._end_message()
            if not self.unanswered:
                yield from self._end_tools()
            self._thoughts = self._item("workflow", workflow={"type": "reasoning", "tasks": [], "expanded": False})
            yield {"type": "thread.item.added", "item": self._thoughts}
            yield self._task(self._thoughts, 0, {"type": "thought", "content": text, "status_indicator": "loading"})
            self._shown = self._length
        elif self._length - self._shown >= max(FIRST_THOUGHTS, self._shown // MORE_THOUGHTS):
            self._shown = self._length
            self._write_down()
            yield self._task(self._thoughts, 0)

    def _end_thoughts(self) -> Iterator[Members]:
        if self._thoughts is not None:
            self._write_down()
            self._thoughts["workflow"]["tasks"][0]["status_indicator"] = "complete"
            yield {"type": "thread.item.done", "item": self._thoughts}
            self._thoughts, self._thought, self._length = None, [], 0

    def _call(self, call_id: str, name: str) -> Iterator[Members]:
        yield from self._end_thoughts()
        yield from self._end_message()
        task = {"type": "custom", "title": name, "content": "", "status_indicator": "loading"}
        if self._tools is None:
            self._tools = self._item("workflow", workflow={"type": "custom", "tasks": [task], "expanded": False})
            yield {"type": "thread.item.added", "item": self._tools}
        else:
            yield self._task(self._tools, len(self._tools["workflow"]["tasks"]), task)
        self.unanswered[call_id] = self._tools, len(self._tools["workflow"]["tasks"]) - 1

    def _called(self, event: ToolCalled | ToolApproval | ToolDecided | ToolFinished) -> Iterator[Members]:
        call_id = event.call_id
        if isinstance(event, ToolCalled) and call_id not in self.unanswered:
            yield from self._call(call_id, event.name)
        match event:
            case ToolDecided(_, approved) if call_id in self.waiting:
                yield self._decided(call_id, "answered", values=[YES if approved else NO], skipped=False)
            case ToolApproval() if call_id in self.unanswered and call_id not in self.waiting:
                yield {"type": "thread.item.done", "item": self._ask(call_id)}
            case ToolCalled(_, _, arguments):
                item, place, task = self._place(call_id)
                task["content"] = arguments
                yield self._task(item, place)
            case ToolFinished(_, result, error) if call_id in self.unanswered:
                if call_id in self.waiting:
                    yield self._decided(call_id, "skipped", values=[], skipped=True)
                item, place, task = self._place(call_id)
                task["content"] = "\n\n".join(filter(None, [task["content"], result, error and f"Error: {error}"]))
                task["status_indicator"] = "complete"
                yield self._task(item, place)
                del self.unanswered[call_id]

    def _place(self, call_id: str) -> tuple[Members, int, Members]:
        item, place = self.unanswered[call_id]
        return item, place, item["workflow"]["tasks"][place]

    def _ask(self, call_id: str) -> Members:
        _, _, task = self._place(call_id)
        question = f"May {task['title']} be called? {task['content']}".strip()
        choice = {"type": "multiple_choice", "id": call_id, "question": question, "multiple": False}
        choices = [choice | {"options": [{"value": YES}, {"value": NO}]}]
        item = self._item("structured_input", input_id(self._run_id, call_id), status="pending", inputs=choices)
        self.waiting[call_id] = item
        return item

    def _decided(self, call_id: str, status: str, **answer: object) -> Members:
        item = self.waiting.pop(call_id)
        item["status"] = status
        item["inputs"][0]["answer"] = answer
        return {"type": "thread.item.replaced", "item": item}

    def _end_tools(self) -> Iterator[Members]:
        if self._tools is not None:
            for task in self._tools["workflow"]["tasks"]:
                if task["status_indicator"] == "loading":
                    task["status_indicator"] = "none"  # nobody knows what came of it
            yield {"type": "thread.item.done", "item": self._tools}
            self._tools = None

    def _end(self, event: Terminal) -> Iterator[Members]:
        yield from self._end_thoughts()
        if self._sources:
            yield from self._begin_message()
        yield from self._end_message()
        for call_id in list(self.waiting):
            yield self._decided(call_id, "skipped", values=[], skipped=True)
        yield from self._end_tools()
        self.unanswered.clear()
        match event:
            case RunCompleted(finish_reason=reason) if reason in _NOTICES:
                yield _notice("warning", _NOTICES[reason])
            case RunCancelled():
                yield _notice("info", "The answer was stopped.")
            case RunFailed(message=message, retryable=retryable):
                yield failure(message, allow_retry=retryable)
            case RunInterrupted(reason):
                yield failure(f"The answer was interrupted: {reason}.", allow_retry=True)

    def _item(self, kind: str, item_id: str | None = None, **members: object) -> Members:
        if item_id is None and kind == "assistant_message" and not self._messages:
            self._messages, item_id = 1, self._answer_id
        place = item_id or f"{self._answer_id}.{len(self._items)}"
        about = {"id": place, "thread_id": self.thread_id, "created_at": timestamp(self._created_at)}
        self._items.append({**about, "type": kind, **members})
        return self._items[-1]

    def _updated(self, item: Members | None, update: Members) -> Members:
        assert item is not None
        return {"type": "thread.item.updated", "item_id": item["id"], "update": update}

    def _task(self, item: Members, place: int, task: Members | None = None) -> Members:
        """The task at this place as it is now, or a new one."""
        tasks = item["workflow"]["tasks"]
        if task is not None:
            tasks.append(task)
        kind = "workflow.task.added" if task is not None else "workflow.task.updated"
        return self._updated(item, {"type": kind, "task_index": place, "task": tasks[place]})


def input_id(run_id: str, call_id: str) -> str:
    """The item that asks whether the call may be made."""
    return f"{run_id}.{call_id}"


def text_delta(text: str) -> Members:
    return {"type": "assistant_message.content_part.text_delta", "content_index": 0, "delta": text}


def failure(message: str, *, allow_retry: bool) -> Members:
    return {"type": "error", "code": "custom", "message": message, "allow_retry": allow_retry}


def _notice(level: str, message: str) -> Members:
    return {"type": "notice", "level": level, "message": message}


def _annotation(source: Source, before: int) -> Members:
    """The source as a message has it that stands behind so many characters of the answer."""
    about = {"title": source.title or source.url or source.document or source.id}
    if source.text is not None:
        about["description"] = source.text
    if source.url is None:
        told = {"type": "file", "filename": source.document or source.id, **about}
    else:
        told = {"type": "url", "url": source.url, **about}
    place = {} if source.end is None else {"index": max(0, source.end - before)}
    return {"type": "annotation", "source": told, **place}
