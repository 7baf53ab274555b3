"""A run as AG-UI's events."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.errors import ChatError
from chat.events import (
    Event,
    ModelSelected,
    ReasoningDelta,
    RunCancelled,
    RunFailed,
    RunInterrupted,
    Seam,
    TextDelta,
    ToolApproval,
    ToolCalled,
    ToolDecided,
    ToolDelta,
    ToolFinished,
    ToolStarted,
    Usage,
    answer_text,
    completed,
)
from handlers.formats.ag_ui import AgUiEvents
from tests.stories import RUN
from tests.strategies import logs

IDS = {"threadId": "thread", "runId": "run"}


def frames(log: list[Event], after: int = 0) -> list[str]:
    encoder = AgUiEvents("thread", "run")
    whole = encoder.opening(RUN, after) + encoder.encode("run_1", 1, log)
    *records, rest = whole.decode().split("\n\n")
    assert rest == ""
    return records


def test_frames_are_counted_whether_they_are_sent_or_not() -> None:
    log: list[Event] = [ModelSelected("m", "fallback"), TextDelta("Hello"), completed("Hello", "stop", None)]
    for after in (0, 3):
        encoder = AgUiEvents("thread", "run")
        encoder.opening(RUN, after)
        assert encoder.frames == 1
        encoder.encode("run_1", 1, log)
        assert encoder.frames == len(frames(log)) == 5


def told(records: list[str]) -> list[Any]:
    return [json.loads(record.partition("data: ")[2]) for record in records]


def verify(events: list[Any]) -> None:
    """The rules of AG-UI's own ``verifyEvents``; the client itself is asked in ``tests/live``."""
    first, *between, last = events
    assert first == {"type": "RUN_STARTED", **IDS}
    assert last["type"] in ("RUN_FINISHED", "RUN_ERROR")
    open_now: set[tuple[str, str]] = set()
    for event in between:
        kind, _, step = event["type"].rpartition("_")
        if kind not in ("TEXT_MESSAGE", "TOOL_CALL", "REASONING", "REASONING_MESSAGE") or step == "RESULT":
            assert event["type"] in ("TOOL_CALL_RESULT", "CUSTOM")
            continue
        place = (kind, event["toolCallId"] if kind == "TOOL_CALL" else event["messageId"])
        assert (place in open_now) == (step != "START"), event
        if step == "START":
            open_now.add(place)
        elif step == "END":
            open_now.remove(place)
    assert not open_now


def test_stream_looks_as_its_clients_know_it() -> None:
    log: list[Event] = [
        ReasoningDelta("hm"),
        TextDelta("I "),
        TextDelta("look.\n"),
        ToolStarted("1", "look"),
        ToolDelta("1", "{}"),
        ToolCalled("1", "look", "{}"),
        ToolApproval("1"),
        ToolDecided("1", approved=True),
        ToolFinished("1", "Rain"),
        Seam(2),
        ModelSelected("other", "fallback"),
        TextDelta("It rains."),
        completed("", "stop", Usage(3, 2, "reported", 1, 1)),
    ]
    records = frames(log)
    assert [record.partition("\n")[0] for record in records] == [f"id: run_1.{place}" for place in range(len(records))]
    usage = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5, "reasoningTokens": 1, "cachedInputTokens": 1}
    called = {"toolCallId": "1", "toolCallName": "look", "parentMessageId": "msg_2"}
    assert told(records) == [
        {"type": "RUN_STARTED", **IDS},
        {"type": "REASONING_START", "messageId": "msg_2.r1"},
        {"type": "REASONING_MESSAGE_START", "messageId": "msg_2.r1", "role": "reasoning"},
        {"type": "REASONING_MESSAGE_CONTENT", "messageId": "msg_2.r1", "delta": "hm"},
        {"type": "REASONING_MESSAGE_END", "messageId": "msg_2.r1"},
        {"type": "REASONING_END", "messageId": "msg_2.r1"},
        {"type": "TEXT_MESSAGE_START", "messageId": "msg_2", "role": "assistant"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "msg_2", "delta": "I "},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "msg_2", "delta": "look.\n"},
        {"type": "TEXT_MESSAGE_END", "messageId": "msg_2"},
        {"type": "TOOL_CALL_START", **called},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "1", "delta": "{}"},
        {"type": "TOOL_CALL_END", "toolCallId": "1"},
        {"type": "CUSTOM", "name": "tool.approval", "value": {"callId": "1", "runId": "run_1"}},
        {"type": "TOOL_CALL_RESULT", "messageId": "msg_2.t.1", "toolCallId": "1", "content": "Rain", "role": "tool"},
        {"type": "TEXT_MESSAGE_START", "messageId": "msg_2.m1", "role": "assistant"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "msg_2.m1", "delta": "It rains."},
        {"type": "TEXT_MESSAGE_END", "messageId": "msg_2.m1"},
        {"type": "RUN_FINISHED", **IDS, "outcome": {"type": "success"}, "usage": [usage]},
    ]


