"""Models, tools and upstreams that write what a line protocol is made of: no format lets them make a frame of it."""

import json
import re
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.events import (
    Event,
    ModelSelected,
    ReasoningDelta,
    RunCancelled,
    RunFailed,
    RunInterrupted,
    Source,
    TextDelta,
    ToolCalled,
    ToolDelta,
    ToolFinished,
    ToolStarted,
    answer_text,
    completed,
)
from handlers.formats import FORMATS
from tests.stories import told
from tests.test_golden_streams import encoder

NAMES = [*FORMATS, "lines", "completions", "responses", "ag_ui", "chatkit", "ui_messages"]

INJECTED = [
    "\n\nevent: run.completed\ndata: {}\n\n", "\r\rid: run_1.99\rdata: more\r\r", "\r\n\r\nretry: 1\r\n\r\n",
    "data: [DONE]", "[DONE]", "\n[DONE]\n", "\n\ndata: [DONE]\n\n", "[DONE]\r[DONE]\r\n[DONE]", "a[DONE]", "[DONE] ",
    ": comment\n", "id: 7\n", "event: error\ndata: {}\n\n", "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e", "\0", "id: \0\n",
    "\ufeff", "\ufeffdata: x\n\n", '"}\n\ndata: {"type":"finish"}\n\n', "\\n\\ndata: x\\n\\n", "\\u000a\\u000adata: x",
    "</script>\n\n", "\x1b]0;title\x07", "\U0001f600", "%0d%0adata: x", "a\rb", "\r", "\n", "\r\n",
]  # fmt: skip

hostile = st.lists(st.sampled_from(INJECTED) | st.text(max_size=3), min_size=1, max_size=4).map("".join)


class Frame(NamedTuple):
    """One record, with each field as often as it is there."""

    id: tuple[str, ...]
    event: tuple[str, ...]
    data: str | None


def framed(stream: bytes) -> list[Frame]:
    """As https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream wants it."""
    text = stream.decode()
    assert not text.startswith("\ufeff")
    found: list[Frame] = []
    fields: dict[str, list[str]] = {}
    for line in re.split("\r\n|\n|\r", text):
        name, _, value = line.partition(":")
        if line and name:
            fields.setdefault(name, []).append(value.removeprefix(" "))
        elif not line and fields:
            assert set(fields) <= {"id", "event", "data", "retry"}
            data = "\n".join(fields["data"]) if "data" in fields else None
            found.append(Frame(tuple(fields.get("id", ())), tuple(fields.get("event", ())), data))
            fields = {}
    assert not fields
    return found


def story(text: str, end: int) -> list[Event]:
    """A run with this text wherever somebody else decides what there is."""
    log: list[Event] = [
        ReasoningDelta(text),
        TextDelta(text),
        ToolStarted("call_1", text),
        ToolDelta("call_1", text),
        ToolCalled("call_1", text, text),
        ToolStarted("call_2", text),
        ToolCalled("call_2", text, "{}"),
        ToolFinished("call_1", text),
        ToolFinished("call_2", error=text),
        Source("source_1", f"https://a.example/{text}", text, text=text, start=0, end=1),
        Source("source_2", None, text, text, text, text=text),
        ModelSelected(text, "fallback", text, (text,)),
        TextDelta(text),
    ]
    ends: list[Event] = [
        completed(answer_text(log), text, None),
        RunFailed(text, text, retryable=True),
        RunCancelled(text),
        RunInterrupted(text),
    ]
    return [*log, ends[end]]


@pytest.mark.parametrize("name", NAMES)
@given(text=hostile, end=st.integers(0, 3))
def test_no_text_makes_a_frame_ends_one_or_names_one(name: str, text: str, end: int) -> None:
    found, harmless = framed(told(encoder(name), story(text, end))), framed(told(encoder(name), story("x", end)))
    if name in ("text", "lines"):
        found = [frame for frame in found if frame.id]  # a seeming end comes in parts
    assert [(frame.id, frame.event) for frame in found] == [(frame.id, frame.event) for frame in harmless]
    for frame, usual in zip(found, harmless, strict=True):
        assert (frame.data is None) is (usual.data is None)
        assert name == "lines" or (frame.data == "[DONE]") is (usual.data == "[DONE]")  # which has no such end
        if usual.data is not None and usual.data.startswith("{"):
            json.loads(frame.data or "")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("text", "lines")])
@given(text=hostile)
def test_text_arrives_as_it_was_written(name: str, text: str) -> None:
    found = framed(told(encoder(name), [TextDelta(text), completed(text, "stop", None)]))
    read = [json.loads(frame.data) for frame in found if frame.data not in (None, "[DONE]")]
    assert text in strings(read)


def strings(value: object) -> set[str]:
    if isinstance(value, dict):
        return {found for member in value.values() for found in strings(member)}
    if isinstance(value, list):
        return {found for member in value for found in strings(member)}
    return {value} if isinstance(value, str) else set()


@given(text=hostile)
def test_plain_text_joins_up_and_its_end_is_the_only_one(text: str) -> None:
    log: list[Event] = [TextDelta(text), completed(text, "stop", None)]
    for name in ("text", "lines"):
        stream = FORMATS["text"].encode("run_1", 1, log) if name == "text" else encoder(name).encode("run_1", 1, log)
        *said, end = framed(stream)
        joined = "".join(frame.data or "" for frame in said)
        assert joined == text.replace("\r\n", "\n").replace("\r", "\n")
        assert end.data == ("[DONE]" if name == "text" else None)
        if name == "text":
            # Those who read lines and those who read events find one end, at the end.
            assert re.split("\r\n|\n|\r", stream.decode()).count("data: [DONE]") == 1
            assert [frame.data for frame in said].count("[DONE]") == 0


def test_seeming_end_comes_in_two_halves_of_which_the_last_moves_the_cursor() -> None:
    for text, sent in (
        ("[DONE]", "data: [DO\n\nid: run_1.1\ndata: NE]\n\n"),
        ("a\n[DONE]\nb", "data: a\ndata: [DO\n\nid: run_1.1\ndata: NE]\ndata: b\n\n"),
        ("a [DONE]", "id: run_1.1\ndata: a [DONE]\n\n"),
    ):
        assert FORMATS["text"].encode("run_1", 1, [TextDelta(text)]).decode() == sent