@pytest.mark.parametrize(("arguments", "given"), [('{"where": "here"}', {"where": "here"}), ("{where", "{where")])
def test_calls_that_are_left_to_the_client_are_named_at_the_end(arguments: str, given: object) -> None:
    """The custom event is what TanStack AI's client waits for."""
    calls: list[Event] = [ToolCalled("1", "look", arguments), ToolCalled("2", "note", "{}"), ToolFinished("2", "Done")]
    *_, left, last = told(frames([*calls, completed("", "tool_calls", None)]))
    value = {"toolCallId": "1", "toolName": "look", "input": given}
    assert left == {"type": "CUSTOM", "name": "tool-input-available", "value": value}
    assert last["outcome"] == {"type": "success", "pendingToolCallIds": ["1"]}
    assert "CUSTOM" not in [event["type"] for event in told(frames([*calls, RunCancelled("requested")]))]


def test_call_that_was_cut_off_is_closed_and_says_so() -> None:
    log: list[Event] = [ToolStarted("1", "look"), ToolFinished("1", error="Cut off."), completed("", "length", None)]
    assert [event["type"] for event in told(frames(log))][2:4] == ["TOOL_CALL_END", "TOOL_CALL_RESULT"]
    assert told(frames(log))[3]["content"] == "Error: Cut off."


@pytest.mark.parametrize(
    ("end", "last"),
    [
        (RunFailed("upstream_error", "Broke", retryable=True), {"message": "Broke", "code": "upstream_error"}),
        (RunInterrupted("It died."), {"message": "It died.", "code": "run_interrupted"}),
        (RunCancelled("requested"), {**IDS, "outcome": {"type": "cancelled"}}),
    ],
)
def test_bad_ends_have_their_own_events(end: Event, last: dict[str, object]) -> None:
    *_, ended = told(frames([TextDelta("Hi"), ReasoningDelta("hm"), end]))
    assert ended == {"type": "RUN_ERROR" if "code" in last else "RUN_FINISHED", **last}


@pytest.mark.parametrize("resumes", [False, True])
def test_cut_is_an_error_only_to_clients_that_do_not_come_back(resumes: bool) -> None:
    encoder = AgUiEvents("thread", "run", resumes=resumes)
    encoder.opening(RUN, 0)
    for frame in (encoder.trouble(ChatError("store_unavailable", "Not now.")), encoder.leaving(700)):
        assert not frame.startswith(b"id:")
        assert (b"RUN_ERROR" in frame) != resumes


@given(log=logs)
def test_every_log_follows_the_rules(log: list[Event]) -> None:
    events = told(frames(log))
    verify(events)
    said = [event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT"]
    assert "".join(said) == answer_text(log)


@given(log=logs, data=st.data())
def test_stream_from_any_frame_is_the_end_of_the_uninterrupted_one(log: list[Event], data: st.DataObject) -> None:
    whole = frames(log)
    after = data.draw(st.integers(1, len(whole) - 1))
    rest = whole[after + 1 :] or [whole[-1].partition("\n")[2]]  # the end again, without an id
    assert frames(log, after) == [": ping", *rest]
